//! `env`: names and values a function finds in `process.env`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use reqwest_tls as reqwest;
use serde_json::{Map, Value, json};

use super::api::{text, texts};
use super::deploy;
use super::env_file::read_env_file;
use super::environment;
use super::error::ClientError;
use super::output::{Output, count};
use super::project::named_or_current;
use super::prompt;
use super::session::Common;

#[derive(Subcommand)]
pub(crate) enum Env {
    /// Set variables; makes a new version without a build.
    #[command(after_help = "\
A NAME alone is a secret: its value is asked for, or read from standard input. NAME=VALUE is for
what is no secret: arguments are seen by every user of this machine and kept by shells.

Examples:
  cloudserve env set DATABASE_URL                     # asks, shows nothing
  pass db/url | cloudserve env set DATABASE_URL
  cloudserve env set REGION=eu LEVEL=debug --function hello
  cloudserve env set --from-env DATABASE_URL          # the variable of this shell or CI job
  cloudserve env set --file .env.production")]
    Set(Set),
    /// Remove variables; makes a new version without a build.
    Unset(Unset),
    /// Show the names; values are never told.
    List(ListNames),
}

#[derive(Args)]
pub(crate) struct Set {
    /// NAME, whose value is asked for, or NAME=VALUE.
    #[arg(required_unless_present_any = ["file", "from_env"])]
    variables: Vec<String>,

    /// Take the value from this variable of the environment.
    #[arg(long, value_name = "NAME")]
    from_env: Vec<String>,

    /// Take all NAME=value lines of a file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
pub(crate) struct Unset {
    /// Their names.
    #[arg(required = true)]
    names: Vec<String>,

    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
pub(crate) struct ListNames {
    #[command(flatten)]
    of: Of,
}

/// Which function, and how to talk to it.
#[derive(Args)]
struct Of {
    /// Name or id [default: the function of this folder].
    #[arg(long, short, value_name = "FUNCTION")]
    function: Option<String>,

    #[command(flatten)]
    common: Common,
}

impl Env {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::Set(args) => &args.of.common,
            Self::Unset(args) => &args.of.common,
            Self::List(args) => &args.of.common,
        }
    }
}

pub(crate) async fn run(env: Env) -> Result<(), ClientError> {
    match env {
        Env::Set(args) => {
            let values = values(&args.variables, &args.from_env, args.file.as_deref())?;
            let n = count(values.len(), "variable");
            change(args.of, &json!({ "set": values }), &format!("{n} set")).await
        }
        Env::Unset(args) => {
            let n = count(args.names.len(), "variable");
            change(args.of, &json!({ "unset": args.names }), &format!("{n} removed")).await
        }
        Env::List(args) => list(args.of).await,
    }
}

fn values(
    variables: &[String],
    from_env: &[String],
    file: Option<&Path>,
) -> Result<Map<String, Value>, ClientError> {
    let mut values = file.map(read_env_file).transpose()?.unwrap_or_default();
    for name in from_env {
        let value = environment::value(name).ok_or_else(|| {
            ClientError::usage(
                format!("the environment has no variable {name}"),
                "export it first, or give its name without --from-env to be asked for the value",
            )
        })?;
        values.insert(name.clone(), value.into());
    }
    let secrets = variables.iter().filter(|variable| !variable.contains('=')).count();
    if secrets > 1 && !prompt::is_interactive() {
        return Err(ClientError::usage(
            "standard input holds one value, and several are needed",
            "set them one by one, or with --file or --from-env",
        ));
    }
    for variable in variables {
        match variable.split_once('=') {
            Some((name, value)) => values.insert(name.to_owned(), value.into()),
            None if prompt::is_interactive() => {
                values.insert(variable.clone(), prompt::value_of(variable)?.into())
            }
            None => values.insert(variable.clone(), prompt::stdin_text("the value")?.into()),
        };
    }
    Ok(values)
}

async fn change(of: Of, body: &Value, done: &str) -> Result<(), ClientError> {
    let api = of.common.api()?;
    let name = named_or_current(of.function.as_deref())?;
    let id = api.id_of(&name).await?;
    let answer = api.send(Method::PATCH, &format!("/api/function/{id}/env"), Some(body)).await?;
    is_seen(&name, &answer)?;
    of.common.output().result(&answer, |out| {
        let version = answer["version"].as_u64().map(|version| format!(": {name} v{version}"));
        writeln!(out, "{done}{}", version.unwrap_or_default())
    })
}

/// An error if no call sees the change.
fn is_seen(name: &str, answer: &Value) -> Result<(), ClientError> {
    match text(answer, "status") {
        "failed" => Err(deploy::failed(name, answer)),
        "superseded" => {
            let version = answer["version"].as_u64().unwrap_or(0);
            let message = format!(
                "v{version} of {name} has the change but is not served: a newer version or a \
                 rollback came first"
            );
            Err(ClientError::Superseded { function: name.to_owned(), version, message })
        }
        _ => Ok(()),
    }
}

async fn list(of: Of) -> Result<(), ClientError> {
    let api = of.common.api()?;
    let name = named_or_current(of.function.as_deref())?;
    let id = api.id_of(&name).await?;
    let answer = api.get(&format!("/api/function/{id}/env")).await?;
    show_names(of.common.output(), &name, &answer)
}

fn show_names(output: Output, function: &str, answer: &Value) -> Result<(), ClientError> {
    output.result(answer, |out| {
        let names = texts(answer, "names");
        if names.is_empty() {
            return writeln!(
                out,
                "{function} has no variables. `cloudserve env set NAME` sets one."
            );
        }
        names.iter().try_for_each(|name| writeln!(out, "{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_no_call_sees_is_an_error() {
        for (status, code) in [
            ("active", None),
            ("pending", None),
            ("failed", Some("startup_error")),
            ("superseded", Some("superseded")),
        ] {
            let answer = json!({
                "names": ["A"],
                "version": 3,
                "status": status,
                "deployError": { "code": "startup_error", "message": "no" },
                "activeVersion": 1,
            });
            let error = is_seen("hello", &answer).err().map(|error| error.to_json());
            let told = error.as_ref().map(|error| error["error"]["code"].as_str().unwrap());
            assert_eq!(told, code, "{status}");
            let version = error.as_ref().map(|error| error["error"]["version"].as_u64().unwrap());
            assert_eq!(version, code.map(|_| 3), "{status}");
            let message = error.map(|error| error["error"]["message"].to_string());
            assert!(message.is_none_or(|text| text.contains("hello")), "{status}");
        }
    }
}
