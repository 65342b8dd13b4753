//! A matrix in some encoding, borrowed from wherever its bytes lie.

use crate::encoding::{Encoding, RowBytes};

/// Rows of weights, `[rows, cols]`, row-major. The bytes need no alignment.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    rows: usize,
    cols: usize,
    encoding: Encoding,
    row_bytes: RowBytes,
    codes: &'a [u8],
    scales: &'a [u8],
    biases: &'a [u8],
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
        if !cols.is_multiple_of(encoding.group()) {
            return Err(MatrixError::Group { cols, group: encoding.group(), encoding });
        }
        let row_bytes = encoding.row_bytes(cols);
        let parts = [
            ("codes", row_bytes.codes, codes.len()),
            ("scales", row_bytes.scales, scales.len()),
            ("biases", row_bytes.biases, biases.len()),
        ];
        for (part, bytes, found) in parts {
            let expected = rows * bytes;
            if expected != found {
                return Err(MatrixError::Length { part, rows, cols, encoding, expected, found });
            }
        }
        Ok(Matrix { rows, cols, encoding, row_bytes, codes, scales, biases })
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

    /// Bytes of all parts together.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.scales.len() + self.biases.len()
    }

    /// The three parts of one row: codes, scales, biases.
    pub fn row(&self, row: usize) -> (&'a [u8], &'a [u8], &'a [u8]) {
        let part = |bytes: &'a [u8], len: usize| &bytes[row * len..(row + 1) * len];
        let RowBytes { codes, scales, biases } = self.row_bytes;
        (part(self.codes, codes), part(self.scales, scales), part(self.biases, biases))
    }
}
