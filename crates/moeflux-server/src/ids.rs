//! Names that nobody guesses.

use std::hash::{BuildHasher, Hasher, RandomState};

use ring::rand::{SecureRandom, SystemRandom};

/// A new name: the prefix and 24 hexadecimal digits.
pub fn unique(prefix: &str) -> String {
    let mut bytes = [0; 12];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // The system has no randomness to give: then at least nobody else has the name.
        let hash = RandomState::new().build_hasher().finish();
        bytes[..8].copy_from_slice(&hash.to_le_bytes());
    }
    format!("{prefix}{}", hex(&bytes))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
