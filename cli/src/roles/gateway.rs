//! `cloudserve gateway`: calls, by way of sandboxes that are other processes. It has no object
//! storage, and keeps nothing on its disk.

use std::process::ExitCode;
use std::sync::Arc;

use cloudserve_store::open_production_records;
use tokio_util::sync::CancellationToken;

use super::{Shown, begin_to_drain, give_notice};
use crate::config::Config;
use crate::ops::Ops;
use crate::parts;
use crate::process::{ServeError, Signals, announce, end, finish, listen};
use crate::secrets::{FromEnvironment, Secrets};
use crate::storage::mongo_options;

pub(super) async fn run(config: Config, given: &FromEnvironment) -> Result<ExitCode, ServeError> {
    let mongo = mongo_options(&config, given)?;
    let secrets = Secrets::given(given)?;
    let token = given.internal_token()?;
    let mut signals = Signals::new()?;
    let (listener, address) = listen(config.gateway.listen, "CLOUDSERVE_GATEWAY_LISTEN").await?;
    let ops = Ops::listen(&config).await?;
    let sandboxes = parts::sandboxes(&config, token)?;
    let stores = open_production_records(&mongo).await?;
    secrets.check(&stores, given).await?;
    let identity = parts::identity(&config, &secrets, &stores);
    let shown = Shown::new(&sandboxes);
    let gateway = parts::gateway(&config, stores, identity, Arc::new(sandboxes), Some(shown))?;
    announce(&[("gateway", address)], &ops);

    ops.serve(&config, gateway.router());
    let stop = CancellationToken::new();
    let mut serving = {
        let (gateway, stop) = (gateway.clone(), stop.clone());
        tokio::spawn(async move { gateway.serve(listener, stop.cancelled_owned()).await })
    };
    signals.first(&mut serving, "gateway").await?;
    gateway.stop_being_ready();
    give_notice(&config, &mut signals).await;
    let deadline = begin_to_drain(&config);
    let drain = async {
        stop.cancel();
        finish(serving, deadline).await;
        gateway.drain().await;
    };
    end(&mut signals, drain).await
}
