//! `keys`: API keys for programs.

use clap::{Args, Subcommand};
use cloudserve_protocol::ids::ApiKeyId;
use cloudserve_store::Timestamp;
use reqwest::Method;
use reqwest_tls as reqwest;
use serde_json::{Value, json};

use super::api::{items, text, texts};
use super::error::ClientError;
use super::functions::instant;
use super::output::{count, table};
use super::prompt;
use super::session::Common;

const HOUR_MS: i64 = 60 * 60 * 1_000;

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Make a key and print it; it is shown this once.
    #[command(after_help = "\
Examples:
  cloudserve keys create ci --scope deploy --scope read --expires 90d
  cloudserve keys create web --scope invoke --function shop > key.txt")]
    Create(Create),
    /// Show the keys, without what they are.
    List(ListKeys),
    /// Make a key useless, at once.
    Revoke(Revoke),
}

#[derive(Args)]
pub(crate) struct Create {
    /// What you call it.
    name: String,

    /// What it may do; may be given several times [default: everything].
    #[arg(long, value_name = "SCOPE", value_parser = ["invoke", "deploy", "read"])]
    scope: Vec<String>,

    /// A function it is for, by name or id; may be given several times [default: all, those to come
    /// as well].
    #[arg(long, value_name = "FUNCTION")]
    function: Vec<String>,

    /// When it ends: 12h, 90d, or a time like 2030-01-31T00:00:00Z [default: never].
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,

    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct ListKeys {
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct Revoke {
    /// Its name, id, or first characters.
    key: String,

    /// Do not ask.
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    common: Common,
}

impl Keys {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::Create(args) => &args.common,
            Self::List(args) => &args.common,
            Self::Revoke(args) => &args.common,
        }
    }
}

pub(crate) async fn run(keys: Keys) -> Result<(), ClientError> {
    match keys {
        Keys::Create(args) => create(args).await,
        Keys::List(args) => list(args).await,
        Keys::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: Create) -> Result<(), ClientError> {
    let mut body = json!({ "name": args.name });
    if !args.scope.is_empty() {
        body["scopes"] = args.scope.into();
    }
    if !args.function.is_empty() {
        body["functions"] = args.function.into();
    }
    if let Some(when) = &args.expires {
        body["expiresAt"] = expiry(when, Timestamp::now())?.into();
    }
    let key = args.common.api()?.send(Method::POST, "/api/apikeys", Some(&body)).await?;
    let output = args.common.output();
    output.note("This is the only time the key is shown. Keep it where secrets are kept.");
    output.result(&key, |out| writeln!(out, "{}", text(&key, "key")))
}

/// A span from now, or a time as it is; the server checks that.
fn expiry(text: &str, now: Timestamp) -> Result<String, ClientError> {
    let span = [("d", 24 * HOUR_MS), ("h", HOUR_MS)]
        .into_iter()
        .find_map(|(unit, ms)| text.strip_suffix(unit)?.parse::<u32>().ok().map(|n| (n, ms)));
    if let Some((n, unit_ms)) = span {
        return Ok(Timestamp(now.0.saturating_add(i64::from(n) * unit_ms)).to_string());
    }
    Timestamp::parse(text).map(|time| time.to_string()).ok_or_else(|| {
        ClientError::usage(
            format!("{text:?} is no time"),
            "write a span, 12h or 90d, or a time, 2030-01-31T00:00:00Z",
        )
    })
}

async fn list(args: ListKeys) -> Result<(), ClientError> {
    let answer = args.common.api()?.get("/api/apikeys").await?;
    let rows: Vec<Vec<String>> = items(&answer, "apiKeys")
        .iter()
        .map(|key| {
            vec![
                text(key, "name").to_owned(),
                format!("{}…", text(key, "prefix")),
                texts(key, "scopes").join(" "),
                match items(key, "functions").len() {
                    0 => "all".to_owned(),
                    n => count(n, "function"),
                },
                key["expiresAt"].as_str().map_or("never".to_owned(), instant),
                instant(text(key, "createdAt")),
                text(key, "id").to_owned(),
            ]
        })
        .collect();
    args.common.output().result(&answer, |out| {
        if rows.is_empty() {
            return writeln!(out, "No keys yet. `cloudserve keys create NAME` makes one.");
        }
        table(out, &["NAME", "BEGINS", "SCOPES", "FOR", "EXPIRES", "CREATED", "ID"], &rows)
    })
}

async fn revoke(args: Revoke) -> Result<(), ClientError> {
    let api = args.common.api()?;
    let (id, name) = if args.key.parse::<ApiKeyId>().is_ok() {
        (args.key.clone(), args.key.clone())
    } else {
        let answer = api.get("/api/apikeys").await?;
        let key = find(items(&answer, "apiKeys"), &args.key)?;
        (text(key, "id").to_owned(), text(key, "name").to_owned())
    };
    if !args.yes {
        prompt::confirm(&format!("Revoke {name}? What uses it stops working."))?;
    }
    api.send(Method::DELETE, &format!("/api/apikeys/{id}"), None).await?;
    let document = json!({ "revoked": { "id": id, "name": name } });
    args.common.output().result(&document, |out| writeln!(out, "{name} is revoked."))
}

fn find<'a>(keys: &'a [Value], wanted: &str) -> Result<&'a Value, ClientError> {
    // A whole key is longer than the prefix the server keeps.
    let is_wanted = |key: &&Value| {
        let prefix = text(key, "prefix");
        text(key, "name") == wanted || (!prefix.is_empty() && wanted == prefix)
    };
    let mut found = keys.iter().filter(is_wanted);
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => Err(ClientError::usage(
            format!("several keys are called {wanted:?}"),
            "name the one you mean by its id: `cloudserve keys list`",
        )),
        (None, _) => Err(ClientError::Failed {
            code: "api_key_not_found",
            message: format!("there is no key called {wanted:?}"),
            hint: "`cloudserve keys list` shows them".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_spans_or_times() {
        let now = Timestamp(0);
        for (text, time) in [
            ("12h", "1970-01-01T12:00:00.000Z"),
            ("90d", "1970-04-01T00:00:00.000Z"),
            ("2030-01-31T00:00:00Z", "2030-01-31T00:00:00.000Z"),
        ] {
            assert_eq!(expiry(text, now).unwrap(), time);
        }
        for text in ["", "soon", "-1d", "1w", "99999999999d"] {
            assert!(expiry(text, now).unwrap_err().hint().unwrap().contains("90d"), "{text}");
        }
    }

    #[test]
    fn keys_are_found_by_name_or_beginning() {
        let key = |id, name, prefix| json!({ "id": id, "name": name, "prefix": prefix });
        let keys = [key("1", "ci", "cs_a"), key("2", "web", "cs_b"), key("3", "web", "cs_c")];
        assert_eq!(find(&keys, "ci").unwrap()["id"], "1");
        assert_eq!(find(&keys, "cs_c").unwrap()["id"], "3");
        assert!(find(&keys, "web").unwrap_err().to_string().contains("several"));
        assert!(find(&keys, "no").unwrap_err().to_string().contains("no key"));
    }
}
