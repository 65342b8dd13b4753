//! AVX-512 with VNNI.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;
use std::ops::Range;

use crate::encoding::Float;

use super::activations::{FourColumns, GROUP, LOW_BITS, PLANES, Pair, SUM, TOKENS, TileGroup, TileGroups};
use super::tiles::Sums;
use super::weights::{Block, ByRow, Codes, E2M1, Offset, ROWS};

/// The products of a block's rows with each of `N` tokens, which share what is read of the rows: see
/// [`scalar::vector`](super::scalar::vector).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn vectors<const N: usize>(block: &Block<'_>, x: [&[Pair]; N], y: &mut [[f32; ROWS]; N]) {
    match block.format.planes {
        1 => vectors_of_planes::<N, 1>(block, x, y),
        _ => vectors_of_planes::<N, PLANES>(block, x, y),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn vectors_of_planes<const N: usize, const P: usize>(
    block: &Block<'_>,
    x: [&[Pair]; N],
    y: &mut [[f32; ROWS]; N],
) {
    match (block.codes, block.format.width) {
        (Codes::Bytes, 16) => vectors_of::<N, P, BYTES, 4>(block, x, y),
        (Codes::Bytes, 32) => vectors_of::<N, P, BYTES, 2>(block, x, y),
        (Codes::Bytes, _) => vectors_of::<N, P, BYTES, 1>(block, x, y),
        (Codes::Nibbles, 32) => vectors_of::<N, P, NIBBLES, 4>(block, x, y),
        (Codes::Nibbles, _) => vectors_of::<N, P, NIBBLES, 2>(block, x, y),
        (Codes::E2m1, _) => vectors_of::<N, P, E2M1_CODES, 4>(block, x, y),
    }
}

const BYTES: u8 = 0;
const NIBBLES: u8 = 1;
const E2M1_CODES: u8 = 2;

/// 64 bytes of each row at a time, which hold `SPANS` spans, times `P` planes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn vectors_of<const N: usize, const P: usize, const CODES: u8, const SPANS: usize>(
    block: &Block<'_>,
    tokens: [&[Pair]; N],
    y: &mut [[f32; ROWS]; N],
) {
    let columns = if CODES == BYTES { 64 } else { 128 };
    let width = columns / SPANS;
    let bytes = block.rows[0].len();
    let spans = block.scales.len();
    assert!(block.rows.iter().all(|row| row.len() == bytes));
    assert!(spans * width == block.cols && tokens.iter().all(|x| block.cols <= x.len() * 2 * GROUP));
    let biased = block.format.offset == Offset::Biases;
    let zero = match block.format.offset {
        Offset::Biases => 0,
        Offset::Zero(zero) => zero,
    };
    let rows: [*const u8; ROWS] = std::array::from_fn(|i| block.rows[i].as_ptr());
    let whole = bytes / 64;
    let mut tails = [[0_u8; 64]; ROWS];
    let mut tail_rows = rows;
    if bytes > whole * 64 {
        for i in 0..ROWS {
            tails[i][..bytes - whole * 64].copy_from_slice(&block.rows[i][whole * 64..]);
            tail_rows[i] = tails[i].as_ptr();
        }
    }
    let mask = _mm512_set1_epi8(15);
    let levels = _mm512_broadcast_i32x4(load128(&E2M1));

    let mut y_sums = [_mm512_setzero_ps(); N];
    for unit in 0..bytes.div_ceil(64) {
        let (rows, at) = if unit < whole { (&rows, unit * 64) } else { (&tail_rows, 0) };
        let pairs: [&Pair; N] = std::array::from_fn(|t| &tokens[t][unit * columns / (2 * GROUP)]);
        let in_pair = unit * columns % (2 * GROUP);
        // Each plane of 64 columns, or of 64 even and 64 odd ones.
        let mut x = [[[_mm512_setzero_si512(); 2]; PLANES]; N];
        for t in 0..N {
            for plane in 0..P {
                x[t][plane] = if CODES == BYTES {
                    let codes = load(&pairs[t].codes[plane].as_chunks().0[in_pair / 64]);
                    [codes, _mm512_setzero_si512()]
                } else {
                    let halves = pairs[t].halves[plane].as_chunks().0;
                    [load(&halves[0]), load(&halves[1])]
                };
            }
        }
        // Products added within each 16 bytes: of the `q`-th sums, 128 bits hold four rows from `4q` on.
        let mut sums = [[_mm512_setzero_si512(); 4]; N];
        for q in 0..4 {
            let mut of_rows = [[_mm512_setzero_si512(); 4]; N];
            for i in 0..4 {
                let row = rows[4 * q + i].wrapping_add(at);
                block.next.prefetch(unit, 4 * q + i);
                // SAFETY: `whole` counts whole 64 bytes of each row, and each tail has 64 bytes.
                let codes = unsafe { _mm512_loadu_si512(row.cast()) };
                let zero = _mm512_setzero_si512();
                if CODES == BYTES {
                    for t in 0..N {
                        let [high, low] = x[t];
                        let mut sum = _mm512_dpbusd_epi32(zero, codes, high[0]);
                        if P == PLANES {
                            sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<LOW_BITS>(sum), codes, low[0]);
                        }
                        of_rows[t][i] = sum;
                    }
                    continue;
                }
                let mut even = _mm512_and_si512(codes, mask);
                let mut odd = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
                if CODES == E2M1_CODES {
                    even = _mm512_shuffle_epi8(levels, even);
                    odd = _mm512_shuffle_epi8(levels, odd);
                }
                for t in 0..N {
                    let [high, low] = x[t];
                    let mut sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, even, high[0]), odd, high[1]);
                    if P == PLANES {
                        sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<LOW_BITS>(sum), even, low[0]);
                        sum = _mm512_dpbusd_epi32(sum, odd, low[1]);
                    }
                    of_rows[t][i] = sum;
                }
            }
            for t in 0..N {
                let [a, b, c, d] = of_rows[t];
                let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                sums[t][q] = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            }
        }
        for t in 0..N {
            let (pair, sums) = (pairs[t], by_span::<SPANS>(sums[t]));
            for i in 0..SPANS {
                let span = unit * SPANS + i;
                if span >= spans {
                    break;
                }
                let at = in_pair + i * width;
                let scale = pair.scales[at / GROUP];
                let mut code_sum = 0;
                for sum in 0..width / SUM {
                    code_sum += pair.sums[P - 1][at / SUM + sum];
                }
                let sums = if P == PLANES { sums[i] } else { _mm512_slli_epi32::<LOW_BITS>(sums[i]) };
                let products = _mm512_sub_epi32(sums, _mm512_set1_epi32(zero * code_sum));
                let scaled = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(products));
                y_sums[t] = _mm512_fmadd_ps(load_floats(&block.scales[span].0), scaled, y_sums[t]);
                if biased {
                    let scaled = _mm512_set1_ps(scale * code_sum as f32);
                    y_sums[t] = _mm512_fmadd_ps(load_floats(&block.biases[span].0), scaled, y_sums[t]);
                }
            }
        }
    }
    for t in 0..N {
        store_floats(y_sums[t], &mut y[t]);
    }
}

/// The sums of each of `SPANS` spans, by row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn by_span<const SPANS: usize>(sums: [__m512i; 4]) -> [__m512i; 4] {
    let [a, b, c, d] = sums;
    if SPANS == 4 {
        let (ab, ab_high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (cd, cd_high) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        return [
            _mm512_shuffle_i32x4::<0x88>(ab, cd),
            _mm512_shuffle_i32x4::<0xdd>(ab, cd),
            _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
            _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
        ];
    }
    let ab = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let cd = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    let (first, second) = (_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
    let zero = _mm512_setzero_si512();
    if SPANS == 2 { [first, second, zero, zero] } else { [_mm512_add_epi32(first, second), zero, zero, zero] }
}

/// See [`tiles::multiply`](super::tiles::multiply): adds what these spans give.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn add_spans<const WIDTH: usize>(
    block: &Block<'_>,
    weights: &[[[u8; WIDTH]; ROWS]],
    x: TileGroups<'_>,
    spans: Range<usize>,
    sums: &mut Sums,
) {
    /// Rows that share what is loaded of the tokens.
    const AT_ONCE: usize = 8;
    for first_row in [0, AT_ONCE] {
        let mut of_rows = [_mm512_setzero_ps(); AT_ONCE];
        if spans.start > 0 {
            for i in 0..AT_ONCE {
                of_rows[i] = load_floats(&sums.0[first_row + i]);
            }
        }
        for (span, weights) in spans.clone().zip(weights) {
            let (group, at) = (x.of_column(span * WIDTH), span * WIDTH % GROUP);
            let mut high = [_mm512_setzero_si512(); AT_ONCE];
            let mut low = [_mm512_setzero_si512(); AT_ONCE];
            for four in 0..WIDTH / 4 {
                let x_high = load_columns(&group[0].codes[at / 4 + four]);
                let x_low = load_columns(&group[1].codes[at / 4 + four]);
                for i in 0..AT_ONCE {
                    let codes = i32::from_le_bytes(weights[first_row + i].as_chunks().0[four]);
                    let codes = _mm512_set1_epi32(codes);
                    high[i] = _mm512_dpbusd_epi32(high[i], codes, x_high);
                    if block.format.planes > 1 {
                        low[i] = _mm512_dpbusd_epi32(low[i], codes, x_low);
                    }
                }
            }
            let scaled = Scaled::new(block, group, at, WIDTH);
            for i in 0..AT_ONCE {
                of_rows[i] = scaled.add(block, span, first_row + i, join(high[i], low[i]), of_rows[i]);
            }
        }
        for i in 0..AT_ONCE {
            store_floats(of_rows[i], &mut sums.0[first_row + i]);
        }
    }
}

/// The sums of products with codes from those with their planes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn join(high: __m512i, low: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_slli_epi32::<LOW_BITS>(high), low)
}

/// The sums by token.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn transpose_sums(sums: &Sums, y: &mut [[f32; ROWS]; TOKENS]) {
    let mut rows = [_mm512_setzero_si512(); ROWS];
    for (row, sums) in rows.iter_mut().zip(&sums.0) {
        *row = _mm512_castps_si512(load_floats(sums));
    }
    for (y, values) in y.iter_mut().zip(transpose16(&rows)) {
        // SAFETY: `y` has 16 floats.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr(), _mm512_castsi512_ps(values)) };
    }
}

/// A row's codes of 4 bits, one a byte, into their places in `[spans, rows, width]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn unpack4_spans<const WIDTH: usize>(
    codes: &[u8],
    row: usize,
    weights: &mut [[[u8; WIDTH]; ROWS]],
) {
    for (codes, weights) in codes.chunks_exact(WIDTH / 2).zip(weights) {
        let out = &mut weights[row];
        // SAFETY: as many bytes are read as `codes` has, and not more written than `out` has.
        unsafe {
            match WIDTH {
                64 => {
                    let wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(codes.as_ptr().cast()));
                    let apart = _mm512_or_si512(wide, _mm512_slli_epi16::<4>(wide));
                    let codes = _mm512_and_si512(apart, _mm512_set1_epi8(15));
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), codes);
                }
                32 => {
                    let wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(codes.as_ptr().cast()));
                    let apart = _mm256_or_si256(wide, _mm256_slli_epi16::<4>(wide));
                    let codes = _mm256_and_si256(apart, _mm256_set1_epi8(15));
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
                }
                _ => {
                    let wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(codes.as_ptr().cast()));
                    let apart = _mm_or_si128(wide, _mm_slli_epi16::<4>(wide));
                    let codes = _mm_and_si128(apart, _mm_set1_epi8(15));
                    _mm_storeu_si128(out.as_mut_ptr().cast(), codes);
                }
            }
        }
    }
}

/// A row's codes below 16 as AMX wants them, into their places in `[spans, planes, rows, width]`: 16 times the codes, then, if
/// there are two planes, the codes. `HALVES` of bytes or bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn unpack_planes<const WIDTH: usize, const HALVES: bool>(
    codes: &[u8],
    row: usize,
    planes: usize,
    weights: &mut [[[u8; WIDTH]; ROWS]],
) {
    /// Bits of either of two, if the third has them too.
    const OR_AND: i32 = 0xa8;
    assert!(matches!(WIDTH, 16 | 32 | 64));
    let bytes = if HALVES { WIDTH / 2 } else { WIDTH };
    let (of_codes, of_span) = (u64::MAX >> (64 - bytes), u64::MAX >> (64 - WIDTH));
    for (codes, weights) in codes.chunks_exact(bytes).zip(weights.chunks_exact_mut(planes)) {
        // SAFETY: the masks let as many bytes be read as `codes` has, and as many written as a row has.
        unsafe {
            let codes = if HALVES {
                let wide =
                    _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(of_codes as u32, codes.as_ptr().cast()));
                let apart = _mm512_slli_epi16::<4>(wide);
                _mm512_ternarylogic_epi32::<OR_AND>(wide, apart, _mm512_set1_epi8(15))
            } else {
                _mm512_maskz_loadu_epi8(of_codes, codes.as_ptr().cast())
            };
            // No code reaches its neighbour.
            let high = _mm512_slli_epi16::<LOW_BITS>(codes);
            _mm512_mask_storeu_epi8(weights[0][row].as_mut_ptr().cast(), of_span, high);
            if planes == PLANES {
                _mm512_mask_storeu_epi8(weights[1][row].as_mut_ptr().cast(), of_span, codes);
            }
        }
    }
}

/// What the rows of a span share.
pub(super) struct Scaled {
    /// The tokens' scales.
    scales: __m512,
    /// What is taken from the products.
    zeros: __m512i,
    /// The tokens' scales times their sums of codes.
    sums: __m512,
}

impl Scaled {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
    #[inline]
    pub(super) fn new(block: &Block<'_>, group: [&TileGroup; PLANES], at: usize, width: usize) -> Self {
        let group = group[block.format.planes - 1];
        let mut sums = _mm512_setzero_si512();
        for of_columns in &group.sums[at / SUM..(at + width) / SUM] {
            sums = _mm512_add_epi32(sums, load_ints(of_columns));
        }
        let scales = load_floats(&group.scales);
        Scaled {
            scales,
            zeros: match block.format.offset {
                Offset::Biases => _mm512_setzero_si512(),
                Offset::Zero(zero) => _mm512_mullo_epi32(sums, _mm512_set1_epi32(zero)),
            },
            sums: _mm512_mul_ps(scales, _mm512_cvtepi32_ps(sums)),
        }
    }

    /// The sums of one row with what a span adds to them.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
    #[inline]
    pub(super) fn add(
        &self,
        block: &Block<'_>,
        span: usize,
        row: usize,
        products: __m512i,
        sum: __m512,
    ) -> __m512 {
        let scale = _mm512_set1_ps(block.scales[span].0[row]);
        let scaled = |products| _mm512_mul_ps(self.scales, _mm512_cvtepi32_ps(products));
        match block.format.offset {
            Offset::Biases => {
                let sum = _mm512_fmadd_ps(scale, scaled(products), sum);
                _mm512_fmadd_ps(_mm512_set1_ps(block.biases[span].0[row]), self.sums, sum)
            }
            Offset::Zero(_) => _mm512_fmadd_ps(scale, scaled(_mm512_sub_epi32(products, self.zeros)), sum),
        }
    }
}

/// `out[i][row] = by_row[row][i]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn transpose(by_row: &[f32], out: &mut [ByRow]) {
    let width = out.len();
    assert_eq!(by_row.len(), ROWS * width);
    let whole = width - width % ROWS;
    for first in (0..whole).step_by(ROWS) {
        let mut rows = [_mm512_setzero_si512(); ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            let values = by_row[i * width + first..][..ROWS].as_array().unwrap_or(&[0.0; ROWS]);
            *row = _mm512_castps_si512(load_floats(values));
        }
        for (out, values) in out[first..].iter_mut().zip(transpose16(&rows)) {
            // SAFETY: `out` has 16 floats.
            unsafe { _mm512_storeu_ps(out.0.as_mut_ptr(), _mm512_castsi512_ps(values)) };
        }
    }
    for i in whole..width {
        for row in 0..ROWS {
            out[i].0[row] = by_row[row * width + i];
        }
    }
}

/// Sixteen rows of sixteen values, by column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn transpose16(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut quads = [_mm512_setzero_si512(); 16];
    for q in 0..4 {
        let [a, b, c, d] = [rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3]];
        let (ab, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[q] = _mm512_unpacklo_epi64(ab, cd);
        quads[4 + q] = _mm512_unpackhi_epi64(ab, cd);
        quads[8 + q] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quads[12 + q] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    let mut columns = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        let of_quads = by_span::<4>([quads[4 * i], quads[4 * i + 1], quads[4 * i + 2], quads[4 * i + 3]]);
        for (lane, column) in of_quads.into_iter().enumerate() {
            columns[4 * lane + i] = column;
        }
    }
    columns
}

/// Multiplies what stays in registers, and says how many operations that were.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn multiply_registers(steps: u32) -> u64 {
    const SUMS: usize = 16;
    let x = _mm512_set1_epi32(std::hint::black_box(1));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    std::hint::black_box(sums);
    u64::from(steps) * SUMS as u64 * (64 * 2)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_columns(tokens: &[[i8; 4]; TOKENS]) -> __m512i {
    load(tokens.as_flattened().as_array().unwrap_or(&[0; 64]))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_floats(values: &[f32; 16]) -> __m512 {
    // SAFETY: 16 floats.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store_floats(values: __m512, out: &mut [f32; 16]) {
    // SAFETY: 16 floats.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_ints(values: &[i32; 16]) -> __m512i {
    // SAFETY: 16 integers.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// `out[i·repeat..][row]` becomes float `i` of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
pub(crate) fn parameters(float: Float, rows: &[&[u8]; ROWS], repeat: usize, out: &mut [ByRow]) {
    let count = out.len() / repeat;
    assert!(rows.iter().all(|row| row.len() == count * float.bytes()));
    for first in (0..count).step_by(ROWS) {
        let here = ROWS.min(count - first);
        let mask = ((1_u32 << here) - 1) as __mmask16;
        let mut values = [_mm512_setzero_si512(); ROWS];
        for i in 0..ROWS {
            let at = rows[i].as_ptr().wrapping_add(first * float.bytes());
            // SAFETY: the mask lets `here` values be loaded, which the row has from there.
            values[i] = unsafe {
                match float {
                    Float::F32 => _mm512_maskz_loadu_epi32(mask, at.cast()),
                    Float::Bf16 => {
                        let halves = _mm256_maskz_loadu_epi16(mask, at.cast());
                        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))
                    }
                    Float::F16 => {
                        let halves = _mm256_maskz_loadu_epi16(mask, at.cast());
                        _mm512_castps_si512(_mm512_cvtph_ps(halves))
                    }
                }
            };
        }
        let columns = transpose16(&values);
        let out = &mut out[first * repeat..(first + here) * repeat];
        for (out, column) in out.chunks_exact_mut(repeat).zip(columns) {
            for out in out {
                // SAFETY: `out` has 16 floats.
                unsafe { _mm512_store_ps(out.0.as_mut_ptr(), _mm512_castsi512_ps(column)) };
            }
        }
    }
}

/// Codes of `BITS` bits from a little-endian stream, each into a byte.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2")]
pub(crate) fn unpack<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    assert!(codes.len() * 8 == out.len() * BITS);
    if BITS == 4 {
        let (out, out_tail) = out.as_chunks_mut::<64>();
        let (codes, codes_tail) = codes.as_chunks::<32>();
        for (out, codes) in out.iter_mut().zip(codes) {
            // SAFETY: 32 bytes are read and 64 written.
            unsafe {
                let wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(codes.as_ptr().cast()));
                let apart = _mm512_or_si512(wide, _mm512_slli_epi16::<4>(wide));
                let codes = _mm512_and_si512(apart, _mm512_set1_epi8(15));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), codes);
            }
        }
        return unpack_words::<BITS>(codes_tail, out_tail);
    }
    unpack_words::<BITS>(codes, out);
}

#[target_feature(enable = "bmi2")]
#[inline]
fn unpack_words<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    let mask = 0x0101_0101_0101_0101 * ((1 << BITS) - 1);
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        *out = _pdep_u64(u64::from_le_bytes(word), mask).to_le_bytes();
    }
}

/// `out[i][token]` becomes the token's columns from `4i` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn regroup(tokens: &[&[i8; GROUP]; TOKENS], out: &mut FourColumns) {
    let mut rows = [_mm512_setzero_si512(); TOKENS];
    for i in 0..TOKENS {
        rows[i] = load(tokens[i]);
    }
    for (out, columns) in out.iter_mut().zip(transpose16(&rows)) {
        // SAFETY: `out` has 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), columns) };
    }
}
