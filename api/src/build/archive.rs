//! Sources as `.tar.gz`: read from strangers, written for storage.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;
use cloudserve_artifacts::{Named, entries};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::EntryType;

use super::source::{NOT_SOURCE, SourceBounds, SourceError, check_path};

type Files = BTreeMap<String, Bytes>;

/// An archive may unpack to this many times the bound on source: what it holds beside source, such
/// as `node_modules`, is skipped but must be read.
const MAX_UNPACKED_FACTOR: u64 = 16;

/// What an archive needs for a file beside its content: header, long name, padding.
const MAX_HEADER_BYTES: u64 = 4 * 1024;

/// What an archive of so many files needs beside their content, with room for directories.
pub(super) fn max_headers_bytes(n_files: u64) -> u64 {
    (n_files + 16) * MAX_HEADER_BYTES
}

/// The regular files of an archive, as far as they are source. Blocks.
pub(super) fn read(archive: &[u8], bounds: SourceBounds) -> Result<Files, SourceError> {
    let max_bytes =
        bounds.bytes.saturating_mul(MAX_UNPACKED_FACTOR) + max_headers_bytes(bounds.files.into());
    let unpacked = MultiGzDecoder::new(archive).take(max_bytes);
    let mut archive = tar::Archive::new(unpacked);
    let read = read_entries(&mut archive, bounds);
    // Cut off here, it looks damaged.
    if read.is_err() && archive.into_inner().limit() == 0 {
        return Err(SourceError::TooLarge { max_bytes });
    }
    read
}

fn read_entries(
    archive: &mut tar::Archive<impl Read>,
    bounds: SourceBounds,
) -> Result<Files, SourceError> {
    let mut files = Files::new();
    let mut left_bytes = bounds.bytes;
    for entry in entries(archive)? {
        let Named { mut entry, path, .. } = entry?;
        let path = String::from_utf8_lossy(&path);
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        match entry.header().entry_type() {
            EntryType::Directory => continue,
            _ if path.split('/').any(|part| NOT_SOURCE.contains(&part)) => continue,
            EntryType::Regular => {}
            _ => return Err(SourceError::NotAFile { path }),
        }
        if files.len() >= bounds.files as usize {
            return Err(SourceError::TooMany { max: bounds.files });
        }
        left_bytes = left_bytes
            .checked_sub(entry.size())
            .ok_or(SourceError::TooLarge { max_bytes: bounds.bytes })?;
        let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(0));
        entry.read_to_end(&mut content)?;
        check_path(&path)?;
        if files.insert(path.clone(), Bytes::from(content)).is_some() {
            return Err(SourceError::Twice(path));
        }
    }
    Ok(files)
}

/// The files without what macOS packs beside them, and without the one directory that `tar czf
/// project.tar.gz project/` puts around them. One called `src` is not such a directory.
pub(super) fn unwrapped(mut files: Files) -> Files {
    files.retain(|path, _| {
        let name = path.rsplit('/').next().unwrap_or(path);
        !name.starts_with("._") && name != ".DS_Store"
    });
    let wrapper = files.keys().next().and_then(|path| path.split_once('/')).map(|(dir, _)| dir);
    let Some(wrapper) = wrapper.filter(|dir| *dir != "src").map(|dir| format!("{dir}/")) else {
        return files;
    };
    if !files.keys().all(|path| path.starts_with(&wrapper)) {
        return files;
    }
    files.into_iter().map(|(path, bytes)| (path[wrapper.len()..].to_owned(), bytes)).collect()
}

/// An archive of these files. Equal files give equal bytes. Blocks.
pub(super) fn write(files: &Files) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(EntryType::Regular);
        archive.append_data(&mut header, path, &bytes[..])?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const BOUNDS: SourceBounds = SourceBounds { bytes: 10_000, files: 10 };

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(p, c)| ((*p).to_owned(), Bytes::from((*c).to_owned()))).collect()
    }

    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // The checked setters refuse what a hostile archive may hold.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if matches!(kind, EntryType::Link | EntryType::Symlink) {
                header.as_old_mut().linkname[..4].copy_from_slice(b"/etc");
            }
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn archives_are_unpacked_without_what_is_not_source() {
        use EntryType::{Directory, Regular};
        let project = read(
            &archive(&[
                (Directory, "project/", ""),
                (Regular, "project/index.js", "1"),
                (Regular, "project/lib/a.js", "2"),
                (Regular, "project/node_modules/x/index.js", "3"),
                (Regular, "project/.git/HEAD", "4"),
            ]),
            BOUNDS,
        );
        let project = unwrapped(project.unwrap());
        assert_eq!(project, files(&[("index.js", "1"), ("lib/a.js", "2")]));
        let of_macos = [
            (Regular, "./._project", "5"),
            (Regular, "./project/._index.js", "6"),
            (Regular, "./project/.DS_Store", "7"),
            (Regular, "./project/index.js", "1"),
        ];
        let project = unwrapped(read(&archive(&of_macos), BOUNDS).unwrap());
        assert_eq!(project, files(&[("index.js", "1")]));
        let only_src = read(&archive(&[(Regular, "./src/index.ts", "1")]), BOUNDS).unwrap();
        assert_eq!(unwrapped(only_src), files(&[("src/index.ts", "1")]));
    }

    #[test]
    fn hostile_archives_are_refused() {
        use EntryType::{
            Block, Fifo, GNULongLink, GNULongName, GNUSparse, Link, Regular, Symlink,
            XGlobalHeader, XHeader,
        };
        for kind in [Link, Symlink, Block, Fifo, GNUSparse] {
            let refused = read(&archive(&[(kind, "a.js", "")]), BOUNDS);
            assert!(matches!(refused, Err(SourceError::NotAFile { .. })), "{kind:?}");
        }
        for path in ["../a.js", "/etc/a.js", "a/../../b.js"] {
            let refused = read(&archive(&[(Regular, path, "1")]), BOUNDS);
            assert!(matches!(refused, Err(SourceError::BadPath { .. })), "{path}");
        }
        let twice = [(Regular, "a.js", "1"), (Regular, "a.js", "2")];
        assert!(matches!(read(&archive(&twice), BOUNDS), Err(SourceError::Twice(_))));
        let big = "x".repeat(10_001);
        let refused = read(&archive(&[(Regular, "a.js", &big)]), BOUNDS);
        assert!(matches!(refused, Err(SourceError::TooLarge { .. })));
        // What describes an entry is read before the entry is: 400 KB make a name of 400 MB.
        let long = "x".repeat(65_537);
        for kind in [GNULongName, GNULongLink, XHeader, XGlobalHeader] {
            let refused = read(&archive(&[(kind, "l", &long), (Regular, "a.js", "1")]), BOUNDS);
            assert!(matches!(refused, Err(SourceError::Unreadable(_))), "{kind:?}: {refused:?}");
            let refused = read(&archive(&[(kind, "l", "x")]), BOUNDS);
            assert_eq!(refused.is_ok(), kind == XGlobalHeader, "{kind:?}: {refused:?}");
        }
        // Read as it says, its content would be a long name.
        let hidden = [(XHeader, "x", "9 size=0\n"), (Regular, "a.js", &*long)];
        assert!(matches!(read(&archive(&hidden), BOUNDS), Err(SourceError::Unreadable(_))));
        // A bomb: small as sent, huge when unpacked, of what is skipped.
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        let mut header = tar::Header::new_gnu();
        header.set_path("node_modules/a").unwrap();
        header.set_size(100_000_000);
        header.set_cksum();
        bomb.write_all(header.as_bytes()).unwrap();
        bomb.write_all(&vec![0; 100_000_000]).unwrap();
        let refused = read(&bomb.finish().unwrap(), BOUNDS);
        assert!(matches!(refused, Err(SourceError::TooLarge { .. })), "{refused:?}");
        for garbage in [&b""[..], b"no gzip", &[0x1f, 0x8b, 8, 0]] {
            assert!(read(garbage, BOUNDS).is_err());
        }
    }

    #[test]
    fn archives_round_trip_byte_for_byte() {
        let long = format!("{}/b.js", "a".repeat(150));
        let some = files(&[(&long, "1"), ("x.js", "2")]);
        let written = write(&some).unwrap();
        assert_eq!(read(&written, BOUNDS).unwrap(), some);
        assert_eq!(write(&some).unwrap(), written);
    }

    #[test]
    fn names_stand_before_their_entries_in_two_ways() {
        use EntryType::{GNULongName, Regular, XGlobalHeader, XHeader};
        let name = format!("{}/b.js", "a".repeat(150));
        let record = format!("path={name}\n");
        // The length counts itself and the space after it.
        let records = format!("{} {record}9 size=1\n", record.len() + 4);
        for (kind, said) in [(GNULongName, format!("{name}\0")), (XHeader, records)] {
            let entries = [(XGlobalHeader, "g", "x"), (kind, "l", &*said), (Regular, "a", "1")];
            assert_eq!(read(&archive(&entries), BOUNDS).unwrap(), files(&[(&name, "1")]));
        }
    }
}
