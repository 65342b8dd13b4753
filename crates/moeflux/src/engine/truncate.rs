//! Goes back to an earlier point of a sequence, exactly.

use super::{Engine, Input, Outputs};
use crate::error::Error;
use crate::sequence::{Position, Sequence};

/// What a truncation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Tokens that were read again, from the nearest restore point on.
    pub replayed: usize,
}

impl Engine {
    /// Drops all but the first `len` tokens of a sequence, as if the others had never been read: what follows has the
    /// same bits as after a fresh prefill of those `len`.
    ///
    /// Caches of full attention are cut. Recurrent states, and sliding windows that have moved on, go back to the nearest
    /// restore point at or before `len`, and the tokens from there on are read again; [`Sequence::truncation_cost`] tells
    /// how many. After an error the sequence is as it was.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) -> Result<Truncated, Error> {
        if sequence.model() != self.model().id() {
            return Err(Error::ForeignSequence);
        }
        if len > sequence.len() {
            return Err(Error::Truncate { len: sequence.len(), to: len });
        }
        let before = sequence.fork();
        sequence.rewind(len);
        let replayed = len - sequence.len();
        if let Err(error) = self.replay(sequence, &before, len) {
            *sequence = before;
            return Err(error);
        }
        Ok(Truncated { replayed })
    }

    /// Reads the tokens of `before` again that `sequence` lacks of the first `len`.
    fn replay(&mut self, sequence: &mut Sequence, before: &Sequence, len: usize) -> Result<(), Error> {
        while sequence.len() < len {
            let first = sequence.len();
            let rows = first..first + sequence.chunk_towards(len, self.prefill_chunk());
            let positions: Vec<Position> = rows.clone().map(|index| before.position(index)).collect();
            let tokens = &before.tokens()[rows];
            let input =
                Input { positions: Some(&positions), outputs: Outputs::None, ..Input::new(sequence, tokens) };
            self.step(&mut [input], None)?;
        }
        Ok(())
    }
}
