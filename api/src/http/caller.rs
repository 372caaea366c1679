//! Who asks. Decided before the body is read: who may not deploy need not send 30 MB to learn it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use cloudserve_identity::{AuthError, Credential, Presented, Principal, client_address};

use super::problem::Problem;
use crate::app::refusal::Refusal;
use crate::app::{App, access};

/// Somebody with a valid credential.
pub(crate) struct Caller(pub(crate) Arc<Principal>);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let from = || address_of(parts, app);
        match app.authenticator.authenticate(&parts.headers, from).await {
            Ok(Some((_, Presented::Cookie)))
                if may_be_cross_site(&parts.method, &parts.uri, &parts.headers) =>
            {
                Err(Problem::cross_site())
            }
            Ok(Some((principal, _))) => Ok(Self(principal)),
            Ok(None) | Err(AuthError::Invalid) => Err(Problem::unauthorized()),
            Err(AuthError::TooOften(unknown)) => Err(Refusal::TooManyUnknown(unknown).into()),
            Err(error @ AuthError::Unavailable(_)) => {
                Err(Refusal::Unavailable(error.into()).into())
            }
        }
    }
}

/// What this request shows, for what is done with it later or elsewhere.
pub(super) fn shown(app: &App, headers: &HeaderMap) -> Result<Credential, Problem> {
    let shown = Credential::of(headers, app.authenticator.tokens());
    shown.map(|(credential, _)| credential).ok_or_else(Problem::unauthorized)
}

/// Somebody who may deploy.
pub(crate) struct Deploying(pub(crate) Arc<Principal>);

impl FromRequestParts<Arc<App>> for Deploying {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        access::may_deploy(&principal)?;
        Ok(Self(principal))
    }
}

/// Somebody who has logged in.
pub(crate) struct LoggedIn(pub(crate) Arc<Principal>);

impl FromRequestParts<Arc<App>> for LoggedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        access::session(&principal)?;
        Ok(Self(principal))
    }
}

/// Where a request comes from, if the server says so.
pub(crate) struct Address(pub(crate) Option<IpAddr>);

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(address_of(parts, app)))
    }
}

fn address_of(parts: &Parts, app: &App) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(peer)| peer.ip());
    client_address(peer, &parts.headers, app.options.trust_forwarded)
}

/// Whether a request with the session cookie may be another site's doing.
///
/// Browsers say where a request comes from in `Sec-Fetch-Site`, older ones in `Origin`. A request
/// with neither comes from no browser, so no browser added the cookie to it.
fn may_be_cross_site(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => headers.get(HOST).map(HeaderValue::as_bytes),
    };
    let origin = origin.as_bytes();
    let claimed = [&b"http://"[..], b"https://"].iter().find_map(|s| origin.strip_prefix(*s));
    !matches!((claimed, host), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}
