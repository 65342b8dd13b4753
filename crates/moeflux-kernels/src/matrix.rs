//! A matrix in some encoding, borrowed from wherever its bytes lie.

use crate::encoding::{Encoding, Packing, RowBytes};

/// Rows of weights, `[rows, cols]`, row-major. The bytes need no alignment.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    rows: usize,
    cols: usize,
    encoding: Encoding,
    row_bytes: RowBytes,
    runs: Option<RowRuns>,
    codes: &'a [u8],
    scales: &'a [u8],
    biases: &'a [u8],
    groups: Option<&'a [u16]>,
}

/// Some rows of a matrix as a matrix of their own: of every `period` rows the `len` from row `first` on. So rows that a
/// file interleaves are read where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRuns {
    /// Where each run begins in its period.
    pub first: usize,
    /// Rows of a run.
    pub len: usize,
    /// Rows from one run to the next, at least `first + len`.
    pub period: usize,
}

impl RowRuns {
    /// Rows taken from a matrix of `rows`, a multiple of the period.
    pub const fn rows(&self, rows: usize) -> usize {
        rows / self.period * self.len
    }

    /// The row that row `row` of the selection is.
    pub const fn row(&self, row: usize) -> usize {
        row / self.len * self.period + self.first + row % self.len
    }
}

/// The bytes given do not make the matrix described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// A part has another length than rows, columns and encoding imply.
    #[error("{part} of a [{rows}, {cols}] matrix in {encoding:?}: expected {expected} bytes, found {found}")]
    Length {
        /// `codes`, `scales` or `biases`.
        part: &'static str,
        /// Rows described.
        rows: usize,
        /// Columns described.
        cols: usize,
        /// Encoding described.
        encoding: Encoding,
        /// Bytes that the description implies.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The encoding is none that exists.
    #[error(
        "no such encoding: {encoding:?} (affine codes have 2, 3, 4, 5, 6 or 8 bits, groups 32, 64 or 128 columns; \
         blocks of fp8 have at least one row and column; symmetric codes have 2 to 8 bits, signed ones 8; packed codes \
         2 to 8, AWQ's 4, groups a multiple of 32 columns)"
    )]
    Encoding {
        /// Encoding described.
        encoding: Encoding,
    },
    /// Rows that are packed together are cut.
    #[error("{rows} rows are not a multiple of the 32 that {encoding:?} packs together")]
    Rows {
        /// Rows described.
        rows: usize,
        /// Encoding described.
        encoding: Encoding,
    },
    /// A row is not a whole number of groups.
    #[error("{cols} columns are not a multiple of the group of {group} that {encoding:?} needs")]
    Group {
        /// Columns described.
        cols: usize,
        /// Columns in a group.
        group: usize,
        /// Encoding described.
        encoding: Encoding,
    },
}

impl<'a> Matrix<'a> {
    /// A matrix over its three parts (empty slices for those that the encoding lacks).
    pub fn new(
        rows: usize,
        cols: usize,
        encoding: Encoding,
        codes: &'a [u8],
        scales: &'a [u8],
        biases: &'a [u8],
    ) -> Result<Self, MatrixError> {
        if !exists(encoding) {
            return Err(MatrixError::Encoding { encoding });
        }
        if !cols.is_multiple_of(encoding.group()) {
            return Err(MatrixError::Group { cols, group: encoding.group(), encoding });
        }
        if matches!(encoding, Encoding::Packed { .. }) && !rows.is_multiple_of(32) {
            return Err(MatrixError::Rows { rows, encoding });
        }
        let row_bytes = encoding.row_bytes(cols);
        let parts = [
            ("codes", rows, row_bytes.codes, codes.len()),
            ("scales", encoding.scale_rows(rows), row_bytes.scales, scales.len()),
            ("biases", encoding.bias_rows(rows), row_bytes.biases, biases.len()),
        ];
        for (part, part_rows, bytes, found) in parts {
            let expected = part_rows.saturating_mul(bytes);
            if expected != found {
                return Err(MatrixError::Length { part, rows, cols, encoding, expected, found });
            }
        }
        Ok(Matrix { rows, cols, encoding, row_bytes, runs: None, codes, scales, biases, groups: None })
    }

    /// The same with the group of each column, of an encoding that is [`Packed`](Encoding::Packed): GPTQ's order of
    /// activations. There must be as many as columns, each below the number of groups.
    #[must_use]
    pub fn with_groups(self, groups: &'a [u16]) -> Self {
        assert!(matches!(self.encoding, Encoding::Packed { .. }));
        let count = self.cols / self.encoding.group();
        assert!(groups.len() == self.cols && groups.iter().all(|&group| usize::from(group) < count));
        Matrix { groups: Some(groups), ..self }
    }

    /// Those of the rows that lie in the runs. The matrix must not be a selection itself.
    #[must_use]
    pub fn row_runs(self, runs: RowRuns) -> Self {
        let RowRuns { first, len, period } = runs;
        assert!(self.runs.is_none() && len > 0 && first + len <= period && self.rows.is_multiple_of(period));
        Matrix { rows: runs.rows(self.rows), runs: Some(runs), ..self }
    }

    /// Number of rows: the outputs of a linear map.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: its inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the rows are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes of all parts of all rows together.
    pub fn bytes(&self) -> usize {
        self.encoding.part_bytes(self.rows, self.cols).map_or(0, |parts| parts.iter().sum())
    }

    /// The three parts of one row: codes, scales, biases.
    #[inline]
    pub fn row(&self, row: usize) -> (&'a [u8], &'a [u8], &'a [u8]) {
        (self.codes(row), self.scales(row), self.biases(row))
    }

    /// The codes of one row.
    #[inline]
    pub(crate) fn codes(&self, row: usize) -> &'a [u8] {
        part(self.codes, self.stored_row(row), self.row_bytes.codes)
    }

    /// The scales of one row.
    #[inline]
    pub(crate) fn scales(&self, row: usize) -> &'a [u8] {
        part(self.scales, self.encoding.scale_row(self.stored_row(row)), self.row_bytes.scales)
    }

    /// The biases of one row.
    #[inline]
    pub(crate) fn biases(&self, row: usize) -> &'a [u8] {
        part(self.biases, self.encoding.bias_row(self.stored_row(row)), self.row_bytes.biases)
    }

    /// Codes, scales and biases of all rows, and the group of each column if they are not in order.
    #[inline]
    pub(crate) fn parts(&self) -> ([&'a [u8]; 3], Option<&'a [u16]>) {
        ([self.codes, self.scales, self.biases], self.groups)
    }

    /// The codes, scales and biases of the `n` rows from `first` on, if they lie one after the other.
    #[inline]
    pub(crate) fn adjacent_rows(&self, first: usize, n: usize) -> Option<[&'a [u8]; 3]> {
        if !self.are_adjacent(first, n) || self.encoding.scale_row(1) == 0 || !self.encoding.has_rows_apart()
        {
            return None;
        }
        let first = self.stored_row(first);
        let RowBytes { codes, scales, biases } = self.row_bytes;
        let part = |bytes: &'a [u8], len: usize| bytes.get(first * len..(first + n) * len);
        Some([part(self.codes, codes)?, part(self.scales, scales)?, part(self.biases, biases)?])
    }

    /// Whether rows lie one after the other.
    #[inline]
    pub(crate) fn are_adjacent(&self, first: usize, n: usize) -> bool {
        self.runs.is_none_or(|runs| first % runs.len + n <= runs.len)
    }

    /// The row, among those that the parts have, that row `row` is.
    #[inline]
    pub(crate) fn stored_row(&self, row: usize) -> usize {
        self.runs.map_or(row, |runs| runs.row(row))
    }
}

/// Row `row` of those of `len` bytes.
#[inline]
fn part(bytes: &[u8], row: usize, len: usize) -> &[u8] {
    &bytes[row * len..(row + 1) * len]
}

/// Whether the numbers of an encoding are among those that are read.
fn exists(encoding: Encoding) -> bool {
    match encoding {
        Encoding::Affine { bits, group, .. } => matches!(bits, 2..=6 | 8) && matches!(group, 32 | 64 | 128),
        Encoding::Codebook { group, .. } => group > 0 && group.is_multiple_of(2),
        Encoding::Fp8 { block_rows, block_cols, .. } => block_rows > 0 && block_cols > 0,
        // Codes are read eight at a time.
        Encoding::Symmetric { bits, group, signed, .. } => {
            (2..=8).contains(&bits) && (bits == 8 || !signed) && group > 0 && group.is_multiple_of(8)
        }
        Encoding::Packed { bits, group, packing, .. } => {
            (2..=8).contains(&bits)
                && (bits == 4 || packing != Packing::Awq)
                && group > 0
                && group.is_multiple_of(32)
        }
        _ => true,
    }
}
