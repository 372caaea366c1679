//! Deterministic archives: equal trees give equal bytes, whoever packs them and when.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use walkdir::{DirEntry, WalkDir};

/// A good half of the best ratio at several times the speed.
const COMPRESSION: Compression = Compression::new(4);

const DIRECTORY_MODE: u32 = 0o755;
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// An archive that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 (hex) of the archive.
    pub sha256: String,
    /// Size of the archive.
    pub archive_bytes: u64,
    /// Size of the files in it.
    pub tree_bytes: u64,
    /// Number of files and links in it.
    pub tree_files: u32,
}

/// Why a tree could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file could not be read or the archive not written.
    #[error("cannot pack {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is neither file, directory nor link.
    #[error("{} is neither a file, a directory nor a link", .0.display())]
    Special(PathBuf),
}

/// Packs `tree` into `archive` as the directory `name`. Entries for which `keep` says no, and what
/// is below them, are left out. Blocks.
pub fn pack(
    tree: &Path,
    name: &str,
    archive: &Path,
    keep: impl Fn(&DirEntry) -> bool,
) -> Result<Packed, PackError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PackError::Io { path, source }
    };
    let file = File::create(archive).map_err(at(archive))?;
    let hashing = Hashing { inner: BufWriter::new(file), hasher: Sha256::new(), bytes: 0 };
    let mut tar = tar::Builder::new(GzBuilder::new().mtime(0).write(hashing, COMPRESSION));
    let mut packed =
        Packed { sha256: String::new(), archive_bytes: 0, tree_bytes: 0, tree_files: 0 };

    let walk = WalkDir::new(tree).sort_by_file_name().follow_links(false).into_iter();
    for entry in walk.filter_entry(keep) {
        let entry = entry.map_err(|error| PackError::Io {
            path: error.path().unwrap_or(tree).to_owned(),
            source: error.into(),
        })?;
        let path = entry.path();
        let inside = path.strip_prefix(tree).map_err(|_| PackError::Special(path.to_owned()))?;
        let inside = Path::new(name).join(inside);
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        if entry.file_type().is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(DIRECTORY_MODE);
            tar.append_data(&mut header, &inside, io::empty()).map_err(at(path))?;
        } else if entry.file_type().is_symlink() {
            let target = fs::read_link(path).map_err(at(path))?;
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(FILE_MODE);
            tar.append_link(&mut header, &inside, target).map_err(at(path))?;
            packed.tree_files += 1;
        } else if entry.file_type().is_file() {
            let file = File::open(path).map_err(at(path))?;
            let metadata = file.metadata().map_err(at(path))?;
            let is_program = metadata.permissions().mode() & 0o111 != 0;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if is_program { PROGRAM_MODE } else { FILE_MODE });
            header.set_size(metadata.len());
            tar.append_data(&mut header, &inside, file).map_err(at(path))?;
            packed.tree_bytes += metadata.len();
            packed.tree_files += 1;
        } else {
            return Err(PackError::Special(path.to_owned()));
        }
    }
    let gzip = tar.into_inner().map_err(at(archive))?;
    let mut hashing = gzip.finish().map_err(at(archive))?;
    hashing.inner.flush().map_err(at(archive))?;
    packed.archive_bytes = hashing.bytes;
    packed.sha256 = hex::encode(hashing.hasher.finalize());
    Ok(packed)
}

struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path, order: &[(&str, &str)]) {
        for (path, text) in order {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn equal_trees_give_equal_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = [("b/index.js", "1"), ("a/index.js", "22"), ("a/.bin/x", "3")];
        tree(one.path(), &files);
        tree(two.path(), &[files[2], files[0], files[1]]);
        std::thread::sleep(std::time::Duration::from_millis(20));
        tree(two.path(), &files[..1]);
        let keep = |entry: &DirEntry| entry.file_name() != ".bin";
        let out = tempfile::tempdir().unwrap();
        let first = pack(one.path(), "node_modules", &out.path().join("1"), keep).unwrap();
        let second = pack(two.path(), "node_modules", &out.path().join("2"), keep).unwrap();
        assert_eq!(first, second);
        assert_eq!((first.tree_files, first.tree_bytes), (2, 3));
        let bytes = fs::read(out.path().join("1")).unwrap();
        assert_eq!(first.archive_bytes, bytes.len() as u64);
        assert_eq!(first.sha256, hex::encode(Sha256::digest(&bytes)));
        assert_eq!(bytes, fs::read(out.path().join("2")).unwrap());
    }
}
