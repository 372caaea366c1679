//! `cloudserve sandbox`: runs functions and builds dependency sets, for roles that show the internal
//! token. It has object storage and never a database.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_remote::{Offered, Server, ServerOptions};
use cloudserve_store::{DataDirLock, open_production_objects};
use tokio_util::sync::CancellationToken;

use super::begin_to_drain;
use crate::config::Config;
use crate::ops::Ops;
use crate::process::{ServeError, Signals, announce, end, finish, listen, serve_roles};
use crate::secrets::FromEnvironment;
use crate::storage::s3_options;
use crate::{parts, programs, status};

/// Time in which gateways are told what calls have used that were cut off.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

pub(super) async fn run(config: Config, given: &FromEnvironment) -> Result<ExitCode, ServeError> {
    let s3 = s3_options(&config, given)?;
    let (token, previous) = (given.internal_token()?, given.previous_internal_token()?);
    let worker = programs::worker(&config.programs)?;
    let npm = programs::npm(&config.programs)?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let data_dir = lock.data_dir();
    let mut signals = Signals::new()?;
    let (listener, address) = listen(config.sandbox.listen, "CLOUDSERVE_SANDBOX_LISTEN").await?;
    let ops = Ops::listen(&config).await?;
    let artifacts = open_production_objects(&s3).await?;
    let cache = parts::cache(&config, data_dir, artifacts.clone())?;
    let sandbox = parts::sandbox(&config, &worker, data_dir, cache)?;
    let builder = parts::builder(&config, &npm, data_dir, artifacts)?;
    let offered = Offered {
        invoker: Arc::new(sandbox.clone()),
        loader: Arc::new(sandbox.clone()),
        builder: Arc::new(builder),
        is_ready: {
            let sandbox = sandbox.clone();
            Arc::new(move || sandbox.readiness().is_ready)
        },
    };
    let server = Server::new(offered, token, previous, ServerOptions::default());
    let router = status::of_sandbox(sandbox.clone()).merge(server.router());
    announce(&[("sandbox", address)], &ops);

    ops.serve(&config, router.clone());
    let stop = CancellationToken::new();
    let mut serving = tokio::spawn(serve_roles(listener, router, stop.clone()));
    signals.first(&mut serving, "sandbox").await?;
    // What is refused from now on was not begun, and goes to another sandbox: no notice is needed.
    server.drain();
    let deadline = begin_to_drain(&config);
    let drain = async {
        sandbox.drain(deadline).await;
        // Builds go on until here.
        stop.cancel();
        finish(serving, deadline.max(Instant::now() + LAST_ANSWERS)).await;
    };
    end(&mut signals, drain).await
}
