//! Chance changes to the bytes of a file.

use proptest::prelude::*;

/// A change to a file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Replace(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    /// Another digit in place of one: offsets, shapes and dtypes that are still numbers.
    Digit(usize, u8),
    Truncate(usize),
}

/// One or two changes.
pub(crate) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let place = 0..usize::MAX;
    let one = prop_oneof![
        1 => (place.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        1 => (place.clone(), 1..20usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (place.clone(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, more)| Damage::Insert(at, more)),
        4 => (place.clone(), b'0'..=b'9').prop_map(|(at, digit)| Damage::Digit(at, digit)),
        1 => place.prop_map(Damage::Truncate),
    ];
    prop::collection::vec(one, 1..3)
}

impl Damage {
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len().max(1);
        match self {
            Damage::Replace(at, byte) => {
                bytes.iter_mut().skip(at % len).take(1).for_each(|old| *old = *byte);
            }
            Damage::Remove(at, count) => drop(bytes.drain(at % len..(at % len + count).min(bytes.len()))),
            Damage::Insert(at, more) => drop(bytes.splice(at % len..at % len, more.iter().copied())),
            Damage::Digit(at, digit) => {
                let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    bytes[digits[at % digits.len()]] = *digit;
                }
            }
            Damage::Truncate(at) => bytes.truncate(at % len),
        }
    }
}
