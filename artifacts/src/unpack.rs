//! Safe extraction of archives nobody vouches for.
//!
//! Files, directories and relative links that stay inside; no absolute path, no `..`, no hard
//! link, no device, nothing written through a link, and bounds on size and count. An archive that
//! breaks a rule is refused as a whole; the caller removes what was extracted so far.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::EntryType;

use crate::entries::{Named, entries};

/// What an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackBounds {
    /// All files together.
    pub bytes: u64,
    /// Files, links and directories.
    pub entries: u32,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A path that is absolute, leaves the tree, or goes through a link.
    #[error("the archive holds a path that leaves it: {0:?}")]
    Escapes(String),
    /// A link that leaves the tree.
    #[error("the archive holds a link that leaves it: {0:?}")]
    LinkEscapes(String),
    /// A hard link, a device or another kind nobody needs.
    #[error("the archive holds {0:?}, which is neither a file, a directory nor a link")]
    Kind(String),
    /// Two entries of one path.
    #[error("the archive holds {0:?} twice")]
    Twice(String),
    /// Over the bound on size.
    #[error("the archive unpacks to more than {0} bytes")]
    TooLarge(u64),
    /// Over the bound on entries.
    #[error("the archive holds more than {0} entries")]
    TooMany(u32),
    /// Not an archive, or the disk failed.
    #[error("the archive cannot be unpacked")]
    Io(#[from] io::Error),
}

/// Room for the headers of each entry and the padding of its content.
const OVERHEAD_BYTES: u64 = 4 * 1024;

/// Extracts a gzipped tar into the existing, empty directory `into`. Blocks.
pub fn unpack(archive: impl Read, into: &Path, bounds: UnpackBounds) -> Result<(), UnpackError> {
    // The decoder gives no more than an honest archive of these bounds can hold, so that one that
    // is all headers, or lies about sizes, ends too.
    let most = bounds.bytes.saturating_add(u64::from(bounds.entries) * OVERHEAD_BYTES);
    let mut archive = tar::Archive::new(GzDecoder::new(archive).take(most));
    let (mut bytes, mut n_entries) = (0_u64, 0_u32);
    for entry in entries(&mut archive)? {
        let Named { mut entry, path, link } = entry?;
        n_entries += 1;
        if n_entries > bounds.entries {
            return Err(UnpackError::TooMany(bounds.entries));
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > bounds.bytes {
            return Err(UnpackError::TooLarge(bounds.bytes));
        }
        let name = String::from_utf8_lossy(&path).into_owned();
        let inside = inside(Path::new(OsStr::from_bytes(&path)))
            .ok_or_else(|| UnpackError::Escapes(name.clone()))?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let path = into.join(&inside);
        make_parents(into, &inside).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => UnpackError::Escapes(name.clone()),
            _ => UnpackError::Io(error),
        })?;
        match entry.header().entry_type() {
            EntryType::Directory => match fs::symlink_metadata(&path) {
                Ok(there) if there.is_dir() => {}
                Ok(_) => return Err(UnpackError::Twice(name)),
                Err(_) => fs::create_dir(&path)?,
            },
            EntryType::Regular | EntryType::Continuous => {
                let mode = if entry.header().mode()? & 0o111 == 0 { 0o444 } else { 0o555 };
                let mut file = match File::create_new(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(UnpackError::Twice(name));
                    }
                    file => file?,
                };
                let written = io::copy(&mut entry, &mut file)?;
                if written != entry.size() {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            EntryType::Symlink => {
                let target = link.unwrap_or_default();
                let target = Path::new(OsStr::from_bytes(&target));
                if !stays_inside(&inside, target) {
                    return Err(UnpackError::LinkEscapes(name));
                }
                match symlink(target, &path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(UnpackError::Twice(name));
                    }
                    made => made?,
                }
            }
            _ => return Err(UnpackError::Kind(name)),
        }
    }
    Ok(())
}

/// The path as plain names below the root, if it is that.
fn inside(path: &Path) -> Option<PathBuf> {
    path.components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// Whether a link at `link` to `target` stays in the tree, read as text. Since nothing is written
/// through links and every link stays inside, chains of links do too.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    // `a/../../b` is inside as text, but not when `a` is a link: up only at the beginning.
    let names_seen = target
        .components()
        .skip_while(|part| matches!(part, Component::ParentDir | Component::CurDir));
    depth > 0 && names_seen.into_iter().all(|part| matches!(part, Component::Normal(_)))
}

/// Makes the directories above `inside`; fails if one of them is there and is no real directory.
fn make_parents(root: &Path, inside: &Path) -> io::Result<()> {
    let Some(parent) = inside.parent() else { return Ok(()) };
    let mut path = root.to_owned();
    for part in parent.components() {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(_) => fs::create_dir(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::Header;

    use super::*;

    /// An archive of raw entries: the `tar` crate's own checks are not in the way.
    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, path, text) in entries {
            let mut header = Header::new_gnu();
            let name = &mut header.as_gnu_mut().unwrap().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let content = if is_link { "" } else { text };
            if is_link {
                header.as_gnu_mut().unwrap().linkname[..text.len()]
                    .copy_from_slice(text.as_bytes());
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    const BOUNDS: UnpackBounds = UnpackBounds { bytes: 1_000, entries: 10 };

    #[test]
    fn hostile_archives_are_refused_and_write_nothing_outside() {
        use EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
        for (what, entries) in [
            ("absolute", vec![(Regular, "/evil", "x")]),
            ("parent", vec![(Regular, "../evil", "x")]),
            ("parent inside", vec![(Regular, "a/../../evil", "x")]),
            ("absolute link", vec![(Symlink, "a", "/etc")]),
            ("link up", vec![(Symlink, "a", "../x")]),
            ("link through a link", vec![(Symlink, "a/b", "c/../../d")]),
            (
                "write through a link",
                vec![(Directory, "d", ""), (Symlink, "a", "d"), (Regular, "a/evil", "x")],
            ),
            ("replace by a link", vec![(Regular, "a", "x"), (Symlink, "a", "b")]),
            ("twice", vec![(Regular, "a", "x"), (Regular, "a", "y")]),
            ("hard link", vec![(Link, "a", "/etc/passwd")]),
            ("device", vec![(Char, "a", "")]),
            ("fifo", vec![(Fifo, "a", "")]),
            ("too many", vec![(Regular, "a", ""); 11]),
        ] {
            let outer = tempfile::tempdir().unwrap();
            let into = outer.path().join("in");
            fs::create_dir(&into).unwrap();
            let refused = unpack(archive(&entries).as_slice(), &into, BOUNDS);
            assert!(refused.is_err(), "{what}");
            assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "{what}");
            assert!(!into.join("d/evil").exists(), "{what}");
        }
    }

    #[test]
    fn names_are_bounded_and_may_be_long() {
        let into = tempfile::tempdir().unwrap();
        let long = format!("{}/a.js", "d".repeat(150));
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, &long, &b"1"[..]).unwrap();
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "link", &long).unwrap();
        let whole = tar.into_inner().unwrap().finish().unwrap();
        unpack(whole.as_slice(), into.path(), BOUNDS).unwrap();
        assert_eq!(fs::read_to_string(into.path().join("link")).unwrap(), "1");

        let into = tempfile::tempdir().unwrap();
        let bounds = UnpackBounds { bytes: 1_000_000_000, entries: 10 };
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let name = "a".repeat(65_537);
            let entries = [(kind, "././@LongLink", &*name), (EntryType::Regular, "a", "1")];
            let refused = unpack(archive(&entries).as_slice(), into.path(), bounds);
            assert!(matches!(refused, Err(UnpackError::Io(_))), "{kind:?}");
        }
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0);
    }

    #[test]
    fn sizes_are_bounded() {
        let into = tempfile::tempdir().unwrap();
        let big = "x".repeat(1_001);
        let refused =
            unpack(archive(&[(EntryType::Regular, "a", &big)]).as_slice(), into.path(), BOUNDS);
        assert!(matches!(refused, Err(UnpackError::TooLarge(1_000))));
        // A bomb that is no archive at all.
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![1; 10_000_000]).unwrap();
        assert!(unpack(bomb.finish().unwrap().as_slice(), into.path(), BOUNDS).is_err());
        assert!(unpack(&b"no archive"[..], into.path(), BOUNDS).is_err());
    }

    #[test]
    fn what_is_fine_is_extracted() {
        use EntryType::{Directory, Regular, Symlink};
        let into = tempfile::tempdir().unwrap();
        let entries = [
            (Directory, "./", ""),
            (Directory, "node_modules/", ""),
            (Regular, "node_modules/a/index.js", "1"),
            (Symlink, "node_modules/b", "a"),
            (Symlink, "node_modules/c/d", "../a/index.js"),
        ];
        unpack(archive(&entries).as_slice(), into.path(), BOUNDS).unwrap();
        for path in ["a/index.js", "b/index.js", "c/d"] {
            let text = fs::read_to_string(into.path().join("node_modules").join(path)).unwrap();
            assert_eq!(text, "1", "{path}");
        }
    }

    #[test]
    fn cut_archives_are_refused() {
        let whole = archive(&[(EntryType::Regular, "a", &"x".repeat(900))]);
        let into = tempfile::tempdir().unwrap();
        assert!(unpack(&whole[..whole.len() / 2], into.path(), BOUNDS).is_err());
    }
}
