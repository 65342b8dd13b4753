//! Where experts lie: what the store reads of each, and how its matrices lie in what was read.

use moeflux_checkpoint::{Expert, ExpertBiases, Matrix, Span};
use moeflux_experts::{LayerLayout, Layout, Lease, Piece};
use moeflux_kernels::{self as kernels, ExpertWeights};

use crate::graph::{NamedExperts, WeightTable};
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
        experts: named.experts.iter().map(|expert| spans(expert).into_iter().map(piece).collect()).collect(),
        checksums: checksums(&named.experts),
    };
    Layout {
        files: checkpoint.files().iter().map(|file| file.path().to_owned()).collect(),
        layers: table.experts().iter().map(layer).collect(),
    }
}

/// The expert's matrices in the bytes of its lease.
pub(crate) fn weights<'a>(expert: &'a Expert, lease: &'a Lease) -> ExpertWeights<'a> {
    let spans = spans(expert);
    let view = |matrix: &'a Matrix| view(matrix, &spans, lease);
    let biases = expert.biases.as_ref().map(|ExpertBiases { gate, up, down }| kernels::ExpertBiases {
        gate: view(gate),
        up: view(up),
        down: view(down),
    });
    ExpertWeights { gate: view(&expert.gate), up: view(&expert.up), down: view(&expert.down), biases }
}

/// Bytes that all experts take in the files, each range that several matrices share counted once.
pub(crate) fn bytes(table: &WeightTable) -> u64 {
    let experts = table.experts().iter().flat_map(|layer| &layer.experts);
    experts.flat_map(spans).map(|span| span.len).sum()
}

/// What is read of an expert: the block that holds all of it, or else each range that a part of a matrix lies in, once:
/// interleaved matrices share theirs.
fn spans(expert: &Expert) -> Vec<Span> {
    if let Some(block) = expert.block() {
        return vec![block];
    }
    let mut spans = Vec::with_capacity(9);
    for (_, matrix) in expert.matrices() {
        for span in matrix.spans() {
            if !spans.contains(&span) {
                spans.push(span);
            }
        }
    }
    spans
}

#[expect(
    clippy::expect_used,
    reason = "the spans are the matrix's own, and a lease has as many bytes as were asked for"
)]
fn view<'a>(matrix: &'a Matrix, spans: &[Span], lease: &'a Lease) -> kernels::Matrix<'a> {
    let part = |part: Option<Span>| {
        let Some(part) = part else { return &[][..] };
        let holds = |span: &Span| {
            span.file == part.file
                && span.offset <= part.offset
                && part.offset + part.len <= span.offset + span.len
        };
        let index = spans.iter().position(holds).expect("every part lies in a span");
        let start = (part.offset - spans[index].offset) as usize;
        &lease.piece(index)[start..start + part.len as usize]
    };
    matrix.over(part(Some(matrix.codes)), part(matrix.scales), part(matrix.biases)).expect("a checked matrix")
}
