//! What a store reads of an expert, and where the expert's matrices lie in what was read.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::OnceLock;

use moeflux_checkpoint::{Checkpoint, Expert, ExpertBiases, Matrix, Span};
use moeflux_kernels::{self as kernels, ExpertWeights, MatrixError};

/// A layer's experts and their place in the model.
#[derive(Clone, Debug)]
pub struct NamedExperts {
    /// Canonical name, such as `layers.3.mlp.experts`.
    pub name: String,
    /// By expert index.
    pub experts: Vec<Expert>,
    /// By expert index; made when a store first brings one.
    parts: OnceLock<Vec<ExpertParts>>,
}

/// Codes, scales and biases of each matrix of an expert, in the order of [`Expert::matrices`].
type ExpertParts = Vec<[Part; 3]>;

/// Where a part of a matrix lies: the number of the piece that was read, and the range in it. The range is empty if the matrix
/// has no such part.
#[derive(Clone, Debug, Default)]
struct Part {
    piece: usize,
    range: Range<usize>,
}

impl NamedExperts {
    pub(crate) fn new(name: String, experts: Vec<Expert>) -> Self {
        NamedExperts { name, experts, parts: OnceLock::new() }
    }

    /// The matrices of one expert, borrowed from the checkpoint.
    pub(super) fn mapped<'a>(&'a self, checkpoint: &'a Checkpoint, expert: u32) -> ExpertWeights<'a> {
        let view = |matrix| Ok::<_, Infallible>(checkpoint.view(matrix));
        let Ok(weights) = expert_weights(&self.experts[expert as usize], view);
        weights
    }

    /// The matrices of one expert in the bytes of its [pieces](pieces). Fails if these are not as long as the matrices need.
    pub(crate) fn over<'a>(
        &'a self,
        expert: u32,
        piece: impl Fn(usize) -> &'a [u8],
    ) -> Result<ExpertWeights<'a>, MatrixError> {
        let parts = self.parts.get_or_init(|| self.experts.iter().map(parts).collect());
        let mut parts = parts[expert as usize].iter();
        expert_weights(&self.experts[expert as usize], |matrix| {
            let [codes, scales, biases] = parts.next().map_or([&[][..]; 3], |parts| {
                parts.each_ref().map(|part| piece(part.piece).get(part.range.clone()).unwrap_or_default())
            });
            matrix.over(codes, scales, biases)
        })
    }
}

/// What is read of an expert: the block that holds all of it, or else each range that a part of a matrix lies in, once:
/// interleaved matrices share theirs.
pub(crate) fn pieces(expert: &Expert) -> Vec<Span> {
    if let Some(block) = expert.block() {
        return vec![block];
    }
    let mut pieces = Vec::with_capacity(9);
    for span in expert.matrices().flat_map(|(_, matrix)| matrix.spans()) {
        if !pieces.contains(&span) {
            pieces.push(span);
        }
    }
    pieces
}

fn parts(expert: &Expert) -> ExpertParts {
    let pieces = pieces(expert);
    let part = |span: Option<Span>| {
        let span = span?;
        let holds = |piece: &Span| {
            piece.file == span.file
                && piece.offset <= span.offset
                && span.offset + span.len <= piece.offset + piece.len
        };
        let piece = pieces.iter().position(holds)?;
        let start = (span.offset - pieces[piece].offset) as usize;
        Some(Part { piece, range: start..start + span.len as usize })
    };
    let of_matrix = |(_, matrix): (_, &Matrix)| {
        [Some(matrix.codes), matrix.scales, matrix.biases].map(|span| part(span).unwrap_or_default())
    };
    expert.matrices().map(of_matrix).collect()
}

/// An expert's matrices, each as `view` has it, which is called in the order of [`Expert::matrices`].
fn expert_weights<'a, E>(
    expert: &'a Expert,
    mut view: impl FnMut(&'a Matrix) -> Result<kernels::Matrix<'a>, E>,
) -> Result<ExpertWeights<'a>, E> {
    let (gate, up, down) = (view(&expert.gate)?, view(&expert.up)?, view(&expert.down)?);
    let biases = match &expert.biases {
        Some(ExpertBiases { gate, up, down }) => {
            Some(kernels::ExpertBiases { gate: view(gate)?, up: view(up)?, down: view(down)? })
        }
        None => None,
    };
    Ok(ExpertWeights { gate, up, down, biases })
}
