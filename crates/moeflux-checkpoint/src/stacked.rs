//! The experts of a mixture, each part of them at even distances in a file.

use crate::matrix::{Expert, ExpertBiases, Matrix};
use crate::tensor::Span;
use moeflux_kernels::Encoding;

/// One part of every expert: expert `e` has it at `offset + e * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strided {
    pub(crate) file: u32,
    pub(crate) offset: u64,
    pub(crate) stride: u64,
}

/// What a matrix is, wherever its parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixKind {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) encoding: Encoding,
}

impl MatrixKind {
    pub(crate) fn of(matrix: &Matrix) -> Self {
        MatrixKind { rows: matrix.rows, cols: matrix.cols, encoding: matrix.encoding }
    }

    /// Bytes of codes, scales and biases; `None` if the numbers overflow or a row is no whole number of groups.
    pub(crate) fn part_bytes(&self) -> Option<[u64; 3]> {
        // A row of no more than this many columns is far from overflowing in any encoding.
        if self.cols > 1 << 32 || !self.cols.is_multiple_of(self.encoding.group()) {
            return None;
        }
        Some(self.encoding.part_bytes(self.rows, self.cols)?.map(|bytes| bytes as u64))
    }
}

/// One matrix of every expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StackedMatrix {
    pub(crate) kind: MatrixKind,
    /// Codes, scales and biases; parts that the encoding lacks are not read.
    pub(crate) parts: [Strided; 3],
}

impl StackedMatrix {
    fn expert(&self, name: &str, index: usize) -> Matrix {
        let MatrixKind { rows, cols, encoding } = self.kind;
        let row = encoding.row_bytes(cols);
        let part = |part: usize, bytes: usize| Span {
            file: self.parts[part].file,
            offset: self.parts[part].offset + index as u64 * self.parts[part].stride,
            len: bytes as u64,
        };
        let optional = |index: usize, bytes: usize| (bytes > 0).then(|| part(index, bytes));
        Matrix {
            name: name.to_owned(),
            rows,
            cols,
            encoding,
            runs: None,
            codes: part(0, rows * row.codes),
            scales: optional(1, encoding.scale_rows(rows) * row.scales),
            biases: optional(2, encoding.bias_rows(rows) * row.biases),
            groups: None,
        }
    }
}

/// The experts of one mixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StackedExperts {
    pub(crate) count: usize,
    pub(crate) gate: StackedMatrix,
    pub(crate) up: StackedMatrix,
    pub(crate) down: StackedMatrix,
    /// Biases of gate, up and down, each one column.
    pub(crate) biases: Option<[StackedMatrix; 3]>,
}

impl StackedExperts {
    /// `[experts, intermediate, hidden]`
    pub(crate) fn shape(&self) -> [usize; 3] {
        [self.count, self.gate.kind.rows, self.gate.kind.cols]
    }

    /// All of them, in order; errors call them `name`.
    pub(crate) fn experts(&self, name: &str) -> Vec<Expert> {
        let expert = |index| Expert {
            gate: self.gate.expert(name, index),
            up: self.up.expert(name, index),
            down: self.down.expert(name, index),
            biases: self.biases.as_ref().map(|[gate, up, down]| ExpertBiases {
                gate: gate.expert(name, index),
                up: up.expert(name, index),
                down: down.expert(name, index),
            }),
        };
        (0..self.count).map(expert).collect()
    }
}

/// One block of bytes that holds an expert: gate, up, down and then their biases if it has them, each as codes, scales
/// and biases, each part aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockLayout {
    matrices: Vec<(MatrixKind, [u64; 3])>,
    len: u64,
}

impl BlockLayout {
    /// Places the parts of three matrices, or of six; `None` if the numbers overflow or shapes do not belong together.
    pub(crate) fn new(kinds: &[MatrixKind], align: u64) -> Option<Self> {
        let [gate, up, down, biases @ ..] = kinds else { return None };
        let fits = (up.rows, up.cols, down.rows, down.cols) == (gate.rows, gate.cols, gate.cols, gate.rows);
        let bias_fits = |bias: &MatrixKind, rows: usize| {
            (bias.rows, bias.cols) == (rows, 1) && matches!(bias.encoding, Encoding::Float(_))
        };
        let biases_fit = match biases {
            [] => true,
            [g, u, d] => bias_fits(g, gate.rows) && bias_fits(u, gate.rows) && bias_fits(d, down.rows),
            _ => false,
        };
        if !fits || !biases_fit || gate.rows == 0 || gate.cols == 0 {
            return None;
        }
        let mut len = 0u64;
        let mut matrices = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let mut offsets = [0; 3];
            for (offset, bytes) in offsets.iter_mut().zip(kind.part_bytes()?) {
                *offset = len.checked_next_multiple_of(align)?;
                len = offset.checked_add(bytes)?;
            }
            matrices.push((*kind, offsets));
        }
        Some(BlockLayout { matrices, len })
    }

    /// Bytes from the start of the block to the end of its last part.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Each matrix with the places of its parts in the block.
    pub(crate) fn matrices(&self) -> &[(MatrixKind, [u64; 3])] {
        &self.matrices
    }

    /// `count` such blocks, `stride` bytes apart from the start of a file on. That the last one ends in 64 bits is for
    /// the caller to check.
    pub(crate) fn stack(&self, file: u32, count: usize, stride: u64) -> StackedExperts {
        let mut matrices = self.matrices.iter().map(|&(kind, offsets)| StackedMatrix {
            kind,
            parts: offsets.map(|offset| Strided { file, offset, stride }),
        });
        let mut next = || matrices.next();
        match (next(), next(), next(), next(), next(), next()) {
            (Some(gate), Some(up), Some(down), g, u, d) => {
                let biases = g.zip(u).zip(d).map(|((gate, up), down)| [gate, up, down]);
                StackedExperts { count, gate, up, down, biases }
            }
            _ => unreachable!("a block has three matrices or six"),
        }
    }
}
