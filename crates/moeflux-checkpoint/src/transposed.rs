//! A stack of matrices that a file holds with each column in one piece, as transformers saves the experts of gpt-oss:
//! `x·W` where everything here computes `W·x`.
//!
//! A product would read such a matrix in strides, so its rows are put in order: for inference all of a tensor when it is
//! first read, in memory; for a conversion piece by piece.

use crate::files::Map;
use crate::tensor::Span;
use std::sync::{Arc, OnceLock};

/// A tensor `[count, cols, rows]`, read as `[count, rows, cols]`.
#[derive(Debug)]
pub(crate) struct Transposed {
    source: Arc<Map>,
    /// Where it lies in the source.
    span: Span,
    rows: usize,
    cols: usize,
    /// Bytes of an element.
    element: usize,
    copy: OnceLock<Vec<u8>>,
}

impl Transposed {
    /// The tensor at `span` of the source.
    pub(crate) fn new(source: Arc<Map>, span: Span, [rows, cols]: [usize; 2], element: usize) -> Self {
        Transposed { source, span, rows, cols, element, copy: OnceLock::new() }
    }

    /// Bytes of the tensor.
    pub(crate) fn len(&self) -> u64 {
        self.span.len
    }

    /// All rows, one behind the other; made at the first call.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.copy.get_or_init(|| {
            let mut copy = vec![0; self.span.len as usize];
            self.read(0, &mut copy);
            copy
        })
    }

    /// Bytes of the rows from `offset` on; it and the length are whole elements.
    ///
    /// # Panics
    ///
    /// If they are not, or do not lie in the tensor.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        let Transposed { rows, cols, element, .. } = *self;
        let start = self.span.offset as usize;
        let source = &self.source[start..start + self.span.len as usize];
        let (first, count) = (offset as usize / element, out.len() / element);
        assert!((offset as usize).is_multiple_of(element) && out.len().is_multiple_of(element));
        // Rows of one matrix at a time, so that neighbouring ones take from the same lines of the source.
        let matrix = rows * cols;
        let mut done = 0;
        while done < count {
            let at = first + done;
            let (index, inside) = (at / matrix, at % matrix);
            let n = (matrix - inside).min(count - done);
            let source = &source[index * matrix * element..(index + 1) * matrix * element];
            let out = &mut out[done * element..(done + n) * element];
            transpose(source, out, inside, Shape { rows, cols, element });
            done += n;
        }
    }
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    cols: usize,
    element: usize,
}

/// Elements of a matrix from `first` on, counted row by row, of a source that holds it column by column.
fn transpose(source: &[u8], out: &mut [u8], first: usize, Shape { rows, cols, element }: Shape) {
    /// Rows whose elements of a column are copied together.
    const BLOCK: usize = 64;
    let count = out.len() / element;
    let (first_row, last_row) = (first / cols, (first + count).div_ceil(cols));
    for block in (first_row..last_row).step_by(BLOCK) {
        for col in 0..cols {
            for row in block..last_row.min(block + BLOCK) {
                let Some(at) = (row * cols + col).checked_sub(first).filter(|&at| at < count) else {
                    continue;
                };
                let from = (col * rows + row) * element;
                out[at * element..(at + 1) * element].copy_from_slice(&source[from..from + element]);
            }
        }
    }
}
