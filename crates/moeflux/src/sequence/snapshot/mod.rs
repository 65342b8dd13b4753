//! A sequence in a file.
//!
//! The file is [`MAGIC`], the version (`u32`) and sections (see `section.rs`), in this order and no other:
//!
//! | section | content |
//! |---|---|
//! | `HEAD` | fingerprint of the model (two `u64`), bytes of a cache's element (`u32`), then as `u64`: tokens, those whose position is their index, restore points, bytes of extra data |
//! | `TOKS` | the tokens, `u32` each |
//! | `POSI` | the positions of the other tokens, three `u32` each |
//! | `CACH` | caches of all tokens: by block of 64 positions, by state, by part (keys, values) |
//! | `CKPT` | as often as there are restore points, by length: the length (`u64`), then by state what it keeps: the floats of a recurrent state; of a window its first block (`u64`), then keys, then values of all blocks to its end |
//! | `XTRA` | whatever the caller wants to have back |
//! | `DONE` | nothing |
//!
//! Where a model has states that are not caches of all tokens, the last restore point is the end of the sequence.

mod error;
mod read;
mod section;
mod write;

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

pub use error::SnapshotError;

use self::section::Kind;
use super::{Fingerprint, Sequence};

/// How every snapshot begins.
pub const MAGIC: [u8; 8] = *b"moefluxS";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

const HEAD: Kind = Kind { code: *b"HEAD", name: "head" };
const TOKENS: Kind = Kind { code: *b"TOKS", name: "token" };
const POSITIONS: Kind = Kind { code: *b"POSI", name: "position" };
const CACHES: Kind = Kind { code: *b"CACH", name: "cache" };
const CHECKPOINT: Kind = Kind { code: *b"CKPT", name: "checkpoint" };
const EXTRA: Kind = Kind { code: *b"XTRA", name: "extra" };
const DONE: Kind = Kind { code: *b"DONE", name: "last" };

/// What a snapshot brings back.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The sequence: whatever is done to it gives the bits that the one saved would have given.
    pub sequence: Sequence,
    /// What was saved beside it, such as the state of a sampler.
    pub extra: Vec<u8>,
}

/// How to write a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// Whether to keep the restore points, so that the sequence can still be cut at little cost. Without them the file is
    /// smaller.
    pub checkpoints: bool,
    /// Anything to have back with the sequence.
    pub extra: Vec<u8>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions { checkpoints: true, extra: Vec::new() }
    }
}

/// What a snapshot must fit.
#[derive(Clone, Debug)]
pub struct Expected {
    /// An empty sequence of the model, for the engine's numbers.
    pub empty: Sequence,
    /// The model's.
    pub fingerprint: Fingerprint,
    /// Tokens in its vocabulary.
    pub vocab_size: usize,
    /// Most tokens of a sequence.
    pub context_length: usize,
}

impl Snapshot {
    /// Reads one from bytes. Nothing of a file that is not whole, or not for this model, is ever used.
    pub fn read(input: impl Read, expected: &Expected) -> Result<Self, SnapshotError> {
        read::read(input, expected)
    }

    /// Reads a file.
    pub fn load(path: impl AsRef<Path>, expected: &Expected) -> Result<Self, SnapshotError> {
        Snapshot::read(BufReader::new(File::open(path)?), expected)
    }
}

impl Sequence {
    /// Writes a snapshot.
    pub fn write(
        &self,
        mut output: impl Write,
        fingerprint: Fingerprint,
        options: &SnapshotOptions,
    ) -> Result<(), SnapshotError> {
        write::write(self, &mut output, fingerprint, options)
    }

    /// Writes a snapshot to a file, in whole or not at all: whatever was there stays until the new one is complete and on
    /// the disk.
    pub fn save(
        &self,
        path: impl AsRef<Path>,
        fingerprint: Fingerprint,
        options: &SnapshotOptions,
    ) -> Result<(), SnapshotError> {
        let path = path.as_ref();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(folder)?);
        self.write(&mut file, fingerprint, options)?;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        // The new name is in the folder. Not every system can do this to a folder, and none loses the file for it.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}
