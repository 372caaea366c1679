//! `cloudserve admin rotate-master-key`: everything sealed again under a new key.

use std::path::Path;

use cloudserve_identity::Sealer;
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
            if sealer.is_current(&sealed.env) || lost.sealed(&sealed.env) {
                continue;
            }
            let (id, version) = (sealed.function_id, sealed.version);
            let again = sealer.renew(id, &sealed.env).map_err(|source| {
                AdminError::DoesNotOpen { function: id.to_string(), version, source }
            })?;
            if stores.functions.replace_env(id, version, sealed.env, again).await? {
                resealed += 1;
            }
        }
    }
}
