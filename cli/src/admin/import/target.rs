//! What the target holds, in the order of the archive.

use cloudserve_protocol::artifact::ArtifactError;
use cloudserve_store::transfer::{Key, Kind, Record, StoredObject, Transfer};
use futures::stream::{BoxStream, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use super::ImportError;
use super::check::Expected;
use crate::admin::archive::Tally;
use crate::admin::progress::Progress;

/// All records, kind after kind.
pub(super) struct Records<'a> {
    runtime: &'a Runtime,
    transfer: &'a Transfer,
    /// Kinds that are not entered yet, the next one first.
    kinds: std::array::IntoIter<Kind, { Kind::ALL.len() }>,
    kind: Option<Kind>,
    page: std::iter::Peekable<std::vec::IntoIter<Record>>,
    after: Option<Key>,
    ended: bool,
}

impl<'a> Records<'a> {
    pub(super) fn of(runtime: &'a Runtime, transfer: &'a Transfer) -> Self {
        Self {
            runtime,
            transfer,
            kinds: Kind::ALL.into_iter(),
            kind: None,
            page: Vec::new().into_iter().peekable(),
            after: None,
            ended: true,
        }
    }

    /// The next record of the kind that was entered.
    pub(super) fn peek(&mut self) -> Result<Option<&Record>, ImportError> {
        if self.page.peek().is_none()
            && !self.ended
            && let Some(kind) = self.kind
        {
            let read = self.transfer.records.read(kind, self.after.as_ref());
            let page = self.runtime.block_on(read)?;
            self.ended = page.is_empty();
            self.after = page.last().map(Record::key);
            self.page = page.into_iter().peekable();
        }
        Ok(self.page.peek())
    }

    /// Passes over the one that was peeked at.
    pub(super) fn pass(&mut self) {
        self.page.next();
    }

    /// Goes on to a kind. What is left before it is given back.
    pub(super) fn enter(&mut self, kind: Kind) -> Result<Option<Record>, ImportError> {
        while self.kind < Some(kind) {
            if let Some(left) = self.peek()? {
                return Ok(Some(left.clone()));
            }
            let Some(next) = self.kinds.next() else { break };
            (self.kind, self.after, self.ended) = (Some(next), None, false);
        }
        Ok(None)
    }

    /// The first of what is left, of any kind.
    pub(super) fn rest(&mut self) -> Result<Option<Record>, ImportError> {
        for kind in Kind::ALL {
            if let Some(left) = self.enter(kind)? {
                return Ok(Some(left));
            }
        }
        Ok(self.peek()?.cloned())
    }
}

/// All objects.
pub(super) struct Objects<'a> {
    runtime: &'a Runtime,
    list: BoxStream<'static, Result<StoredObject, ArtifactError>>,
    next: Option<StoredObject>,
    ended: bool,
}

impl<'a> Objects<'a> {
    pub(super) fn of(runtime: &'a Runtime, transfer: &Transfer) -> Self {
        Self { runtime, list: transfer.objects.list(), next: None, ended: false }
    }

    /// The next one.
    pub(super) fn peek(&mut self) -> Result<Option<&StoredObject>, ImportError> {
        if self.next.is_none() && !self.ended {
            self.next = self.runtime.block_on(self.list.try_next())?;
            self.ended = self.next.is_none();
        }
        Ok(self.next.as_ref())
    }

    /// Passes over the one that was peeked at.
    pub(super) fn pass(&mut self) {
        self.next = None;
    }
}

/// Of an object of the target.
pub(super) fn sha256_of(
    runtime: &Runtime,
    transfer: &Transfer,
    key: &str,
) -> Result<[u8; 32], ImportError> {
    runtime.block_on(async {
        let mut pieces = transfer.objects.open(key).await?;
        let mut hash = Sha256::new();
        while let Some(piece) = pieces.try_next().await? {
            hash.update(&piece);
        }
        Ok(hash.finalize().into())
    })
}

/// What a list says of an object.
pub(super) fn object_line(object: &StoredObject) -> String {
    format!("{} {}", object.bytes, object.key)
}

/// Walks the target, which must hold what is expected. How many records are not there because
/// they are older than what the target keeps.
pub(super) fn hold(
    runtime: &Runtime,
    transfer: &Transfer,
    expected: &Expected,
) -> Result<u64, ImportError> {
    let mut progress = Progress::begin("checking the target");
    let mut expired = 0;
    let mut records = Records::of(runtime, transfer);
    for (&kind, wanted) in &expected.records {
        let mut held = Tally::default();
        // What is before it was passed over.
        records.enter(kind)?;
        while let Some(record) = records.peek()? {
            held.line(&record.to_line()?);
            progress.at(&kind, held.count());
            records.pass();
        }
        if held.part() == wanted.part() {
            continue;
        }
        if !kind.expires() || held.count() >= wanted.count() {
            return Err(ImportError::NotEqual { what: kind.to_string() });
        }
        expired += wanted.count() - held.count();
    }
    let (mut held, mut objects) = (Tally::default(), Objects::of(runtime, transfer));
    while let Some(object) = objects.peek()? {
        held.line(&object_line(object));
        progress.at(&"objects", held.count());
        objects.pass();
    }
    if held.part() != expected.objects.part() {
        return Err(ImportError::NotEqual { what: "objects".to_owned() });
    }
    Ok(expired)
}
