//! Sixteen rows of a matrix as the kernels read them: codes as bytes or halves of bytes, parameters by span.

use crate::dequant::{decode_floats, e8m0, unpack_stream};
use crate::encoding::Encoding;
use crate::ggml::{CODEBOOK_ZERO, FEW_BITS_ZERO, Ggml, IQ1_ZERO, IQ3_S_ZERO};
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
            Encoding::Symmetric { bits, group, .. } if group.is_multiple_of(16) => {
                let width =
                    if group.is_multiple_of(64) { 64 } else { 16 << u32::from(group.is_multiple_of(32)) };
                (bits, width, Offset::Zero(1 << (bits - 1)))
            }
            Encoding::Ggml(Ggml::Q4_0) => (4, 32, Offset::Zero(8)),
            Encoding::Ggml(Ggml::Q8_0) => (8, 32, Offset::Zero(128)),
            Encoding::Ggml(Ggml::Q4K) => (4, 32, Offset::Biases),
            Encoding::Ggml(Ggml::Q6K) => (6, 16, Offset::Zero(32)),
            Encoding::Ggml(Ggml::Iq2Xxs | Ggml::Iq3Xxs) => (7, 32, Offset::Zero(CODEBOOK_ZERO.into())),
            Encoding::Ggml(Ggml::Iq2Xs | Ggml::Iq2S) => (7, 16, Offset::Zero(CODEBOOK_ZERO.into())),
            Encoding::Ggml(Ggml::Iq3S) => (5, 32, Offset::Zero(IQ3_S_ZERO.into())),
            Encoding::Ggml(Ggml::Iq1S) => (5, 32, Offset::Zero(IQ1_ZERO.into())),
            Encoding::Ggml(Ggml::Iq1M) => (5, 16, Offset::Zero(IQ1_ZERO.into())),
            Encoding::Ggml(Ggml::Tq1_0 | Ggml::Tq2_0 | Ggml::Q1_0 | Ggml::Q2_0) => {
                (2, 64, Offset::Zero(FEW_BITS_ZERO.into()))
            }
            Encoding::Ggml(Ggml::Nvfp4) => (5, 16, Offset::Zero(E2M1_ZERO)),
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
    /// Scales and biases of each span, by row: of matrix rows `row(0..16)`, and `adjacent` if they lie one after the other. What
    /// lies `next` rows further is asked for.
    fn load<'a>(
        &mut self,
        w: &Matrix<'a>,
        format: Format,
        row: impl Fn(usize) -> usize,
        adjacent: Option<[&'a [u8]; 3]>,
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
                let ahead = stride(values[0], values[1]).wrapping_mul(next);
                for row in values {
                    prefetch_after(row, ahead);
                }
                super::parameters(params, &values, repeat, out);
            };
            load(1, &|row| w.scales(row), scales);
            load(2, &|row| w.biases(row), biases);
        } else {
            by_row.resize(ROWS * spans, 0.0);
            let with_scales: [&[u8]; ROWS] = std::array::from_fn(|i| match w.encoding() {
                Encoding::Ggml(_) => w.codes(row(i)),
                _ => w.scales(row(i)),
            });
            for (part, out) in [(Part::Scales, &mut *scales), (Part::Biases, &mut *biases)] {
                let is_biases = part == Part::Biases;
                if !out.is_empty() && !super::block_parameters(w.encoding(), &with_scales, is_biases, out) {
                    for (i, values) in by_row.chunks_exact_mut(spans).enumerate() {
                        let row = row(i);
                        parameters(w.encoding(), w.codes(row), w.scales(row), part, values);
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
    pub(crate) rows: Rows<'a>,
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
        let BlockScratch { codes: lines, parameters } = scratch;
        let (scales, biases) = parameters.load(w, format, row, adjacent, next);

        let (codes, is_as_stored) = match w.encoding() {
            Encoding::Affine { bits: 8, .. } => (Codes::Bytes, true),
            Encoding::Affine { bits: 4, .. } => (Codes::Nibbles, true),
            Encoding::Mxfp4 if !tiles => (Codes::E2m1, true),
            _ => (Codes::Bytes, false),
        };
        let of_first = w.codes(row(0));
        let len = if is_as_stored { of_first.len() } else { cols };
        let of_rows = match adjacent {
            Some([stored, ..]) if is_as_stored => Rows { bytes: stored, stride: len, len },
            _ => {
                // A line more, or all rows would compete for the same sets of the cache.
                let stride = len.div_ceil(64) + 1;
                lines.resize(ROWS * stride, Line::ZERO);
                for (i, out) in lines.chunks_exact_mut(stride).take(rows).enumerate() {
                    let (stored, out) = (w.codes(row(i)), &mut bytes_mut(out)[..len]);
                    if is_as_stored {
                        out.copy_from_slice(stored);
                    } else {
                        super::unpack(w.encoding(), stored, out);
                    }
                }
                Rows { bytes: bytes(lines), stride: stride * 64, len }
            }
        };
        let next = Next::new(of_first, stride(of_first, w.codes(row(1))), next);
        Block { format, cols, codes, rows: of_rows, scales, biases, next }
    }

    /// The code of a column, before the format's offset.
    #[inline(always)]
    pub(crate) fn code(&self, row: usize, col: usize) -> u8 {
        let nibble = || self.rows.get(row)[col / 2] >> (col % 2 * 4) & 15;
        match self.codes {
            Codes::Bytes => self.rows.get(row)[col],
            Codes::Nibbles => nibble(),
            Codes::E2m1 => E2M1[usize::from(nibble())],
        }
    }
}

/// The codes of sixteen rows, equally far from each other.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    bytes: &'a [u8],
    /// Bytes from the beginning of a row to that of the next.
    pub(crate) stride: usize,
    /// Bytes of a row.
    pub(crate) len: usize,
}

impl<'a> Rows<'a> {
    /// One row's.
    #[inline(always)]
    pub(crate) fn get(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.stride..][..self.len]
    }

    /// Where the first begins; all are there, up to the last one's end.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn first(&self) -> *const u8 {
        assert!(self.bytes.len() >= (ROWS - 1) * self.stride + self.len);
        self.bytes.as_ptr()
    }
}

/// Sixteen rows of codes that will be read.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the processor foresees what is read"))]
pub(crate) struct Next {
    first: *const u8,
    /// Bytes from a line to the one that is asked for after it.
    pub(crate) line_step: usize,
    /// Bytes from 16 lines to the next 16.
    unit_step: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the processor foresees what is read"))]
impl Next {
    /// The codes that lie `next` rows after those whose first is `row`; rows are `stride` bytes apart.
    fn new(row: &[u8], stride: usize, next: usize) -> Self {
        let in_order = stride == row.len();
        // In the order of memory the processor foresees what follows.
        let (line_step, unit_step) = if in_order { (64, ROWS * 64) } else { (stride, 64) };
        Next { first: row.as_ptr().wrapping_add(stride.wrapping_mul(next)), line_step, unit_step }
    }

    /// The first of sixteen lines, of which there are as many as a row has lines.
    #[inline(always)]
    pub(crate) fn unit(&self, i: usize) -> *const u8 {
        self.first.wrapping_add(i * self.unit_step)
    }
}

/// Asks for what lies so many bytes after these: the parameters of the next block, which are read before its codes, and
/// are too short to be foreseen.
fn prefetch_after(values: &[u8], ahead: usize) {
    for at in (0..values.len()).step_by(64) {
        prefetch(values.as_ptr().wrapping_add(ahead + at));
    }
}

/// How many bytes lie between two rows.
fn stride(first: &[u8], second: &[u8]) -> usize {
    (second.as_ptr() as usize).wrapping_sub(first.as_ptr() as usize)
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
        Encoding::Symmetric { params, .. } => {
            let groups = scales.len() / params.bytes();
            let repeat = out.len() / groups.max(1);
            for (out, scale) in out.chunks_exact_mut(repeat.max(1)).zip(scales.chunks_exact(params.bytes())) {
                let mut value = [0.0];
                decode_floats(params, scale, &mut value);
                out.fill(value[0]);
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
            Encoding::Affine { bits: 2, .. } | Encoding::Symmetric { bits: 2, .. } => {
                unpack_stream::<2>(codes, out);
            }
            Encoding::Affine { bits: 3, .. } | Encoding::Symmetric { bits: 3, .. } => {
                unpack_stream::<3>(codes, out);
            }
            Encoding::Affine { bits: 4, .. } | Encoding::Symmetric { bits: 4, .. } => {
                unpack_stream::<4>(codes, out);
            }
            Encoding::Affine { bits: 5, .. } | Encoding::Symmetric { bits: 5, .. } => {
                unpack_stream::<5>(codes, out);
            }
            Encoding::Affine { bits: 6, .. } | Encoding::Symmetric { bits: 6, .. } => {
                unpack_stream::<6>(codes, out);
            }
            Encoding::Symmetric { signed: true, .. } => {
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = code ^ 0x80;
                }
            }
            Encoding::Symmetric { bits: 7, .. } => unpack_stream::<7>(codes, out),
            Encoding::Affine { bits: 8, .. } | Encoding::Symmetric { .. } => out.copy_from_slice(codes),
            Encoding::Mxfp4 => {
                unpack_stream::<4>(codes, out);
                for code in out {
                    *code = E2M1[usize::from(*code)];
                }
            }
            Encoding::Ggml(ggml) => ggml.span_codes(codes, out),
            _ => unreachable!("it is read in place or has no format"),
        }
    }
}
