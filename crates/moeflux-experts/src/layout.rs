//! Where experts lie in files: all that a store is told of a model.

use std::path::PathBuf;

/// The experts of a model and the files that hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The files, in the order in which [`Piece::file`] counts them.
    pub files: Vec<PathBuf>,
    /// The mixtures, in the order in which a model runs them.
    pub layers: Vec<LayerLayout>,
}

/// The experts of one mixture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerLayout {
    /// What errors call it, such as `layers.3.mlp.experts`.
    pub name: String,
    /// The pieces of each expert, in the order in which a lease gives them.
    pub experts: Vec<Vec<Piece>>,
    /// XXH3 (64 bits) of each expert, if known: of the file's bytes from the start of the expert's first piece to the
    /// end of its last. Only for experts that lie in one stretch; [`StoreOptions::verify`](crate::StoreOptions::verify)
    /// compares them.
    pub checksums: Option<Vec<u64>>,
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which of [`Layout::files`].
    pub file: u32,
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}
