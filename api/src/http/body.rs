//! Request bodies: received whole, bounded in size and time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use super::problem::Problem;
use crate::app::refusal::Refusal;

/// Reads a body of at most `max_bytes` that arrives within `patience`.
pub(super) async fn read(body: Body, max_bytes: u64, patience: Duration) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(patience, collect(body, max_bytes)).await;
    read.unwrap_or_else(|_| Err(Problem::body_too_slow()))
}

async fn collect(mut body: Body, max_bytes: u64) -> Result<Bytes, Problem> {
    let too_large = || Problem::from(Refusal::TooLarge { what: "the body", max_bytes });
    let declared = body.size_hint().lower();
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

/// The content type without parameters, lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}
