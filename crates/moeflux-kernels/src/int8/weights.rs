//! Sixteen rows of a matrix as the kernels read them: codes as bytes or halves of bytes, parameters by span.

use crate::dequant::e8m0;
use crate::encoding::Encoding;
use crate::ggml::Ggml;
use crate::instruction_set::multiversion;
use crate::int8::activations::PLANES;
use crate::matrix::Matrix;

/// Rows of a block.
pub(crate) const ROWS: usize = 16;

/// What an encoding is to the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Columns of a span: 16, 32 or 64.
    pub(crate) width: usize,
    /// What a code of 0 stands for.
    pub(crate) offset: Offset,
    /// Whether codes are below 16, so that 16 times one is a byte.
    pub(crate) is_narrow: bool,
    /// How many planes of the activations are multiplied: the high one, or both.
    pub(crate) planes: usize,
}

/// What a code of 0 stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offset {
    /// The bias of its span.
    Biases,
    /// Minus so many times the scale.
    Zero(i32),
}

impl Format {
    /// The format of a linear map, if its encoding has products with quantised activations.
    pub(crate) fn of_linear(w: &Matrix<'_>) -> Option<Self> {
        Format::of(w.encoding(), w.rows() >= MANY_ROWS)
    }

    /// The format of a matrix of an expert, if its encoding has such products.
    pub(crate) fn of_expert(w: &Matrix<'_>) -> Option<Self> {
        Format::of(w.encoding(), true)
    }

    /// The format of an encoding, of a matrix that costs much or one that doesn't.
    pub(crate) fn of(encoding: Encoding, costs_much: bool) -> Option<Self> {
        let (bits, width, offset) = match encoding {
            Encoding::Affine { bits, group, .. } => (bits, group.min(64), Offset::Biases),
            Encoding::Mxfp4 | Encoding::Ggml(Ggml::Mxfp4) => (5, 32, Offset::Zero(E2M1_ZERO)),
            Encoding::Ggml(Ggml::Q4_0) => (4, 32, Offset::Zero(8)),
            Encoding::Ggml(Ggml::Q8_0) => (8, 32, Offset::Zero(128)),
            Encoding::Ggml(Ggml::Q4K) => (4, 32, Offset::Biases),
            Encoding::Ggml(Ggml::Q6K) => (6, 16, Offset::Zero(32)),
            _ => return None,
        };
        let is_narrow = bits <= 4;
        let planes = if is_narrow && costs_much { 1 } else { PLANES };
        Some(Format { width, offset, is_narrow, planes })
    }
}

/// Rows from which on a linear map costs much.
const MANY_ROWS: usize = 2048;

/// The code of 0 among those of [`E2M1`].
const E2M1_ZERO: i32 = 12;
/// Twice the value of each e2m1 code, plus [`E2M1_ZERO`].
pub(crate) const E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// How a block's codes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codes {
    /// One a byte, by column.
    Bytes,
    /// Two a byte, the even column in the lower half.
    Nibbles,
    /// As [`Nibbles`](Self::Nibbles); a code stands for its entry of [`E2M1`].
    E2m1,
}

/// A value for each row of a block: a line of the cache.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct ByRow(pub(crate) [f32; ROWS]);

/// 64 codes: a line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

impl Line {
    pub(crate) const ZERO: Line = Line([0; 64]);
}

/// Memory for a block that lasts.
#[derive(Debug, Default)]
pub(crate) struct BlockScratch {
    codes: Vec<Line>,
    parameters: Parameters,
}

#[derive(Debug, Default)]
struct Parameters {
    by_row: Vec<f32>,
    scales: Vec<ByRow>,
    biases: Vec<ByRow>,
}

impl Parameters {
    /// Scales and biases of each span, by row.
    fn load<'a>(
        &mut self,
        w: &Matrix<'a>,
        format: Format,
        row: impl Fn(usize) -> usize,
        in_place: &[&[u8]; ROWS],
        adjacent: Option<[&[u8]; 3]>,
        next: usize,
    ) -> (&[ByRow], &[ByRow]) {
        let spans = w.cols() / format.width;
        let Parameters { by_row, scales, biases } = self;
        scales.resize(spans, ByRow::default());
        biases.resize(if format.offset == Offset::Biases { spans } else { 0 }, ByRow::default());
        if let Encoding::Affine { group, params, .. } = w.encoding() {
            let repeat = group / format.width;
            let load = |part: usize, of_row: &dyn Fn(usize) -> &'a [u8], out: &mut [ByRow]| {
                if let Some(values) = adjacent.map(|parts| parts[part])
                    && super::adjacent_parameters(params, values, repeat, out)
                {
                    return prefetch_after(values, values.len() / ROWS * next);
                }
                let values: [&[u8]; ROWS] = std::array::from_fn(|i| of_row(row(i)));
                let ahead = ahead(&values, next);
                for row in values {
                    prefetch_after(row, ahead);
                }
                super::parameters(params, &values, repeat, out);
            };
            load(1, &|row| w.scales(row), scales);
            load(2, &|row| w.biases(row), biases);
        } else {
            by_row.resize(ROWS * spans, 0.0);
            for (part, out) in [(Part::Scales, &mut *scales), (Part::Biases, &mut *biases)] {
                if !out.is_empty() {
                    for (i, values) in by_row.chunks_exact_mut(spans).enumerate() {
                        parameters(w.encoding(), in_place[i], w.scales(row(i)), part, values);
                    }
                    super::transpose(by_row, out);
                }
            }
        }
        (scales, biases)
    }
}

/// Sixteen rows. Where the matrix has fewer, the rest is anything.
pub(crate) struct Block<'a> {
    pub(crate) format: Format,
    pub(crate) cols: usize,
    pub(crate) codes: Codes,
    /// Each row's codes.
    pub(crate) rows: [&'a [u8]; ROWS],
    /// Scales of each span, by row.
    pub(crate) scales: &'a [ByRow],
    /// Biases of each span, by row; none if the format has none.
    pub(crate) biases: &'a [ByRow],
    /// The codes of the block that is loaded in this one's place next.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "the processor foresees what is read")
    )]
    pub(crate) next: Next,
}

impl<'a> Block<'a> {
    /// The rows from `first_row` on, `rows` of them, and `next` is how many rows further those are that will be loaded
    /// next. For `tiles` codes of 4 bits are plain.
    pub(crate) fn load(
        w: &Matrix<'a>,
        format: Format,
        first_row: usize,
        rows: usize,
        next: usize,
        tiles: bool,
        scratch: &'a mut BlockScratch,
    ) -> Self {
        let cols = w.cols();
        let row = |i: usize| first_row + i.min(rows - 1);
        let adjacent = if rows == ROWS { w.adjacent_rows(first_row, ROWS) } else { None };
        let in_place: [&[u8]; ROWS] = match adjacent {
            Some([codes, ..]) => rows_of(codes),
            None => std::array::from_fn(|i| w.codes(row(i))),
        };
        let BlockScratch { codes, parameters } = scratch;
        let (scales, biases) = parameters.load(w, format, row, &in_place, adjacent, next);

        let (codes, rows) = match w.encoding() {
            Encoding::Affine { bits: 8, .. } => (Codes::Bytes, in_place),
            Encoding::Affine { bits: 4, .. } => (Codes::Nibbles, in_place),
            Encoding::Mxfp4 if !tiles => (Codes::E2m1, in_place),
            encoding => {
                // A line more, or all rows would compete for the same sets of the cache.
                let lines = cols.div_ceil(64) + 1;
                codes.resize(ROWS * lines, Line::ZERO);
                for (out, codes) in codes.chunks_exact_mut(lines).zip(&in_place[..rows]) {
                    super::unpack(encoding, codes, &mut bytes_mut(out)[..cols]);
                }
                let codes = &codes[..];
                (Codes::Bytes, std::array::from_fn(|i| &bytes(&codes[i * lines..][..lines])[..cols]))
            }
        };
        Block { format, cols, codes, rows, scales, biases, next: Next::new(&in_place, next) }
    }

    /// The code of a column, before the format's offset.
    #[inline(always)]
    pub(crate) fn code(&self, row: usize, col: usize) -> u8 {
        let nibble = || self.rows[row][col / 2] >> (col % 2 * 4) & 15;
        match self.codes {
            Codes::Bytes => self.rows[row][col],
            Codes::Nibbles => nibble(),
            Codes::E2m1 => E2M1[usize::from(nibble())],
        }
    }
}

/// Sixteen rows of codes that will be read.
pub(crate) struct Next {
    first: *const u8,
    /// Bytes from a line to the one that is asked for after it, and from 16 lines to the next 16.
    steps: [usize; 2],
}

impl Next {
    /// The codes that lie `next` rows after these.
    fn new(rows: &[&[u8]; ROWS], next: usize) -> Self {
        let stride = (rows[1].as_ptr() as usize).wrapping_sub(rows[0].as_ptr() as usize);
        let in_order = stride == rows[0].len();
        Next {
            first: rows[0].as_ptr().wrapping_add(ahead(rows, next)),
            // In the order of memory the processor foresees what follows.
            steps: if in_order { [64, ROWS * 64] } else { [stride, 64] },
        }
    }

    /// Asks for line `line` of 16 number `sixteen`, of which there are as many as a row has lines.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "the processor foresees what is read")
    )]
    #[inline(always)]
    pub(crate) fn prefetch(&self, sixteen: usize, line: usize) {
        prefetch(self.first.wrapping_add(line * self.steps[0] + sixteen * self.steps[1]));
    }
}

/// Asks for what lies so many bytes after these: the parameters of the next block, which are read before its codes, and
/// are too short to be foreseen.
fn prefetch_after(values: &[u8], ahead: usize) {
    for at in (0..values.len()).step_by(64) {
        prefetch(values.as_ptr().wrapping_add(ahead + at));
    }
}

/// Sixteen rows that lie one after the other.
fn rows_of(codes: &[u8]) -> [&[u8]; ROWS] {
    // A loop, since closures for each element of an array are called one by one.
    let mut rows: [&[u8]; ROWS] = [&[]; ROWS];
    for (row, codes) in rows.iter_mut().zip(codes.chunks_exact((codes.len() / ROWS).max(1))) {
        *row = codes;
    }
    rows
}

/// How many bytes lie between rows that are `next` rows apart, where all rows are as far apart as these.
fn ahead(rows: &[&[u8]; ROWS], next: usize) -> usize {
    (rows[1].as_ptr() as usize).wrapping_sub(rows[0].as_ptr() as usize).wrapping_mul(next)
}

/// Asks for a line of memory.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has it, it reads nothing, and any address may be asked for.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

fn bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: lines are bytes without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

pub(crate) fn bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: lines are bytes without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Scales,
    Biases,
}

/// The scales or biases of a row's spans, of an encoding that keeps them otherwise than as floats.
fn parameters(encoding: Encoding, codes: &[u8], scales: &[u8], part: Part, out: &mut [f32]) {
    match encoding {
        Encoding::Mxfp4 => {
            for (out, &scale) in out.iter_mut().zip(scales) {
                *out = e8m0(scale) * 0.5;
            }
        }
        Encoding::Ggml(ggml) => ggml.span_parameters(codes, part == Part::Biases, out),
        _ => unreachable!("{encoding:?} has float parameters or no format"),
    }
}

multiversion! {
    /// A row's codes, one a byte.
    pub(crate) fn unpack(encoding: Encoding, codes: &[u8], out: &mut [u8]) {
        match encoding {
            Encoding::Affine { bits: 2, .. } => stream::<2>(codes, out),
            Encoding::Affine { bits: 3, .. } => stream::<3>(codes, out),
            Encoding::Affine { bits: 4, .. } => stream::<4>(codes, out),
            Encoding::Affine { bits: 5, .. } => stream::<5>(codes, out),
            Encoding::Affine { bits: 6, .. } => stream::<6>(codes, out),
            Encoding::Affine { bits: 8, .. } => out.copy_from_slice(codes),
            Encoding::Mxfp4 => {
                stream::<4>(codes, out);
                for code in out {
                    *code = E2M1[usize::from(*code)];
                }
            }
            Encoding::Ggml(ggml) => ggml.span_codes(codes, out),
            _ => unreachable!("it is read in place or has no format"),
        }
    }
}

/// A little-endian stream of codes of `BITS` bits.
#[inline(always)]
fn stream<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    let mask = 0x0101_0101_0101_0101 * ((1 << BITS) - 1);
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        *out = spread::<BITS>(u64::from_le_bytes(word), mask).to_le_bytes();
    }
}

/// Eight codes of `BITS` bits, each into a byte: fields are halved and moved apart until there is one a byte.
#[inline(always)]
fn spread<const BITS: usize>(word: u64, mask: u64) -> u64 {
    let four = (1 << (4 * BITS)) - 1;
    let word = word & four | (word >> (4 * BITS) & four) << 32;
    let two = 0x0000_0001_0000_0001 * ((1 << (2 * BITS)) - 1);
    let word = word & two | (word >> (2 * BITS) & two) << 16;
    let one = 0x0001_0001_0001_0001 * ((1 << BITS) - 1);
    (word & one | (word >> BITS & one) << 8) & mask
}
