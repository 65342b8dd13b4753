//! Tells models apart without reading all of their weights. A layer for further tokens, loaded or not, is no part of it:
//! it changes nothing that a sequence remembers.

use std::hash::Hasher;

use moeflux_checkpoint::Expert;
use twox_hash::XxHash3_64;

use super::Model;
use crate::sequence::snapshot::Expected;
use crate::sequence::{Fingerprint, Sequence};

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

impl Expected {
    /// What a snapshot of this model must fit, for sequences like this empty one.
    pub fn by(model: &Model, empty: Sequence) -> Self {
        let (vocab_size, context_length) = (model.vocab_size(), model.context_length());
        Expected { empty, fingerprint: model.fingerprint(), vocab_size, context_length }
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
