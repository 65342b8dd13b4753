//! What can go wrong, and what to do about it.

use crate::digest::Digest;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a model could not be planned, pulled, found or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// A text that names no model.
    #[error(
        "{text:?} is no model's name: {what}; expected OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME:FILE"
    )]
    Name { text: String, what: &'static str },

    /// The hub's address cannot be used.
    #[error("{endpoint:?}: expected a hub's address, such as https://huggingface.co")]
    Endpoint { endpoint: String },

    /// The hub does not know the repository, or does not show it.
    #[error("{repo}: {endpoint} has no such model{}", private_hint(*.with_token))]
    NoRepo { repo: String, endpoint: String, with_token: bool },
    /// The repository has no such branch, tag or commit.
    #[error("{repo}: no revision {revision:?}: {endpoint}/{repo} lists branches and tags")]
    NoRevision { repo: String, revision: String, endpoint: String },
    /// A file that the hub lists and does not have.
    #[error("{url}: the hub has no such file")]
    NoFile { url: String },
    /// The repository's owner lets in only those who asked.
    #[error("{repo} is gated: ask for access at {endpoint}/{repo}, {}", gated_hint(*.with_token))]
    Gated { repo: String, endpoint: String, with_token: bool },
    /// The hub refused the token, or wants one.
    #[error("{url}: status {status}: {}", denied_hint(*.with_token))]
    Denied { url: String, status: u16, with_token: bool },
    /// Another status than success.
    #[error("{url}: status {status}{}", detail(message))]
    Status { url: String, status: u16, message: String, retry_after: Option<Duration> },
    /// The connection failed.
    #[error("{url}: {source}")]
    Connection { url: String, source: Box<ureq::Error> },
    /// The hub's answer is not what its interface promises.
    #[error("{url}: {what}")]
    Answer { url: String, what: String },

    /// The repository has nothing that is understood here.
    #[error("{repo}: {what}")]
    NoWeights { repo: String, what: String },
    /// Several files could be meant.
    #[error("{repo}: which weights? name one, as in {repo}:{}; there are {}", first(files), files.join(", "))]
    Choice { repo: String, files: Vec<String> },
    /// A file that the model needs and the repository lacks.
    #[error("{repo}: {needed_by} asks for {file:?}, which the repository does not have")]
    MissingFile { repo: String, file: String, needed_by: String },

    /// A body ended early.
    #[error("{url}: the connection ended at byte {got} of {size}")]
    Truncated { url: String, got: u64, size: u64 },
    /// Several tries in a row brought nothing.
    #[error(
        "{file}: given up at {got} of {size} bytes, after {tries} tries without progress; what is there is kept, and pulling again goes on from there: {source}"
    )]
    GaveUp { file: String, got: u64, size: u64, tries: u32, source: Box<Error> },
    /// A whole file with the wrong content.
    #[error(
        "{file}: its content is wrong, and it was deleted: expected {expected}, found {found}; pull again, and if that does not help, the hub or a proxy on the way is at fault"
    )]
    WrongDigest { file: String, expected: Digest, found: Digest },
    /// Another file has failed, and this one was stopped.
    #[error("stopped")]
    Stopped,
    /// The disk cannot take the model.
    #[error("{}: not enough disk space: {needed} more bytes are needed, and {available} are free", folder.display())]
    TooLittleSpace { folder: PathBuf, needed: u64, available: u64 },
    /// The disk became full.
    #[error("{}: the disk is full; what is there is kept: free some space and pull again", path.display())]
    DiskFull { path: PathBuf },
    /// A file or folder of the store could not be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    /// Somebody else pulls or removes the model now.
    #[error("{name} is being pulled or removed by another process")]
    Busy { name: String },
    /// Several stored models could be meant.
    #[error("{query:?} could be any of {}: name one in full", names.join(", "))]
    Ambiguous { query: String, names: Vec<String> },
    /// The model's download has not ended.
    #[error("{name} is not complete, {there} of {size} bytes are there: `moeflux pull {name}` goes on")]
    Incomplete { name: String, there: u64, size: u64 },
    /// A file of a stored model is not as it was.
    #[error("{}: expected {expected} bytes, found {}: `moeflux pull {name}` mends it", path.display(), found.map_or("no such file".to_owned(), |found| found.to_string()))]
    Damaged { name: String, path: PathBuf, expected: u64, found: Option<u64> },
    /// The list of a model's files is damaged.
    #[error("{}: not a list of a model's files: {what}; remove the folder and pull the model again", path.display())]
    Receipt { path: PathBuf, what: String },
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Error::Status { status, .. } => matches!(status, 408 | 416 | 425 | 429 | 500..=599),
            Error::Connection { source, .. } => {
                use ureq::Error::{ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
                match source.as_ref() {
                    // What TLS finds wrong with a certificate arrives as an input error with that cause.
                    Io(error) => error.get_ref().is_none_or(|cause| !cause.is::<rustls::Error>()),
                    Timeout(_) | HostNotFound | ConnectionFailed | Protocol(_) => true,
                    _ => false,
                }
            }
            Error::Truncated { .. } => true,
            _ => false,
        }
    }

    /// How long the hub asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What turns an I/O error about `path` into one of these.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            _ => Error::Io { path, source },
        }
    }
}

fn private_hint(with_token: bool) -> &'static str {
    if with_token {
        ", or your token may not read it: check the name, and the token's rights"
    } else {
        ", or it is private: check the name; for a private model set HF_TOKEN"
    }
}

fn gated_hint(with_token: bool) -> &'static str {
    if with_token {
        "with the account of your token, and check that the token may read gated models"
    } else {
        "then set HF_TOKEN to an access token of your account"
    }
}

fn denied_hint(with_token: bool) -> &'static str {
    if with_token {
        "the hub refuses your token: check that it is whole, not expired, and may read this model"
    } else {
        "the hub wants to know who asks: set HF_TOKEN to an access token"
    }
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn first(files: &[String]) -> &str {
    files.first().map_or("FILE", String::as_str)
}
