//! The dashboard: files that `tools/setup` built and this crate carries.
//!
//! Every path that is not the API's and names no file is a page of the application, which has a
//! router of its own. Files below `assets/` have their hash in their name and never change; all
//! others are asked for again each time, and not sent again if they are the same.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rust_embed::{Embed, EmbeddedFile};

use super::problem::Problem;

/// The folder is in the repository, with nothing in it but a `.gitignore` until a build fills it:
/// the program compiles without Node.
#[derive(Embed)]
#[folder = "../dashboard/dist"]
struct Files;

/// Where the build puts what is served.
const SERVED: &str = "www/";
const PAGE: &str = "index.html";
const HASHED: &str = "assets/";

/// Paths that are answered by routes, or by other roles' routes, and never by a page.
const NOT_PAGES: [&str; 5] = ["/api", "/run", "/healthz", "/readyz", "/metrics"];

/// Nothing but our own files: no inline script or style, no frame, no other host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const NOT_BUILT: &str = "The dashboard is not part of this program: it was compiled before the \
     dashboard was built. `make build` does both. The API and the command line work without it.\n";

/// The dashboard alone, for a process that is nothing else. The API has to be under the same host.
pub fn dashboard() -> axum::Router {
    axum::Router::new().fallback(serve)
}

/// Whatever no route answers.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if !matches!(method, Method::GET | Method::HEAD) || !may_be_page(path) {
        return Problem::route_not_found().into_response();
    }
    let name = path.trim_start_matches('/');
    let is_file = name.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let name = if is_file { name } else { PAGE };
    let mut response = match (find(name, &headers), is_file) {
        (Some((file, is_gzip)), _) => answer(name, file, is_gzip, &headers),
        (None, true) => Problem::route_not_found().into_response(),
        (None, false) => (StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT).into_response(),
    };
    protect(response.headers_mut());
    response
}

fn may_be_page(path: &str) -> bool {
    !NOT_PAGES.iter().any(|reserved| {
        path.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// A file and whether it is compressed.
fn find(name: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, bool)> {
    let takes_gzip = headers.get_all(ACCEPT_ENCODING).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').map(str::trim).any(|coding| {
                let (coding, weight) = coding.split_once(';').unwrap_or((coding, ""));
                coding.trim().eq_ignore_ascii_case("gzip") && weight.trim() != "q=0"
            })
        })
    });
    let compressed = || Files::get(&format!("{SERVED}{name}.gz")).map(|file| (file, true));
    takes_gzip
        .then(compressed)
        .flatten()
        .or_else(|| Files::get(&format!("{SERVED}{name}")).map(|file| (file, false)))
}

fn answer(name: &str, file: EmbeddedFile, is_gzip: bool, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|tags| tags.split(',').any(|known| known.trim() == tag))
    });
    let body = match file.data {
        _ if is_known => Bytes::new(),
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let caching = if name.starts_with(HASHED) {
        HeaderValue::from_static("public, max-age=31536000, immutable")
    } else {
        HeaderValue::from_static("no-cache")
    };
    let mut response = Response::new(Body::from(body));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    headers.insert(CACHE_CONTROL, caching);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes"));
    if is_gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The kinds of file that the build makes.
fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn protect(headers: &mut HeaderMap) {
    const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
    const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER, "same-origin"),
        (RESOURCE, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_never_shadow_what_machines_ask_for() {
        for path in ["/", "/keys", "/functions/1/logs", "/apikeys", "/running", "/metricsx"] {
            assert!(may_be_page(path), "{path}");
        }
        for path in ["/api", "/api/nope", "/healthz", "/readyz", "/metrics", "/run/a/b"] {
            assert!(!may_be_page(path), "{path}");
        }
    }

    #[tokio::test]
    async fn an_unknown_file_is_no_page() {
        for path in ["/assets/none.js", "/favicon.ico", "/www/../www/x.html", "/.gitignore"] {
            let answer = serve(Method::GET, path.parse().unwrap(), HeaderMap::new()).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
