//! Saves and loads sequences.

use std::path::Path;

use super::Engine;
use crate::error::Error;
use crate::graph::StepShape;
use crate::sequence::snapshot::{Expected, Snapshot, SnapshotError, SnapshotOptions};
use crate::sequence::{Sequence, mflx};

impl Engine {
    /// Writes a sequence to a file, in whole or not at all.
    pub fn save(
        &self,
        sequence: &Sequence,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<(), Error> {
        let path = path.as_ref();
        if sequence.model() != self.model().id() {
            return Err(Error::ForeignSequence);
        }
        sequence.save(path, self.model().fingerprint(), options).map_err(at(path))
    }

    /// Reads a sequence that this engine, or one of the same model and numbers, has saved: what follows has the same bits
    /// as if it had never been away.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Snapshot, Error> {
        let path = path.as_ref();
        Snapshot::load(path, &Expected::by(self.model(), self.sequence())).map_err(at(path))
    }

    /// The sequence that an `MFLX` snapshot holds the states of; `tokens` are those that were read, which it doesn't say.
    /// See [`mflx`] for what is not checked, since the file says nothing of it.
    pub fn import_mflx(&self, bytes: &[u8], tokens: &[u32]) -> Result<Sequence, Error> {
        let vocab_size = self.model().vocab_size();
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { index, token: tokens[index], vocab_size });
        }
        let graph = self.model().graph(ONE_TOKEN)?;
        Ok(mflx::import(&graph, self.model().context_length(), self.sequence(), bytes, tokens)?)
    }

    /// The states of a sequence as an `MFLX` snapshot of version 2.
    pub fn export_mflx(&self, sequence: &Sequence) -> Result<Vec<u8>, Error> {
        if sequence.model() != self.model().id() {
            return Err(Error::ForeignSequence);
        }
        Ok(mflx::export(&self.model().graph(ONE_TOKEN)?, sequence)?)
    }
}

/// A graph of any shape tells the layers of a model.
const ONE_TOKEN: StepShape = StepShape { n_tokens: 1, n_outputs: 1 };

fn at(path: &Path) -> impl FnOnce(SnapshotError) -> Error {
    move |source| Error::Snapshot { path: path.to_owned(), source }
}
