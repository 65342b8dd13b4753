//! Files that are read whole: configs, indices, tokenizers, templates. Only regular files are, and none that is larger than
//! any real one: a pipe would wait for ever, and a device has no end.

use crate::error::Error;
use std::fs::Metadata;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Most bytes of a file that is read whole, if nothing smaller is asked for: more than any index or tokenizer has.
pub const LARGEST: u64 = 256 << 20;

/// Most bytes of a config or a chat template.
pub const LARGEST_CONFIG: u64 = 16 << 20;

/// The bytes of a file of at most `limit` bytes; `None` if there is no such file.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if metadata.is_dir() {
        return Err(io(ErrorKind::IsADirectory.into()));
    }
    check_regular(path, &metadata)?;
    let too_large = |found| Error::TooLarge { path: path.to_owned(), limit, found };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may grow meanwhile.
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    if is_lfs_pointer(&bytes) {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    Ok(Some(bytes))
}

/// The text of a file of at most `limit` bytes; `None` if there is no such file.
pub fn read_text(path: &Path, limit: u64) -> Result<Option<String>, Error> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    let not_utf8 = || Error::Io { path: path.to_owned(), source: ErrorKind::InvalidData.into() };
    String::from_utf8(bytes).map(Some).map_err(|_| not_utf8())
}

/// The object in a JSON file of at most `limit` bytes; `None` if there is no such file.
pub fn read_object(
    path: &Path,
    limit: u64,
) -> Result<Option<serde_json::Map<String, serde_json::Value>>, Error> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    crate::config::object(path, &bytes).map(Some)
}

/// Refuses what is no regular file.
pub(crate) fn check_regular(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    // That of a folder is refused by the system when it is read.
    if metadata.is_file() || metadata.is_dir() {
        return Ok(());
    }
    Err(Error::NotAFile { path: path.to_owned() })
}

/// Whether a file is a git-lfs pointer in place of the content that belongs there. Longer files are not touched: of those that
/// are mapped the system would read megabytes.
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.len() < 1024 && bytes.starts_with(b"version https://git-lfs")
}
