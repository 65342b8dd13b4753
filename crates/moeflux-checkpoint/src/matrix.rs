//! The weight of a linear map: where its parts lie and how they are encoded.

use crate::pack::manifest::ALIGNMENT;
use crate::tensor::Span;
use moeflux_kernels::{Encoding, MatrixError, RowRuns};
use std::sync::Arc;

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
    /// If not all rows that lie in the spans are the matrix's: those that are.
    pub runs: Option<RowRuns>,
    /// The codes, or the floats themselves.
    pub codes: Span,
    /// The scales, if the encoding has any.
    pub scales: Option<Span>,
    /// The biases, if the encoding has any, or what lies in their place.
    pub biases: Option<Span>,
    /// The group of each column where columns are not in the order of their groups, as GPTQ's order of activations has it.
    pub groups: Option<Arc<[u16]>>,
}

impl Matrix {
    /// Bytes of all parts of its rows together.
    pub fn bytes(&self) -> u64 {
        let parts = self.encoding.part_bytes(self.rows, self.cols);
        parts.map_or(0, |parts| parts.iter().sum::<usize>() as u64)
    }

    /// Where its parts lie: codes, and what else the encoding has.
    pub fn spans(&self) -> impl Iterator<Item = Span> + use<> {
        [Some(self.codes), self.scales, self.biases].into_iter().flatten()
    }

    /// Number of its weights.
    pub fn parameters(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }

    /// The matrix over copies of its spans' bytes, as the kernels take it; empty slices for parts that it lacks.
    pub fn over<'a>(
        &'a self,
        codes: &'a [u8],
        scales: &'a [u8],
        biases: &'a [u8],
    ) -> Result<moeflux_kernels::Matrix<'a>, MatrixError> {
        let stored = moeflux_kernels::Matrix::new(
            self.stored_rows(),
            self.cols,
            self.encoding,
            codes,
            scales,
            biases,
        )?;
        let stored = match &self.groups {
            Some(groups) => stored.with_groups(groups),
            None => stored,
        };
        Ok(self.runs.map_or(stored, |runs| stored.row_runs(runs)))
    }

    /// Rows in the spans, those included that are not the matrix's.
    pub(crate) fn stored_rows(&self) -> usize {
        self.stored(self.rows)
    }

    /// How many rows of the spans the first `rows` rows, whole runs, lie in.
    fn stored(&self, rows: usize) -> usize {
        self.runs.map_or(rows, |runs| rows / runs.len * runs.period)
    }

    /// The rows in the runs; the matrix must have whole periods and not be a selection itself.
    pub(crate) fn row_runs(&self, runs: RowRuns) -> Matrix {
        Matrix { rows: runs.rows(self.rows), runs: Some(runs), ..self.clone() }
    }

    /// `count` rows from row `first` on, which the matrix must have; both whole runs, if it is a selection. No two rows
    /// may share scales.
    pub(crate) fn slice(&self, first: usize, count: usize) -> Matrix {
        debug_assert!(self.encoding == self.encoding.by_row());
        let row = self.encoding.row_bytes(self.cols);
        // Of a stack with a scale for each matrix, one of them.
        let scale_of = |span: Span| Span { offset: span.offset + 4 * (first / count) as u64, len: 4, ..span };
        let part = |span: Span, row_bytes: usize| Span {
            offset: span.offset + (self.stored(first) * row_bytes) as u64,
            len: (self.stored(count) * row_bytes) as u64,
            ..span
        };
        Matrix {
            name: self.name.clone(),
            rows: count,
            codes: part(self.codes, row.codes),
            scales: self.scales.map(|span| part(span, row.scales)),
            biases: self.biases.map(|span| match self.encoding {
                Encoding::GgmlScaled(_) => scale_of(span),
                _ => part(span, row.biases),
            }),
            groups: None,
            ..*self
        }
    }
}

/// One expert of a mixture: `down(act(gate x, up x))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expert {
    /// `[intermediate, hidden]`
    pub gate: Matrix,
    /// `[intermediate, hidden]`
    pub up: Matrix,
    /// `[hidden, intermediate]`
    pub down: Matrix,
    /// What is added to the products, if anything.
    pub biases: Option<ExpertBiases>,
}

impl Expert {
    /// Its matrices by name, in the order in which blocks hold them: `gate`, `up`, `down`, and `gate_bias` and so on if
    /// it has biases.
    pub fn matrices(&self) -> impl Iterator<Item = (&'static str, &Matrix)> {
        let biases = self.biases.iter().flat_map(|ExpertBiases { gate, up, down }| {
            [("gate_bias", gate), ("up_bias", up), ("down_bias", down)]
        });
        [("gate", &self.gate), ("up", &self.up), ("down", &self.down)].into_iter().chain(biases)
    }

    /// Bytes of all its matrices.
    pub fn bytes(&self) -> u64 {
        self.matrices().map(|(_, matrix)| matrix.bytes()).sum()
    }

    /// Number of its weights, biases included.
    pub fn parameters(&self) -> u64 {
        self.matrices().map(|(_, matrix)| matrix.parameters()).sum()
    }

    /// The range that holds all of it, if its parts lie behind one another with nothing between them but what aligns
    /// them: then it is one read. In a pack the range starts at a multiple of the page size.
    pub fn block(&self) -> Option<Span> {
        let mut block: Option<Span> = None;
        for (_, matrix) in self.matrices() {
            for span in matrix.spans() {
                let start = block.map_or(span.offset, |block| block.offset);
                let end = block.map_or(start, |block| block.offset + block.len);
                let follows = block.is_none_or(|block| block.file == span.file);
                if !follows || matrix.runs.is_some() || !(end..end + ALIGNMENT).contains(&span.offset) {
                    return None;
                }
                block = Some(Span { file: span.file, offset: start, len: span.offset + span.len - start });
            }
        }
        block
    }
}

/// The biases of an expert, each a column of floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertBiases {
    /// `[intermediate, 1]`
    pub gate: Matrix,
    /// `[intermediate, 1]`
    pub up: Matrix,
    /// `[hidden, 1]`
    pub down: Matrix,
}
