//! Tells models apart without reading all of their weights. A layer for further tokens, loaded or not, is no part of it:
//! it changes nothing that a sequence remembers.

use std::fmt;
use std::hash::Hasher;

use moeflux_checkpoint::Expert;
use twox_hash::XxHash3_64;

use super::Model;

/// What a model is, in two numbers that are the same on every machine and for every format that holds the same weights
/// in the same encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Names and shapes of all weights, and what its sequences remember.
    pub architecture: u64,
    /// Encodings, all vectors and the first row of each dense matrix: differs between quantisations of a model, and
    /// between models of the same shape that were trained apart. It is no proof against somebody who wants it to be equal.
    pub weights: u64,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.architecture, self.weights)
    }
}

impl Model {
    /// Its fingerprint; takes milliseconds, and reads some kilobytes of each layer.
    pub fn fingerprint(&self) -> Fingerprint {
        let (mut architecture, mut weights) = (XxHash3_64::new(), XxHash3_64::new());
        let table = self.weights();
        for named in table.matrices().iter().filter(|named| !is_further(&named.name)) {
            let matrix = &named.matrix;
            note(&mut architecture, &format!("{} {} {}", named.name, matrix.rows, matrix.cols));
            note(&mut weights, &format!("{:?}", matrix.encoding));
            let (codes, scales, biases) = self.checkpoint().view(matrix).row(0);
            for bytes in [codes, scales, biases] {
                weights.write(bytes);
            }
        }
        for named in table.vectors().iter().filter(|named| !is_further(&named.name)) {
            note(&mut architecture, &format!("{} {}", named.name, named.values.len()));
            named.values.iter().for_each(|value| weights.write(&value.to_le_bytes()));
        }
        for named in table.experts().iter().filter(|named| !is_further(&named.name)) {
            note(&mut architecture, &format!("{} {}", named.name, named.experts.len()));
            for (part, matrix) in named.experts.iter().flat_map(Expert::matrices) {
                note(&mut architecture, &format!("{part:?} {} {}", matrix.rows, matrix.cols));
                note(&mut weights, &format!("{:?}", matrix.encoding));
            }
        }
        for rope in table.ropes() {
            note(&mut architecture, &format!("{:?} {:?} {}", rope.layout, rope.axes, rope.rotary_dim));
            let numbers = rope.inv_freq.iter().chain([&rope.attention_factor]);
            numbers.for_each(|number| architecture.write(&number.to_le_bytes()));
        }
        for state in table.states() {
            note(&mut architecture, &format!("{state:?}"));
        }
        Fingerprint { architecture: architecture.finish(), weights: weights.finish() }
    }
}

/// Whether a weight is of a layer for further tokens.
fn is_further(name: &str) -> bool {
    name.starts_with("mtp.")
}

/// Adds text, and where it ends.
fn note(hash: &mut XxHash3_64, text: &str) {
    hash.write(text.as_bytes());
    hash.write(&[0]);
}
