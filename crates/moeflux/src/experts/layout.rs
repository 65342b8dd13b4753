//! Where experts lie: what the store reads of each, and how its matrices lie in what was read.

use moeflux_checkpoint::{Expert, Span};
use moeflux_experts::{LayerLayout, Layout, Lease, Piece};
use moeflux_kernels::{ExpertWeights, MatrixError};

use crate::graph::{NamedExperts, WeightTable, pieces};
use crate::model::Model;

/// Where a model's experts lie, layers numbered as in [`WeightTable::experts`].
pub fn layout(model: &Model) -> Layout {
    let (checkpoint, table) = (model.checkpoint(), model.weights());
    // A file of blocks holds one layer's experts and nothing else.
    let checksums = |experts: &[Expert]| {
        let file = experts.first()?.block()?.file;
        let known = checkpoint.expert_checksums(file)?;
        (known.len() == experts.len()).then(|| known.to_vec())
    };
    let piece = |Span { file, offset, len }: Span| Piece { file, offset, len };
    let layer = |named: &NamedExperts| LayerLayout {
        name: named.name.clone(),
        experts: named.experts.iter().map(|expert| pieces(expert).into_iter().map(piece).collect()).collect(),
        checksums: checksums(&named.experts),
    };
    Layout {
        files: checkpoint.files().iter().map(|file| file.path().to_owned()).collect(),
        layers: table.experts().iter().map(layer).collect(),
    }
}

/// An expert's matrices in the bytes of its lease.
pub(crate) fn weights<'a>(
    named: &'a NamedExperts,
    lease: &'a Lease,
) -> Result<ExpertWeights<'a>, MatrixError> {
    named.over(lease.expert(), |piece| lease.piece(piece))
}

/// Bytes that all experts take in the files, each range that several matrices share counted once.
pub(crate) fn bytes(table: &WeightTable) -> u64 {
    let experts = table.experts().iter().flat_map(|layer| &layer.experts);
    experts.flat_map(pieces).map(|span| span.len).sum()
}
