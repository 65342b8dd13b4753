//! A block of rows with one token, or a few that share what is read of the rows.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use super::{by_span, load, load_floats, load128, store_floats};
use crate::int8::activations::{GROUP, LOW_BITS, PLANES, Pair, SUM};
use crate::int8::weights::{Block, Codes, E2M1, Offset, ROWS, prefetch};

/// The products of a block's rows with each of `N` tokens, which share what is read of the rows: see
/// [`scalar::vector`](crate::int8::scalar::vector).
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
    let spans = block.scales.len();
    assert!(spans * (columns / SPANS) == block.cols);
    assert!(tokens.iter().all(|x| block.cols <= x.len() * 2 * GROUP));
    let mut sums = [_mm512_setzero_ps(); N];
    let whole = block.rows.len / 64;
    for unit in 0..whole {
        add_unit::<N, P, CODES, SPANS, true>(block, unit, tokens, &mut sums);
    }
    if block.rows.len > whole * 64 {
        add_unit::<N, P, CODES, SPANS, false>(block, whole, tokens, &mut sums);
    }
    for t in 0..N {
        store_floats(sums[t], &mut y[t]);
    }
}

/// Adds what 64 bytes of each row give, or, if they are not `WHOLE`, what is left of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn add_unit<const N: usize, const P: usize, const CODES: u8, const SPANS: usize, const WHOLE: bool>(
    block: &Block<'_>,
    unit: usize,
    tokens: [&[Pair]; N],
    y_sums: &mut [__m512; N],
) {
    let columns = if CODES == BYTES { 64 } else { 128 };
    let width = columns / SPANS;
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
    let nibble = _mm512_set1_epi8(15);
    let levels = _mm512_broadcast_i32x4(load128(&E2M1));
    let left = block.rows.len - unit * 64;
    let mut row = block.rows.first().wrapping_add(unit * 64);
    let mut next = block.next.unit(unit);
    // Products added within each 16 bytes: of the `q`-th sums, 128 bits hold four rows from `4q` on. Of one plane they are a
    // sixteenth of the definition's.
    let mut sums = [[_mm512_setzero_si512(); 4]; N];
    for q in 0..4 {
        let mut of_rows = [[_mm512_setzero_si512(); 4]; N];
        for i in 0..4 {
            // SAFETY: each row has `left` bytes from there, and no more are read.
            let codes = unsafe {
                if WHOLE {
                    _mm512_loadu_si512(row.cast())
                } else {
                    _mm512_maskz_loadu_epi8(u64::MAX >> (64 - left), row.cast())
                }
            };
            prefetch(next);
            next = next.wrapping_add(block.next.line_step);
            row = row.wrapping_add(block.rows.stride);
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
            let mut even = _mm512_and_si512(codes, nibble);
            let mut odd = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
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
            sums[t][q] = if CODES == NIBBLES && P == 1 {
                // 16 products are at most 16·15·127, which 16 bits hold.
                let ones = _mm512_set1_epi16(1);
                let ab = _mm512_madd_epi16(_mm512_packs_epi32(a, b), ones);
                let cd = _mm512_madd_epi16(_mm512_packs_epi32(c, d), ones);
                _mm512_madd_epi16(_mm512_packs_epi32(ab, cd), ones)
            } else {
                let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
            };
        }
    }
    for t in 0..N {
        let (pair, sums) = (pairs[t], by_span::<SPANS>(sums[t]));
        for i in 0..SPANS {
            let span = unit * SPANS + i;
            if !WHOLE && span >= block.scales.len() {
                break;
            }
            let at = in_pair + i * width;
            let code_sum = || pair.sums[P - 1][at / SUM..][..width / SUM].iter().sum::<i32>();
            let (products, added) = match block.format.offset {
                Offset::Biases => {
                    let scaled = if width == GROUP {
                        pair.scaled_sums[P - 1][at / GROUP]
                    } else {
                        pair.scales[at / GROUP] * code_sum() as f32
                    };
                    (sums[i], Some(_mm512_set1_ps(scaled)))
                }
                Offset::Zero(zero) => {
                    let taken = if P == PLANES { code_sum() } else { code_sum() >> LOW_BITS };
                    (_mm512_sub_epi32(sums[i], _mm512_set1_epi32(zero * taken)), None)
                }
            };
            let scales = if P == PLANES { &pair.scales } else { &pair.high_scales };
            let scale = _mm512_set1_ps(scales[at / GROUP]);
            let scaled = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(products));
            y_sums[t] = _mm512_fmadd_ps(load_floats(&block.scales[span].0), scaled, y_sums[t]);
            if let Some(scaled) = added {
                y_sums[t] = _mm512_fmadd_ps(load_floats(&block.biases[span].0), scaled, y_sums[t]);
            }
        }
    }
}
