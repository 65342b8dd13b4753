//! What can go wrong with a conversion.

use moeflux_kernels::PoolError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a conversion or a verification did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source is not what it should be.
    #[error(transparent)]
    Checkpoint(#[from] crate::Error),
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The disk is full.
    #[error(
        "{}: the disk is full; free some space and run the same command again, it goes on where it stopped",
        path.display()
    )]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The disk has too little space for what is to come.
    #[error("{}: the conversion needs {needed} bytes more, the disk has {available}; free some space", path.display())]
    NoSpace {
        /// Where it would go.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes that the disk has.
        available: u64,
    },
    /// There is something already.
    #[error("{}: exists already, and is not what this conversion would make; remove it or name another folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// There is another conversion's unfinished work.
    #[error(
        "{}: holds an unfinished conversion of another source or with another recipe; \
         finish that one first, or start anew with --restart", path.display()
    )]
    OtherJob {
        /// The folder.
        path: PathBuf,
    },
    /// The source has changed since the conversion began.
    #[error("{}: the files it was being made from have changed since; start anew with --restart", path.display())]
    SourceChanged {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works on it.
    #[error("{}: another process is converting into this folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of unfinished work has something else in it.
    #[error("{}: expected an unfinished conversion, found other files; remove the folder", path.display())]
    NotAJob {
        /// The folder.
        path: PathBuf,
    },
    /// A weight that no encoding stands for.
    #[error("{tensor}: row {row}, column {column} is infinite or not a number: it cannot be quantised")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// Weights that no pack can hold as they are.
    #[error(
        "{tensor}: its columns are not in the order of their groups (GPTQ's act-order), or its scales are F32: \
         a pack can't hold it as it is; encode it anew, as --bits 8 does"
    )]
    NotKept {
        /// The tensor.
        tensor: String,
    },
    /// Experts of one mixture that are not alike.
    #[error(
        "{mixture}: expected experts that are stored alike, found expert {expert} stored as {found}, others as {expected}"
    )]
    UnlikeExperts {
        /// The mixture.
        mixture: String,
        /// The expert that differs from the first.
        expert: usize,
        /// How the first is stored.
        expected: String,
        /// How this one is.
        found: String,
    },
    /// Sizes beyond what a pack can hold.
    #[error("{tensor}: too large for a pack")]
    TooLarge {
        /// The tensor or mixture.
        tensor: String,
    },
    /// Something else than a pack.
    #[error("{}: is not a pack: it has no moeflux.json", path.display())]
    NotAPack {
        /// The folder.
        path: PathBuf,
    },
    /// A manifest that cannot be written.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// The threads did not start.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Two checkpoints that do not hold the same model.
    #[error("{tensor}: {problem}")]
    Unlike {
        /// The tensor or mixture.
        tensor: String,
        /// In what they differ.
        problem: String,
    },
}

impl Error {
    /// The error of reading or writing `path`.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Error {
        |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull { path: path.to_owned() },
            _ => Error::Io { path: path.to_owned(), source },
        }
    }
}
