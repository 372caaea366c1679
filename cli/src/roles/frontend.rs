//! `cloudserve frontend`: the dashboard's files, and nothing else. It has no secret and no storage,
//! and passes nothing on: the API is beside it, under the same host.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{begin_to_drain, give_notice};
use crate::config::Config;
use crate::ops::Ops;
use crate::parts;
use crate::process::{ServeError, Signals, announce, end, finish, listen, serve_public};
use crate::status;

pub(super) async fn run(config: Config) -> Result<ExitCode, ServeError> {
    let mut signals = Signals::new()?;
    let (listener, address) = listen(config.frontend.listen, "CLOUDSERVE_FRONTEND_LISTEN").await?;
    let ops = Ops::listen(&config).await?;
    let (status, leaving) = status::of_frontend();
    let router = status.merge(cloudserve_api::dashboard());
    announce(&[("frontend", address)], &ops);

    ops.serve(&config, router.clone());
    let stop = CancellationToken::new();
    let connections = parts::connections(&config);
    let drain_ms = config.drain_timeout_ms;
    let mut serving =
        tokio::spawn(serve_public(listener, router, connections, drain_ms, stop.clone()));
    signals.first(&mut serving, "frontend").await?;
    leaving.cancel();
    give_notice(&config, &mut signals).await;
    let deadline = begin_to_drain(&config);
    let drain = async {
        stop.cancel();
        finish(serving, deadline).await;
    };
    end(&mut signals, drain).await
}
