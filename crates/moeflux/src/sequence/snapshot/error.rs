//! What can be wrong with a snapshot.

use std::io;
use std::sync::Arc;

use crate::sequence::{Fingerprint, KvType};

/// Why a snapshot can't be written or read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file can't be read or written.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The file is something else.
    #[error("expected a snapshot of a sequence, found a file that starts with {found:02x?}")]
    NotASnapshot {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The file is of a version that this program doesn't know.
    #[error(
        "the snapshot is of version {found}, and this program reads version {expected}: use the program that wrote it"
    )]
    Version {
        /// What can be read.
        expected: u32,
        /// What the file says.
        found: u32,
    },
    /// The file ends early.
    #[error("the snapshot ends within its {section} section, at byte {offset}: it was cut short")]
    Cut {
        /// The section that is not whole.
        section: &'static str,
        /// The file's length.
        offset: u64,
    },
    /// The file goes on after its end.
    #[error("the snapshot goes on after its end, at byte {offset}")]
    Trailing {
        /// Where it should end.
        offset: u64,
    },
    /// Bytes are not those that were written.
    #[error(
        "the {section} section before byte {offset} is damaged: its checksum is {found:016x}, expected {expected:016x}"
    )]
    Damaged {
        /// The section.
        section: &'static str,
        /// Where it ends.
        offset: u64,
        /// What the file says.
        expected: u64,
        /// What its bytes give.
        found: u64,
    },
    /// A section that is not the one that comes here, or that says something that can't be.
    #[error("the {section} section at byte {offset}: {what} is {found}, expected {expected}")]
    Section {
        /// The section expected.
        section: &'static str,
        /// Where it starts.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It belongs to a model of another shape.
    #[error("the snapshot is of another model: its fingerprint is {found}, this model's is {expected}")]
    OtherModel {
        /// This model's.
        expected: Fingerprint,
        /// The snapshot's.
        found: Fingerprint,
    },
    /// It belongs to a model of the same shape with other weights.
    #[error(
        "the snapshot is of a model of this shape with other weights, or with another quantisation: its fingerprint is \
         {found}, this model's is {expected}"
    )]
    OtherWeights {
        /// This model's.
        expected: Fingerprint,
        /// The snapshot's.
        found: Fingerprint,
    },
    /// It was made with other numbers.
    #[error(
        "the snapshot's caches are of {found:?}, this engine's numbers need {expected:?}: use the numbers that made it"
    )]
    KvType {
        /// What the engine works on.
        expected: KvType,
        /// What the snapshot has.
        found: KvType,
    },
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        SnapshotError::Io(Arc::new(error))
    }
}
