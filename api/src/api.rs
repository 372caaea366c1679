//! The control plane as one value: a router for requests and a task for the deploy queue.

use std::future::Future;
use std::sync::Arc;

use cloudserve_artifacts::Cache;
use cloudserve_identity::{Authenticator, Sealer};
use cloudserve_protocol::build::DependencyBuilder;
use cloudserve_protocol::call::VersionLoader;
use cloudserve_store::Stores;

use crate::app::App;
use crate::build::deployer::Deployer;
use crate::http;
use crate::options::ApiOptions;

/// The control plane.
#[derive(Clone)]
pub struct Api {
    app: Arc<App>,
    deployer: Arc<Deployer>,
}

impl Api {
    /// Puts it together. Nothing runs yet.
    pub fn new(
        options: ApiOptions,
        stores: Stores,
        authenticator: Authenticator,
        sealer: Sealer,
        builder: Arc<dyn DependencyBuilder>,
        loader: Arc<dyn VersionLoader>,
        cache: Arc<Cache>,
    ) -> Self {
        let options = Arc::new(options);
        let deployer = Deployer::new(
            options.clone(),
            stores.clone(),
            sealer.clone(),
            builder,
            loader.clone(),
            cache,
        );
        let app = App::new(options, stores, authenticator, sealer, loader);
        Self { app: Arc::new(app), deployer: Arc::new(deployer) }
    }

    /// All routes, `/healthz` among them. Login limits by address work when the server provides
    /// `ConnectInfo<SocketAddr>`, or with [`ApiOptions::trust_forwarded`] a proxy does.
    pub fn router(&self) -> axum::Router {
        http::router(self.app.clone())
    }

    /// Works on the deploy queue until `shutdown` resolves, then finishes what has begun for at
    /// most [`ApiOptions::drain_ms`], and ends the streams of logs that are followed. Run it once per
    /// process.
    pub fn run_deployer(
        &self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let app = self.app.clone();
        let shutdown = async move {
            shutdown.await;
            app.end_following();
        };
        self.deployer.clone().run(shutdown)
    }
}
