//! Content hashes as hubs give them.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// The hash of a file's content, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    /// SHA-256 of the content: what large-file storage calls a file's oid.
    Sha256(String),
    /// The id that git gives a blob: SHA-1 of `blob LENGTH\0` and the content.
    GitSha1(String),
}

impl Digest {
    /// A hash from hexadecimal digits, told apart by their number; `None` if they are neither 40 nor 64.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        match digits.len() {
            40 => Some(Digest::GitSha1(digits.to_ascii_lowercase())),
            64 => Some(Digest::Sha256(digits.to_ascii_lowercase())),
            _ => None,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Sha256(digits) => write!(f, "sha256 {digits}"),
            Digest::GitSha1(digits) => write!(f, "git sha1 {digits}"),
        }
    }
}

/// Computes the hash of a content that comes piece by piece, of the kind that is expected.
pub(crate) struct Hasher {
    context: Context,
    finish: fn(String) -> Digest,
}

impl Hasher {
    /// A hasher of the same kind as `expected`, for a content of `size` bytes.
    pub(crate) fn like(expected: &Digest, size: u64) -> Self {
        match expected {
            Digest::Sha256(_) => Self { context: Context::new(&SHA256), finish: Digest::Sha256 },
            Digest::GitSha1(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Self { context, finish: Digest::GitSha1 }
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut digits = String::new();
        for byte in self.context.finish().as_ref() {
            let _ = write!(digits, "{byte:02x}");
        }
        (self.finish)(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Hasher};

    /// What `sha256sum` and `git hash-object` say of a file with `hello\n`.
    #[test]
    fn hashes_are_those_of_the_tools() {
        for digits in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let expected = Digest::from_hex(digits).expect("a hash");
            let mut hasher = Hasher::like(&expected, 6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.finish(), expected);
        }
        assert_eq!(Digest::from_hex("ce0136"), None);
        assert_eq!(Digest::from_hex("0-77fb9e49af42be3ba5fc0f5f9f5b0d7c0b5c1d63"), None);
    }
}
