//! Files opened for reading in place: past the page cache or through it.

use crate::error::StoreError;
use crate::options::Io;
use crate::plan::ALIGNMENT;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Where a store reads from. Tests put layers before a file that make reads fail, late, or lie
/// ([`StoreOptions::through`](crate::StoreOptions::through)).
pub trait ReadAt: Send + Sync {
    /// Reads bytes from `offset` on and says how many; fewer than asked for, and 0 at the end, as files do. For direct
    /// reads `bytes` starts and ends at multiples of 4096 in memory, and `offset` is one in the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A file of experts.
pub(crate) struct DataFile {
    file: File,
    direct: bool,
    /// Whether the page cache is to forget what was read.
    forgets: bool,
}

impl DataFile {
    /// Opens a file; [`Io::Mapped`] as [`Io::Buffered`].
    pub(crate) fn open(path: &Path, io: Io) -> Result<Self, StoreError> {
        let fault =
            |what| move |source| StoreError::File { path: path.to_owned(), what, source: Arc::new(source) };
        match io {
            Io::Direct => open_direct(path).map_err(fault(
                "opening for direct reads (not every file system has them; buffered reads work on any)",
            )),
            Io::Buffered | Io::Mapped => open_buffered(path).map_err(fault("opening")),
            Io::Cached => File::open(path)
                .map(|file| DataFile { file, direct: false, forgets: false })
                .map_err(fault("opening")),
            Io::Auto => open_direct(path).or_else(|error| {
                if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) {
                    return Err(fault("opening")(error));
                }
                tracing::info!(
                    "{}: no direct reads here ({error}), so through the page cache",
                    path.display()
                );
                open_buffered(path).map_err(fault("opening"))
            }),
        }
    }

    /// The file's length in bytes.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether reads go past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }
}

impl ReadAt for DataFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = read_at(&self.file, bytes, offset)?;
        if self.forgets {
            forget(&self.file, offset, read as u64);
        }
        Ok(read)
    }
}

/// Fills `bytes` up to `needed`, in as many reads as it takes.
pub(crate) fn read_needed(
    source: &dyn ReadAt,
    bytes: &mut [u8],
    needed: usize,
    offset: u64,
) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        // A direct read that ends early goes on from where its last whole block began.
        let start = done / ALIGNMENT as usize * ALIGNMENT as usize;
        match source.read_at(&mut bytes[start..], offset + start as u64) {
            Ok(read) if start + read > done => done = start + read,
            Ok(_) => {
                let message =
                    format!("the file ends after {done} of {needed} bytes; it is shorter than it was");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open_buffered(path: &Path) -> io::Result<DataFile> {
    let file = File::open(path)?;
    // No reading ahead: it would bring experts that nobody asked for.
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
    Ok(DataFile { file, direct: false, forgets: true })
}

/// Opens past the page cache and reads a block, since some file systems refuse only then.
fn open_direct(path: &Path) -> io::Result<DataFile> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::DIRECT.bits() as i32);
    // FILE_FLAG_NO_BUFFERING
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x2000_0000);
    let file = options.open(path)?;
    #[cfg(target_vendor = "apple")]
    rustix::fs::fcntl_nocache(&file, true)?;
    let file = DataFile { file, direct: true, forgets: false };
    let mut block = memmap2::MmapMut::map_anon(ALIGNMENT as usize)?;
    file.read_at(&mut block, 0)?;
    Ok(file)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

/// Tells the page cache that what was read will not be read again: the store holds it.
#[cfg(target_os = "linux")]
fn forget(file: &File, offset: u64, len: u64) {
    if let Some(len) = std::num::NonZeroU64::new(len) {
        // Advice: without it, memory of the cache is used for longer, and nothing else.
        let _ = rustix::fs::fadvise(file, offset, Some(len), rustix::fs::Advice::DontNeed);
    }
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &File, _offset: u64, _len: u64) {}
