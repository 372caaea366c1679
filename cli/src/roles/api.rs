//! `cloudserve api`: the control plane, by way of sandboxes that are other processes.

use std::process::ExitCode;
use std::sync::Arc;

use cloudserve_store::{DataDirLock, open_production};
use tokio_util::sync::CancellationToken;

use super::{begin_to_drain, give_notice};
use crate::config::Config;
use crate::ops::Ops;
use crate::parts::{self, ApiParts};
use crate::process::{ServeError, Signals, announce, end, finish, listen, serve_public};
use crate::secrets::{FromEnvironment, Secrets};
use crate::storage::{mongo_options, s3_options};
use crate::{programs, status};

pub(super) async fn run(config: Config, given: &FromEnvironment) -> Result<ExitCode, ServeError> {
    let mongo = mongo_options(&config, given)?;
    let s3 = s3_options(&config, given)?;
    let secrets = Secrets::given(given)?;
    let token = given.internal_token()?;
    let public_url = config.gateway.public_url.clone();
    let invoke_url = invoke_url(config.api.invoke_url.as_deref(), public_url.as_deref())?;
    let esbuild = programs::esbuild(&config.programs)?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let data_dir = lock.data_dir();
    let mut signals = Signals::new()?;
    let (listener, address) = listen(config.api.listen, "CLOUDSERVE_API_LISTEN").await?;
    let ops = Ops::listen(&config).await?;
    let sandboxes = parts::sandboxes(&config, token)?;
    let stores = open_production(&mongo, &s3).await?;
    secrets.check(&stores, given).await?;
    let identity = parts::identity(&config, &secrets, &stores);
    let cache = parts::cache(&config, data_dir, stores.artifacts.clone())?;
    let accounts = stores.accounts.clone();
    let api = parts::api(
        &config,
        ApiParts {
            esbuild: &esbuild,
            data_dir,
            stores,
            identity,
            builder: Arc::new(sandboxes.clone()),
            loader: Arc::new(sandboxes.clone()),
            cache,
            invoke_url,
            gateway_url: public_url,
        },
    );
    let (status, leaving) = status::of_api(accounts, sandboxes);
    announce(&[("api", address)], &ops);

    let stop = CancellationToken::new();
    let mut deployer = tokio::spawn(api.run_deployer(stop.clone().cancelled_owned()));
    let mut serving = {
        let (router, connections) = (status.merge(api.router()), parts::connections(&config));
        ops.serve(&config, router.clone());
        let drain_ms = config.drain_timeout_ms;
        tokio::spawn(serve_public(listener, router, connections, drain_ms, stop.clone()))
    };
    tokio::select! {
        () = signals.next() => {}
        _ = &mut deployer => return Err(ServeError::Ended { part: "deployer" }),
        _ = &mut serving => return Err(ServeError::Ended { part: "API" }),
    }
    leaving.cancel();
    give_notice(&config, &mut signals).await;
    let deadline = begin_to_drain(&config);
    let drain = async {
        stop.cancel();
        finish(deployer, deadline).await;
        finish(serving, deadline).await;
    };
    end(&mut signals, drain).await
}

/// Where this process reaches a gateway. It is a way within the installation, on which the API speaks
/// no TLS: with an address for callers that needs it, none is known.
fn invoke_url(given: Option<&str>, public_url: Option<&str>) -> Result<Option<String>, ServeError> {
    let has_tls = |url: &str| {
        url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
    };
    match given {
        Some(url) if has_tls(url) => Err(ServeError::InvokeUrl),
        Some(url) => Ok(Some(url.to_owned())),
        None => Ok(public_url.filter(|url| !has_tls(url)).map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_from_here_go_where_no_tls_is_needed() {
        let (plain, tls) = (Some("http://gateway:8081"), Some("HTTPS://functions.example.net"));
        for (given, public_url, expected) in
            [(plain, tls, plain), (None, plain, plain), (None, tls, None), (None, None, None)]
        {
            let chosen = invoke_url(given, public_url).unwrap();
            assert_eq!(chosen.as_deref(), expected, "{given:?} {public_url:?}");
        }
        let refused = invoke_url(tls, plain).unwrap_err().to_string();
        assert!(refused.contains("CLOUDSERVE_INVOKE_URL"), "{refused}");
    }
}
