//! Keys as text, held to one shape whatever the back end is.

use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey};

/// Not a plain relative path.
#[derive(Debug, thiserror::Error)]
#[error("the key would leave the object directory")]
pub(crate) struct KeyEscapes;

/// The text of a key. The API has checked the names in it; this holds whatever it did.
pub(crate) fn text_of(operation: &'static str, key: &ArtifactKey) -> Result<String, ArtifactError> {
    let text = key.to_string();
    check(&text).map_err(failed(operation, &text))?;
    Ok(text)
}

/// Whether this is a relative path without detours: what it names is the same everywhere.
pub(crate) fn check(key: &str) -> Result<(), KeyEscapes> {
    let is_plain = !key.starts_with('.')
        && key
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    if is_plain { Ok(()) } else { Err(KeyEscapes) }
}

/// An error of the back end as one of the store.
pub(crate) fn failed<E>(operation: &'static str, key: &str) -> impl FnOnce(E) -> ArtifactError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| ArtifactError::Backend { operation, key: key.to_owned(), source: source.into() }
}
