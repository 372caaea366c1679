//! Request bodies: received whole, bounded in size and time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use super::problem::Problem;
use crate::app::refusal::Refusal;

/// A client that sends all before it reads sees the refusal only if what it sends is taken.
const MAX_DISCARDED_BYTES: usize = 128 * 1024 * 1024;
const MAX_DISCARDING: Duration = Duration::from_secs(2);

/// Reads a body of at most `max_bytes` that arrives within `patience`.
pub(super) async fn read(
    mut body: Body,
    max_bytes: u64,
    patience: Duration,
) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(patience, collect(&mut body, max_bytes)).await;
    let read = read.unwrap_or_else(|_| Err(Problem::body_too_slow()));
    if read.is_err() {
        // Whether it could all be taken makes no difference to the answer.
        let _ = tokio::time::timeout(MAX_DISCARDING, discard(&mut body)).await;
    }
    read
}

async fn collect(body: &mut Body, max_bytes: u64) -> Result<Bytes, Problem> {
    let too_large = || Problem::from(Refusal::TooLarge { what: "the body", max_bytes });
    let declared = axum::body::HttpBody::size_hint(body).lower();
    if declared > max_bytes {
        return Err(too_large());
    }
    let mut all = Vec::with_capacity(usize::try_from(declared).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Problem::body_cut_off())?.into_data() else { continue };
        if (all.len() + data.len()) as u64 > max_bytes {
            return Err(too_large());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}

async fn discard(body: &mut Body) {
    let mut left = MAX_DISCARDED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// The content type without parameters, lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}
