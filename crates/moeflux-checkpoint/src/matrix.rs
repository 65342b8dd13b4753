//! The weight of a linear map: where its parts lie and how they are encoded.

use crate::tensor::Span;
use moeflux_kernels::Encoding;

/// A linear map's weight, `[rows, cols]`: a checked description of bytes in the checkpoint's files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matrix {
    /// The tensor's name in the file; several matrices can be slices of one tensor.
    pub name: String,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How the rows are encoded.
    pub encoding: Encoding,
    /// The codes, or the floats themselves.
    pub codes: Span,
    /// The scales, if the encoding has any.
    pub scales: Option<Span>,
    /// The biases, if the encoding has any.
    pub biases: Option<Span>,
}

impl Matrix {
    /// Bytes of all parts together.
    pub fn bytes(&self) -> u64 {
        [Some(self.codes), self.scales, self.biases].into_iter().flatten().map(|span| span.len).sum()
    }

    /// `count` rows from row `first` on, which the matrix must have.
    pub(crate) fn slice(&self, first: usize, count: usize) -> Matrix {
        let row = self.encoding.row_bytes(self.cols);
        let part = |span: Span, row_bytes: usize| Span {
            offset: span.offset + (first * row_bytes) as u64,
            len: (count * row_bytes) as u64,
            ..span
        };
        Matrix {
            name: self.name.clone(),
            rows: count,
            codes: part(self.codes, row.codes),
            scales: self.scales.map(|span| part(span, row.scales)),
            biases: self.biases.map(|span| part(span, row.biases)),
            ..*self
        }
    }
}

/// One expert of a mixture: `down(silu(gate x) * up x)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expert {
    /// `[intermediate, hidden]`
    pub gate: Matrix,
    /// `[intermediate, hidden]`
    pub up: Matrix,
    /// `[hidden, intermediate]`
    pub down: Matrix,
}
