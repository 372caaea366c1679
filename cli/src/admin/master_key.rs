//! `cloudserve admin rotate-master-key`: everything sealed again under a new key.

use std::path::Path;

use cloudserve_identity::{SealError, Sealer};
use cloudserve_store::{DataDirLock, Stores, open_embedded_exclusive};

use super::AdminError;
use crate::secrets::{FromEnvironment, LostKeys, Secrets};

/// Environments sealed again in one step.
const RESEAL_PAGE: u32 = 100;

/// How often it is looked whether anything is sealed under the old key.
const RESEAL_LOOKS: u32 = 10;

pub(super) const EXAMPLES: &str = "\
A data directory: stop the server, run this, start it. Cut off, it may be run again.

MongoDB: while servers run, all of which have the new key in CLOUDSERVE_MASTER_KEY and the old one in
CLOUDSERVE_MASTER_KEY_PREVIOUS, run this with the same two. When it has ended, the old key opens
nothing any more and may be taken away.";

/// Both keys are known before anything is sealed under the new one, and until all is: whenever
/// this is cut off, everything opens, and it may be run again.
pub(super) async fn rotate(data_dir: &Path, given: &FromEnvironment) -> Result<String, AdminError> {
    let lock = DataDirLock::acquire(data_dir)?;
    let stores = open_embedded_exclusive(&lock)?;
    let mut secrets = Secrets::load_for(&stores, data_dir, given).await?;
    let is_ours = !given.has_master_key();
    if is_ours {
        secrets.renew_master(data_dir)?;
    }
    let sealer = Sealer::with_previous(&secrets.master, &secrets.previous);
    let resealed = reseal(&stores, &sealer, &given.lost).await?;
    if is_ours {
        secrets.forget_previous(data_dir)?;
    }
    Ok(format!("{resealed} environments are sealed under the new master key"))
}

/// Over servers that others use meanwhile. What they seal while this runs is found by the next
/// look.
pub(super) async fn rotate_shared(
    stores: &Stores,
    secrets: &Secrets,
    lost: &LostKeys,
) -> Result<String, AdminError> {
    if secrets.previous.is_empty() {
        return Err(AdminError::NoPrevious);
    }
    let sealer = Sealer::with_previous(&secrets.master, &secrets.previous);
    let mut resealed = 0;
    for _ in 0..RESEAL_LOOKS {
        match reseal(stores, &sealer, lost).await? {
            0 => {
                return Ok(format!(
                    "{resealed} environments are sealed under the new master key; when no process \
                     seals under the old one any more, it may be taken away"
                ));
            }
            more => resealed += more,
        }
    }
    Err(AdminError::StillSealing)
}

async fn reseal(stores: &Stores, sealer: &Sealer, lost: &LostKeys) -> Result<u64, AdminError> {
    let (mut after, mut resealed) = (None, 0);
    loop {
        let page = stores.functions.sealed_envs(after, RESEAL_PAGE).await?;
        let Some(last) = page.last() else { return Ok(resealed) };
        after = Some((last.function_id, last.version));
        for sealed in page {
            if sealer.is_current(&sealed.env) {
                continue;
            }
            let (id, version) = (sealed.function_id, sealed.version);
            let again = match sealer.renew(id, &sealed.env) {
                Ok(again) => again,
                // Only what does not open: a key that is named as lost may be there all the same, and
                // is forgotten when this has ended.
                Err(SealError::UnknownKey { .. } | SealError::DoesNotOpen)
                    if lost.sealed(&sealed.env) =>
                {
                    continue;
                }
                Err(source) => {
                    let function = id.to_string();
                    return Err(AdminError::DoesNotOpen { function, version, source });
                }
            };
            if stores.functions.replace_env(id, version, sealed.env, again).await? {
                resealed += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::call::Env;
    use cloudserve_protocol::ids::{FunctionId, SourceHash, UserId};
    use cloudserve_protocol::limits::Limits;
    use cloudserve_store::account::{Quota, User};
    use cloudserve_store::function::{NewVersion, SealedEnv, Source};
    use cloudserve_store::{Timestamp, open_embedded};

    use super::*;

    fn plain() -> Env {
        Env([("TOKEN".to_owned(), "s3cret".to_owned())].into())
    }

    fn sealed(secrets: &Secrets, function: FunctionId) -> SealedEnv {
        Sealer::new(&secrets.master).seal(function, &plain()).unwrap()
    }

    /// The same in the format of before, which does not name its key.
    fn unnamed(named: &SealedEnv) -> SealedEnv {
        SealedEnv([&[1][..], &named.0[9..]].concat())
    }

    async fn deploy(stores: &Stores, user_id: UserId, function_id: FunctionId, env: SealedEnv) {
        let name = format!("f-{function_id}");
        let source =
            Source { stored_version: 1, entry: "index.ts".to_owned(), ..Source::default() };
        let new = NewVersion {
            function_id,
            user_id,
            name: name.parse().unwrap(),
            version: 1,
            of_served: None,
            visibility: None,
            source,
            source_hash: SourceHash::of(b""),
            env,
            limits: Limits::default(),
            built: None,
        };
        stores.functions.accept(new).await.unwrap();
    }

    async fn register(stores: &Stores) -> UserId {
        let id = UserId::new();
        let user = User {
            id,
            full_name: "Ada".to_owned(),
            user_name: "ada".parse().unwrap(),
            email: "ada@example.org".to_owned(),
            password_hash: String::new(),
            quota: Quota::default(),
            created_at: Timestamp::now(),
        };
        stores.accounts.create_user(user).await.unwrap();
        id
    }

    /// Whoever has found a key may still name it as lost; what it has sealed would go with it.
    #[tokio::test]
    async fn what_opens_is_sealed_again_whatever_is_said_to_be_lost() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let nothing = FromEnvironment::of_lost("");
        let secrets = Secrets::load(data.path(), &nothing).unwrap();
        let lost = Secrets::load(elsewhere.path(), &nothing).unwrap();
        let [named, old, of_lost, old_of_lost] = std::array::from_fn(|_| FunctionId::new());
        let envs = [
            (named, sealed(&secrets, named)),
            (old, unnamed(&sealed(&secrets, old))),
            (of_lost, sealed(&lost, of_lost)),
            (old_of_lost, unnamed(&sealed(&lost, old_of_lost))),
        ];
        let ids = [&envs[0].1, &envs[2].1].map(|env| Sealer::key_id(env).unwrap());
        let stores = open_embedded(data.path()).unwrap();
        let ada = register(&stores).await;
        for (id, env) in envs.clone() {
            deploy(&stores, ada, id, env).await;
        }
        drop(stores);
        let said = FromEnvironment::of_lost(&format!("unnamed,{}", ids.join(",")));
        let done = rotate(data.path(), &said).await.unwrap();
        let after = Secrets::load(data.path(), &nothing).unwrap();
        assert!(after.previous.is_empty() && done.starts_with("2 environments"), "{done}");
        let sealer = Sealer::new(&after.master);
        let stores = open_embedded(data.path()).unwrap();
        let there = stores.functions.sealed_envs(None, 10).await.unwrap();
        assert_eq!(there.len(), 4);
        for found in there {
            let id = found.function_id;
            let (_, before) = envs.iter().find(|(of, _)| *of == id).unwrap();
            if id == named || id == old {
                assert!(sealer.open(id, &found.env).unwrap() == plain(), "{id}");
            } else {
                // It may be found.
                assert_eq!(found.env, *before);
            }
        }
        drop(stores);
        let refused = rotate(data.path(), &nothing).await;
        assert!(matches!(refused, Err(AdminError::DoesNotOpen { .. })), "{refused:?}");
        assert_eq!(Secrets::load(data.path(), &nothing).unwrap().previous.len(), 1);
    }
}
