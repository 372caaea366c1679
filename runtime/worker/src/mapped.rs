//! Files that are read where the kernel has them: nothing is copied, and all workers of a version
//! share the pages.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::MmapOptions;

/// The bytes of a file, for as long as the process lives. Their pages come when they are touched, sixteen at
/// a time: to ask for all of them at once takes the kernel twice as long.
pub(crate) fn map(path: &Path) -> io::Result<&'static [u8]> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    // Refused for none.
    if length == 0 {
        return Ok(&[]);
    }
    // SAFETY: bundles and code caches are replaced as a whole, never written to or cut, and a
    // function may write to neither.
    let mapping = unsafe { MmapOptions::new().len(length).map(&file)? };
    Ok(Box::leak(Box::new(mapping)))
}

/// The same of a text.
pub(crate) fn map_text(path: &Path) -> io::Result<&'static str> {
    std::str::from_utf8(map(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
