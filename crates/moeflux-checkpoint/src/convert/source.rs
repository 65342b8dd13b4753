//! Rows of a checkpoint's matrices, read and encoded anew.
//!
//! Files are read, not mapped: reading is faster for what is read once, keeps resident memory small, and a disk's error
//! is an error rather than a signal.

use super::Error;
use crate::checkpoint::Checkpoint;
use crate::files::Derived;
use crate::matrix::Matrix;
use crate::tensor::Span;
use moeflux_kernels::{Encoding, QuantizeError, quantize_row};
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of rows that are held at once.
pub(crate) const PIECE: usize = 4 << 20;

/// A checkpoint's files, open for reading.
pub(crate) struct Source {
    files: Vec<(PathBuf, Opened)>,
}

enum Opened {
    File(File),
    /// A tensor that is brought into another form as it is read.
    Derived(Arc<Derived>),
}

/// Space that encoding works in, kept from one matrix to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    /// Scales as they lie in the file, where rows share them.
    shared: Vec<u8>,
    row: Vec<f32>,
}

impl Source {
    /// Opens the checkpoint's files anew.
    pub(crate) fn open(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let open = |file: &crate::File| {
            let path = file.path().to_owned();
            let opened = match file.derived() {
                Some(tensor) => Opened::Derived(tensor.clone()),
                None => Opened::File(File::open(&path).map_err(Error::io(&path))?),
            };
            Ok((path, opened))
        };
        Ok(Source { files: checkpoint.files().iter().map(open).collect::<Result<_, Error>>()? })
    }

    /// Reads bytes of a file.
    pub(crate) fn read(&self, file: u32, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        match &self.files[file as usize] {
            (path, Opened::File(file)) => read_at(file, offset, out).map_err(Error::io(path)),
            (_, Opened::Derived(tensor)) => {
                tensor.read(offset, out);
                Ok(())
            }
        }
    }

    /// Writes rows of a matrix, in another encoding or in its own, to codes, scales and biases.
    #[expect(clippy::expect_used, reason = "lengths were checked when the matrix was made")]
    pub(crate) fn encode(
        &self,
        matrix: &Matrix,
        rows: Range<usize>,
        encoding: Encoding,
        out: [&mut [u8]; 3],
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let is_copy = encoding == matrix.encoding;
        let apart = matrix.encoding.has_rows_apart();
        if is_copy && matrix.runs.is_none() {
            assert!(apart || rows == (0..matrix.rows), "some of the rows that lie together");
            return self.read_parts(matrix, rows, out);
        }
        assert!(!is_copy || apart && encoding == encoding.by_row(), "some of the rows that share scales");
        let is_repack = matrix.groups.is_none() && matrix.encoding.repacked() == Some(encoding);
        let [codes, scales, biases] = out;
        let bytes = encoding.row_bytes(matrix.cols);
        let piece = piece_rows(matrix);
        scratch.row.resize(matrix.cols, 0.0);
        let mut parts = codes
            .chunks_exact_mut(bytes.codes.max(1))
            .zip(chunks_or_none(scales, bytes.scales))
            .zip(chunks_or_none(biases, bytes.biases));
        for start in rows.clone().step_by(piece) {
            let rows = start..rows.end.min(start + piece);
            let stored = if apart { stored_rows(matrix, &rows) } else { 0..matrix.stored_rows() };
            let whole = Matrix { runs: None, name: String::new(), groups: None, ..*matrix };
            let row = matrix.encoding.row_bytes(matrix.cols);
            let count = stored.len();
            scratch.codes.resize(count * row.codes, 0);
            scratch.scales.resize(count * row.scales, 0);
            scratch.biases.resize(matrix.encoding.bias_rows(count) * row.biases, 0);
            let Scratch { codes, scales, biases, shared, row: values } = scratch;
            if matrix.encoding == matrix.encoding.by_row() {
                self.read_parts(&whole, stored.clone(), [codes, scales, biases])?;
            } else {
                shared.resize(scale_rows(matrix, &stored).len() * row.scales, 0);
                self.read_parts(&whole, stored.clone(), [codes, shared, biases])?;
                let first = matrix.encoding.scale_row(stored.start);
                for (row_scales, stored_row) in scales.chunks_exact_mut(row.scales).zip(stored.clone()) {
                    let at = (matrix.encoding.scale_row(stored_row) - first) * row.scales;
                    row_scales.copy_from_slice(&shared[at..at + row.scales]);
                }
            }
            let by_row = matrix.encoding.by_row();
            let view = moeflux_kernels::Matrix::new(count, matrix.cols, by_row, codes, scales, biases)
                .expect("a checked matrix");
            let view = matrix.groups.as_deref().map_or(view, |groups| view.with_groups(groups));
            for row in rows {
                let Some(((codes, scales), biases)) = parts.next() else { break };
                let index = matrix.runs.map_or(row, |runs| runs.row(row)) - stored.start;
                if is_copy {
                    let (from_codes, from_scales, from_biases) = view.row(index);
                    codes.copy_from_slice(from_codes);
                    scales.copy_from_slice(from_scales);
                    biases.copy_from_slice(from_biases);
                } else if is_repack {
                    view.repack_row(index, codes, scales, biases);
                } else {
                    view.dequantize_row(index, values);
                    quantize_row(encoding, values, codes, scales, biases).map_err(|error| match error {
                        QuantizeError::NotFinite { column } => {
                            Error::NotFinite { tensor: matrix.name.clone(), row, column }
                        }
                        QuantizeError::Unsupported { .. } => unreachable!("no target is one of those"),
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Reads stored rows of a matrix, and the rows of scales that serve them, as they lie.
    fn read_parts(&self, matrix: &Matrix, rows: Range<usize>, out: [&mut [u8]; 3]) -> Result<(), Error> {
        let row = matrix.encoding.row_bytes(matrix.cols);
        let parts = [
            (Some(matrix.codes), rows.start, row.codes),
            (matrix.scales, scale_rows(matrix, &rows).start, row.scales),
            (matrix.biases, rows.start, row.biases),
        ];
        for ((span, first, bytes), out) in parts.into_iter().zip(out) {
            if let Some(Span { file, offset, .. }) = span {
                self.read(file, offset + (first * bytes) as u64, out)?;
            }
        }
        Ok(())
    }
}

/// Rows of a matrix that make a piece of about [`PIECE`] bytes.
pub(crate) fn piece_rows(matrix: &Matrix) -> usize {
    if !matrix.encoding.has_rows_apart() {
        return matrix.rows.max(1);
    }
    let row = matrix.encoding.row_bytes(matrix.cols);
    let spread = matrix.runs.map_or(1, |runs| runs.period.div_ceil(runs.len));
    (PIECE / (spread * (row.codes + row.scales + row.biases)).max(1)).max(1)
}

/// The stored rows among which rows of the matrix lie.
fn stored_rows(matrix: &Matrix, rows: &Range<usize>) -> Range<usize> {
    match matrix.runs {
        None => rows.clone(),
        Some(runs) => runs.row(rows.start)..runs.row(rows.end - 1) + 1,
    }
}

/// The rows of scales that serve stored rows.
fn scale_rows(matrix: &Matrix, stored: &Range<usize>) -> Range<usize> {
    let scale_row = |row: usize| matrix.encoding.scale_row(row);
    scale_row(stored.start)..stored.end.checked_sub(1).map_or(0, |last| scale_row(last) + 1)
}

/// Chunks of `len` bytes; without end empty ones if `len` is 0.
fn chunks_or_none(bytes: &mut [u8], len: usize) -> impl Iterator<Item = &mut [u8]> {
    let (chunks, none) = match len {
        0 => (Default::default(), usize::MAX),
        _ => (bytes, 0),
    };
    chunks.chunks_exact_mut(len.max(1)).chain(std::iter::repeat_with(|| &mut [][..]).take(none))
}

/// Fills `out` from a place in a file.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// Writes all bytes at a place in a file.
#[cfg(unix)]
pub(crate) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Fills `out` from a place in a file.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => (out, offset) = (&mut out[n..], offset + n as u64),
        }
    }
    Ok(())
}

/// Writes all bytes at a place in a file.
#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            n => (bytes, offset) = (&bytes[n..], offset + n as u64),
        }
    }
    Ok(())
}
