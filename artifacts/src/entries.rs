//! The entries of archives nobody vouches for, with the names they have.
//!
//! A name that is too long for the header of an entry stands in an entry before it, as may other
//! things. The `tar` crate reads those into memory as they are, and of a sparse file a list of its
//! pieces: a small archive can hold gigabytes of them. So it is asked for all entries as they stand,
//! and those that only describe the next one are read here, within a bound.

use std::borrow::Cow;
use std::io::{self, Read};

use tar::{Archive, Entry, EntryType, PaxExtensions};

/// What describes an entry: its name, twice as long as a path can be, times and attributes.
const MAX_DESCRIPTION_BYTES: u64 = 64 * 1024;

/// An entry and the names it has.
pub struct Named<'a, R: Read> {
    /// The entry. What it says of its own names may be cut off.
    pub entry: Entry<'a, R>,
    /// Its path, as it was written.
    pub path: Vec<u8>,
    /// What it links to, as it was written, if it is a link.
    pub link: Option<Vec<u8>>,
}

/// Entries with their names; an iterator.
pub struct Entries<'a, R: Read> {
    raw: tar::Entries<'a, R>,
}

/// What was said of the entry to come.
#[derive(Default)]
struct Description {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Option<Vec<u8>>,
}

/// The entries of an archive of which nothing was read yet.
pub fn entries<R: Read>(archive: &mut Archive<R>) -> io::Result<Entries<'_, R>> {
    Ok(Entries { raw: archive.entries()?.raw(true) })
}

impl<'a, R: Read> Iterator for Entries<'a, R> {
    type Item = io::Result<Named<'a, R>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.described().transpose()
    }
}

impl<'a, R: Read> Entries<'a, R> {
    fn described(&mut self) -> io::Result<Option<Named<'a, R>>> {
        let mut description = Description::default();
        for entry in self.raw.by_ref() {
            let mut entry = entry?;
            let kind = entry.header().entry_type();
            let of = match kind {
                EntryType::GNULongName => &mut description.long_path,
                EntryType::GNULongLink => &mut description.long_link,
                EntryType::XHeader => &mut description.records,
                // Of the whole archive, which is told of nowhere here.
                EntryType::XGlobalHeader => {
                    check_size(&entry)?;
                    continue;
                }
                _ => return description.complete(entry).map(Some),
            };
            check_size(&entry)?;
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            if of.replace(text).is_some() {
                return Err(invalid("an entry is described twice"));
            }
        }
        if description.is_empty() {
            Ok(None)
        } else {
            Err(invalid("an entry is described and missing"))
        }
    }
}

impl Description {
    fn is_empty(&self) -> bool {
        self.long_path.is_none() && self.long_link.is_none() && self.records.is_none()
    }

    /// The entry that was described.
    fn complete<R: Read>(self, entry: Entry<'_, R>) -> io::Result<Named<'_, R>> {
        let record = |key: &str| {
            let records = PaxExtensions::new(self.records.as_deref().unwrap_or_default());
            let found = records.filter_map(Result::ok).find(|record| record.key() == Ok(key));
            found.map(|record| record.value_bytes().to_vec())
        };
        // Where the next header is depends on it; readers that disagree see different archives.
        let size = record("size").map(|size| String::from_utf8_lossy(&size).parse::<u64>());
        if size.is_some_and(|size| size != Ok(entry.size())) {
            return Err(invalid("the size of an entry is not what is said of it"));
        }
        let path = match self.long_path {
            Some(path) => without_end(path),
            None => record("path").unwrap_or_else(|| entry.path_bytes().into_owned()),
        };
        let linkpath =
            || record("linkpath").or_else(|| entry.link_name_bytes().map(Cow::into_owned));
        let link = self.long_link.map(without_end).or_else(linkpath);
        Ok(Named { entry, path, link })
    }
}

fn check_size<R: Read>(entry: &Entry<'_, R>) -> io::Result<()> {
    if entry.size() > MAX_DESCRIPTION_BYTES {
        return Err(invalid(format!(
            "the name or the attributes of an entry take more than {MAX_DESCRIPTION_BYTES} bytes"
        )));
    }
    Ok(())
}

/// Names of GNU's kind end with a zero.
fn without_end(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
