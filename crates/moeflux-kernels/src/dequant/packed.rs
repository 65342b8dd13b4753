//! Rows of matrices whose codes, scales and zeros lie by column: GPTQ's and AWQ's, and those with zeros alone packed so.

use super::{floats, unpack_stream};
use crate::encoding::{Encoding, Float, Packing};
use crate::matrix::Matrix;

/// Columns whose codes fill whole words in every width.
const CHUNK: usize = 32;
/// Rows that are read together: their words fill a line of the cache.
pub(crate) const ROWS: usize = 16;

/// Writes a row as affine codes, float32 scales and biases, each group as several if it is long.
pub(super) fn repack(
    matrix: &Matrix<'_>,
    row: usize,
    codes: &mut [u8],
    scales: &mut [u8],
    biases: &mut [u8],
) {
    let Some(Encoding::Affine { bits, group: short, .. }) = matrix.encoding().repacked() else {
        unreachable!("{:?} cannot be repacked", matrix.encoding());
    };
    assert!(matrix.parts().1.is_none(), "columns that are not in the order of their groups");
    let Some((packed, group)) = Packed::of(matrix) else { return };
    let row = matrix.stored_row(row);
    let mut values = [[0; CHUNK]; ROWS];
    let bytes = CHUNK * usize::from(bits) / 8;
    for (start, codes) in (0..packed.cols).step_by(CHUNK).zip(codes.chunks_exact_mut(bytes)) {
        packed.any_codes(start, row, 1, &mut values);
        codes.fill(0);
        for (i, &value) in values[0].iter().enumerate() {
            let at = i * usize::from(bits);
            let shifted = u16::from(value) << (at % 8);
            codes[at / 8] |= shifted as u8;
            if shifted > 0xff {
                codes[at / 8 + 1] |= (shifted >> 8) as u8;
            }
        }
    }
    let parameters = scales.as_chunks_mut::<4>().0.iter_mut().zip(biases.as_chunks_mut::<4>().0);
    for (i, (scale, bias)) in parameters.enumerate() {
        let (s, zero) = packed.parameters(i * short / group, row);
        *scale = s.to_le_bytes();
        *bias = (-(s * zero as f32)).to_le_bytes();
    }
}

/// Writes `n` rows from row `first` on, which are neighbours, to `out` (`[n, cols]`): `scale·(q - zero)`.
#[inline(always)]
pub(crate) fn dequantize(matrix: &Matrix<'_>, first: usize, n: usize, out: &mut [f32]) {
    let Some((packed, group)) = Packed::of(matrix) else { return };
    let (cols, order) = (packed.cols, matrix.parts().1);
    let first = matrix.stored_row(first);
    let mut values = [[0; CHUNK]; ROWS];
    for start in (0..cols).step_by(CHUNK) {
        packed.any_codes(start, first, n, &mut values);
        for (i, values) in values.iter().enumerate().take(n) {
            let out = &mut out[i * cols + start..][..CHUNK];
            match order {
                None => {
                    let (scale, zero) = packed.parameters(start / group, first + i);
                    for (out, &code) in out.iter_mut().zip(values) {
                        *out = scale * (i32::from(code) - zero) as f32;
                    }
                }
                Some(order) => {
                    for ((out, &code), &group) in out.iter_mut().zip(values).zip(&order[start..]) {
                        let (scale, zero) = packed.parameters(usize::from(group), first + i);
                        *out = scale * (i32::from(code) - zero) as f32;
                    }
                }
            }
        }
    }
}

struct Packed<'a> {
    bits: usize,
    params: Float,
    packing: Packing,
    codes: &'a [u8],
    scales: &'a [u8],
    zeros: &'a [u8],
    /// Rows that the parts have.
    rows: usize,
    cols: usize,
    groups: usize,
}

impl<'a> Packed<'a> {
    /// What a matrix is, and columns in a group; `None` in another encoding.
    #[inline(always)]
    fn of(matrix: &Matrix<'a>) -> Option<(Self, usize)> {
        let Encoding::Packed { bits, group, params, packing } = matrix.encoding() else { return None };
        let ([codes, scales, zeros], _) = matrix.parts();
        let (cols, groups) = (matrix.cols(), matrix.cols() / group);
        let rows = scales.len() / (groups * params.bytes()).max(1);
        let packed =
            Packed { bits: usize::from(bits), params, packing, codes, scales, zeros, rows, cols, groups };
        Some((packed, group))
    }

    /// [`codes`](Self::codes) of whatever width.
    #[inline(always)]
    fn any_codes(&self, start: usize, first: usize, n: usize, out: &mut [[u8; CHUNK]; ROWS]) {
        match self.bits {
            2 => self.codes::<2>(start, first, n, out),
            3 => self.codes::<3>(start, first, n, out),
            4 => self.codes::<4>(start, first, n, out),
            5 => self.codes::<5>(start, first, n, out),
            6 => self.codes::<6>(start, first, n, out),
            7 => self.codes::<7>(start, first, n, out),
            _ => self.codes::<8>(start, first, n, out),
        }
    }

    /// The codes of 32 columns from `start` on of `n` rows.
    #[inline(always)]
    fn codes<const BITS: usize>(&self, start: usize, first: usize, n: usize, out: &mut [[u8; CHUNK]; ROWS]) {
        match self.packing {
            Packing::Gptq { .. } => {
                let mut words = [[[0; 4]; 8]; ROWS];
                for word in 0..BITS {
                    let at = 4 * ((start / CHUNK * BITS + word) * self.rows + first);
                    let of_rows = self.codes[at..at + 4 * n].as_chunks::<4>().0;
                    for (words, found) in words.iter_mut().zip(of_rows) {
                        words[word] = *found;
                    }
                }
                for (words, out) in words.iter().zip(out).take(n) {
                    unpack_stream::<BITS>(words[..BITS].as_flattened(), out);
                }
            }
            Packing::Awq => {
                for col in 0..CHUNK {
                    for i in 0..n {
                        let row = first + i;
                        let word = word_at(self.codes, (start + col) * (self.rows / 8) + row / 8);
                        out[i][col] = (word >> awq_shift(row)) as u8 & 15;
                    }
                }
            }
            Packing::ZerosByRow => {
                for (i, out) in out.iter_mut().enumerate().take(n) {
                    let at = ((first + i) * self.cols + start) * BITS / 8;
                    unpack_stream::<BITS>(&self.codes[at..at + 4 * BITS], out);
                }
            }
        }
    }

    /// A group's scale and zero in a row.
    #[inline(always)]
    fn parameters(&self, group: usize, row: usize) -> (f32, i32) {
        let by_row = self.packing == Packing::ZerosByRow;
        let scale_at = if by_row { row * self.groups + group } else { group * self.rows + row };
        let bytes = self.params.bytes();
        let mut scale = [0.0];
        floats(self.params, &self.scales[scale_at * bytes..][..bytes], &mut scale);
        let mask = (1 << self.bits) - 1;
        // A number that begins at this bit of a row of words, which are `step` words apart.
        let number = |first_word: usize, step: usize, bit: usize| {
            let at = |word: usize| u64::from(word_at(self.zeros, first_word + word * step));
            let (low, shift) = (bit / 32, bit % 32);
            let both = at(low) | if shift + self.bits > 32 { at(low + 1) << 32 } else { 0 };
            (both >> shift) as i32 & mask
        };
        let zero = match self.packing {
            Packing::Gptq { less_one } => {
                let zero = number(group * (self.rows * self.bits / 32), 1, row * self.bits);
                if less_one { (zero + 1) & mask } else { zero }
            }
            Packing::Awq => {
                (word_at(self.zeros, group * (self.rows / 8) + row / 8) >> awq_shift(row)) as i32 & 15
            }
            Packing::ZerosByRow => number(group, self.groups, row * self.bits),
        };
        (scale[0], zero)
    }
}

/// Where a row's four bits lie in a word of eight rows.
#[inline(always)]
fn awq_shift(row: usize) -> usize {
    row % 2 * 16 + row % 8 / 2 * 4
}

#[inline(always)]
fn word_at(bytes: &[u8], index: usize) -> u32 {
    bytes[4 * index..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}
