//! A block of rows with one token, or a few that share what is read of the rows.

/// The kernels for one set of features, with the products of the same name.
macro_rules! vectors {
    ($module:ident, $features:literal) => {
        pub(in crate::int8) mod $module {
            #[allow(clippy::wildcard_imports)] // the instructions
            use std::arch::x86_64::*;

            use super::super::columns::LANES;
            use super::super::dots::$module as dots;
            use super::{BYTES, E2M1_CODES, NIBBLES, by_row, load, load_floats};
            use crate::int8::activations::{GROUP, LOW_BITS, PLANES, Pair, SUM};
            use crate::int8::weights::{Block, Codes, E2M1, Offset, ROWS, prefetch};

            /// The products of a block's rows with each of `N` tokens, which share what is read of the rows: see
            /// [`scalar::vector`](crate::int8::scalar::vector).
            #[target_feature(enable = $features)]
            pub(in crate::int8) fn vectors<const N: usize>(
                block: &Block<'_>,
                x: [&[Pair]; N],
                y: &mut [[f32; ROWS]; N],
            ) {
                match block.format.planes {
                    1 => vectors_of_planes::<N, 1>(block, x, y),
                    _ => vectors_of_planes::<N, PLANES>(block, x, y),
                }
            }

            #[target_feature(enable = $features)]
            fn vectors_of_planes<const N: usize, const P: usize>(
                block: &Block<'_>,
                x: [&[Pair]; N],
                y: &mut [[f32; ROWS]; N],
            ) {
                match (block.codes, block.format.width) {
                    (Codes::Bytes, 16) => vectors_of::<N, P, BYTES, 1, 2>(block, x, y),
                    (Codes::Bytes, 32) => vectors_of::<N, P, BYTES, 1, 1>(block, x, y),
                    (Codes::Bytes, _) => vectors_of::<N, P, BYTES, 2, 1>(block, x, y),
                    (Codes::Nibbles, 32) => vectors_of::<N, P, NIBBLES, 1, 2>(block, x, y),
                    (Codes::Nibbles, _) => vectors_of::<N, P, NIBBLES, 1, 1>(block, x, y),
                    (Codes::E2m1, _) => vectors_of::<N, P, E2M1_CODES, 1, 2>(block, x, y),
                }
            }

            /// `LOADS` times 32 bytes of each row at a time, which hold `SPANS` spans, times `P` planes.
            #[target_feature(enable = $features)]
            fn vectors_of<
                const N: usize,
                const P: usize,
                const CODES: u8,
                const LOADS: usize,
                const SPANS: usize,
            >(
                block: &Block<'_>,
                tokens: [&[Pair]; N],
                y: &mut [[f32; ROWS]; N],
            ) {
                let columns = if CODES == BYTES { 32 * LOADS } else { 64 };
                let spans = block.scales.len();
                assert!(spans * (columns / SPANS) == block.cols);
                assert!(tokens.iter().all(|x| block.cols <= x.len() * 2 * GROUP));
                let whole = block.rows.len / (32 * LOADS);
                let mut sums = [[_mm256_setzero_ps(); 2]; N];
                for unit in 0..whole {
                    add_unit::<N, P, CODES, LOADS, SPANS, true>(block, unit, tokens, &mut sums);
                }
                // Only halves of bytes end within 32 bytes: with 16.
                if block.rows.len > whole * 32 * LOADS {
                    assert!(LOADS == 1 && block.rows.len == whole * 32 + 16);
                    add_unit::<N, P, CODES, LOADS, SPANS, false>(block, whole, tokens, &mut sums);
                }
                for t in 0..N {
                    for (y, sums) in y[t].as_chunks_mut::<LANES>().0.iter_mut().zip(sums[t]) {
                        // SAFETY: `y` has 8 floats.
                        unsafe { _mm256_storeu_ps(y.as_mut_ptr(), sums) };
                    }
                }
            }

            /// Adds what `LOADS` times 32 bytes of each row give, or, if they are not `WHOLE`, the last 16.
            #[target_feature(enable = $features)]
            #[inline]
            fn add_unit<
                const N: usize,
                const P: usize,
                const CODES: u8,
                const LOADS: usize,
                const SPANS: usize,
                const WHOLE: bool,
            >(
                block: &Block<'_>,
                unit: usize,
                tokens: [&[Pair]; N],
                y_sums: &mut [[__m256; 2]; N],
            ) {
                let columns = if CODES == BYTES { 32 * LOADS } else { 64 };
                let width = columns / SPANS;
                let pairs: [&Pair; N] = std::array::from_fn(|t| &tokens[t][unit * columns / (2 * GROUP)]);
                let in_pair = unit * columns % (2 * GROUP);
                // Of halves of bytes each plane of the even columns and of the odd ones; of bytes each plane of each load,
                // or, of two planes, what is made of them for each load.
                let mut x = [[[_mm256_setzero_si256(); 2]; 2]; N];
                for t in 0..N {
                    if CODES != BYTES {
                        for plane in 0..P {
                            let halves = pairs[t].halves[plane].as_chunks::<32>().0;
                            x[t][plane] = [load(&halves[in_pair / 64]), load(&halves[2 + in_pair / 64])];
                        }
                        continue;
                    }
                    for part in 0..LOADS {
                        let [high, low] = &pairs[t].codes;
                        let at = in_pair / 32 + part;
                        let high = load(&high.as_chunks().0[at]);
                        if P == PLANES {
                            x[t][part] = dots::join(high, load(&low.as_chunks().0[at]));
                        } else {
                            x[t][0][part] = high;
                        }
                    }
                }
                // What the rows of a span share.
                let biased = block.format.offset == Offset::Biases;
                let mut scales = [[0.0; SPANS]; N];
                let mut scaled_sums = [[0.0; SPANS]; N];
                let mut taken = [[0; SPANS]; N];
                for t in 0..N {
                    let pair = pairs[t];
                    for i in 0..SPANS {
                        let at = in_pair + i * width;
                        scales[t][i] = if P == PLANES { pair.scales } else { pair.high_scales }[at / GROUP];
                        if width == GROUP && biased {
                            scaled_sums[t][i] = pair.scaled_sums[P - 1][at / GROUP];
                            continue;
                        }
                        let mut sum = 0;
                        for of_columns in &pair.sums[P - 1][at / SUM..][..width / SUM] {
                            sum += of_columns;
                        }
                        match block.format.offset {
                            Offset::Biases => scaled_sums[t][i] = pair.scales[at / GROUP] * sum as f32,
                            Offset::Zero(zero) if P == PLANES => taken[t][i] = zero * sum,
                            Offset::Zero(zero) => taken[t][i] = zero * (sum >> LOW_BITS),
                        }
                    }
                }
                let nibble = _mm256_set1_epi8(15);
                // SAFETY: 16 bytes.
                let levels = unsafe { _mm_loadu_si128(E2M1.as_ptr().cast()) };
                let levels = _mm256_broadcastsi128_si256(levels);
                let zero = _mm256_setzero_si256();
                let mut row = block.rows.first().wrapping_add(unit * 32 * LOADS);
                // A line of the next block for each two times 32 bytes of this one.
                let mut next = block.next.unit(unit * LOADS / 2);
                if LOADS == 1 && unit % 2 == 1 {
                    next = next.wrapping_add(ROWS / 2 * block.next.line_step);
                }
                for half in 0..2 {
                    // Products added within each 16 bytes: of the `q`-th sums, 128 bits hold four rows from `4q` on.
                    // Of one plane they are a sixteenth of the definition's.
                    let mut sums = [[zero; 2]; N];
                    for q in 0..2 {
                        let mut of_rows = [[zero; 4]; N];
                        for i in 0..4 {
                            let mut codes = [zero; 2];
                            // SAFETY: each row has so many bytes from there.
                            unsafe {
                                if WHOLE {
                                    for part in 0..LOADS {
                                        codes[part] = _mm256_loadu_si256(row.wrapping_add(32 * part).cast());
                                    }
                                } else {
                                    codes[0] = _mm256_zextsi128_si256(_mm_loadu_si128(row.cast()));
                                }
                            }
                            if LOADS == 2 || i % 2 == 0 {
                                prefetch(next);
                                next = next.wrapping_add(block.next.line_step);
                            }
                            row = row.wrapping_add(block.rows.stride);
                            if CODES != BYTES {
                                let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(codes[0]), nibble);
                                codes = [_mm256_and_si256(codes[0], nibble), odd];
                                if CODES == E2M1_CODES {
                                    codes[0] = _mm256_shuffle_epi8(levels, codes[0]);
                                    codes[1] = _mm256_shuffle_epi8(levels, codes[1]);
                                }
                            }
                            for t in 0..N {
                                of_rows[t][i] = if P == 1 {
                                    let sum = dots::step(zero, codes[0], x[t][0][0]);
                                    dots::total(if CODES == BYTES && LOADS == 1 {
                                        sum
                                    } else {
                                        dots::step(sum, codes[1], x[t][0][1])
                                    })
                                } else if CODES == BYTES {
                                    let mut sum = zero;
                                    for part in 0..LOADS {
                                        sum = dots::first(sum, codes[part], x[t][part][0]);
                                    }
                                    sum = dots::between(sum);
                                    for part in 0..LOADS {
                                        sum = dots::second(sum, codes[part], x[t][part][1]);
                                    }
                                    sum
                                } else {
                                    dots::both_planes(codes, x[t][0], x[t][1])
                                };
                            }
                        }
                        for t in 0..N {
                            sums[t][q] = by_row::<P>(of_rows[t]);
                        }
                    }
                    for t in 0..N {
                        let low = _mm256_permute2x128_si256::<0x20>(sums[t][0], sums[t][1]);
                        let high = _mm256_permute2x128_si256::<0x31>(sums[t][0], sums[t][1]);
                        let sums = if SPANS == 1 { [_mm256_add_epi32(low, high), zero] } else { [low, high] };
                        for i in 0..SPANS {
                            let span = unit * SPANS + i;
                            if !WHOLE && span >= block.scales.len() {
                                break;
                            }
                            let products = _mm256_sub_epi32(sums[i], _mm256_set1_epi32(taken[t][i]));
                            let scale = _mm256_set1_ps(scales[t][i]);
                            let scaled = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(products));
                            let of_rows = load_floats(&block.scales[span].0, half * LANES);
                            y_sums[t][half] = _mm256_fmadd_ps(of_rows, scaled, y_sums[t][half]);
                            if biased {
                                let of_rows = load_floats(&block.biases[span].0, half * LANES);
                                let scaled = _mm256_set1_ps(scaled_sums[t][i]);
                                y_sums[t][half] = _mm256_fmadd_ps(of_rows, scaled, y_sums[t][half]);
                            }
                        }
                    }
                }
            }
        }
    };
}

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

use super::columns::LANES;
use crate::int8::activations::PLANES;
use crate::int8::weights::ROWS;

vectors!(plain, "avx2,fma");
vectors!(vnni, "avx2,fma,avxvnni");
#[cfg(test)]
vectors!(emulated, "avx2,fma");

const BYTES: u8 = 0;
const NIBBLES: u8 = 1;
const E2M1_CODES: u8 = 2;

/// Within each 128 bits the sum of each of four rows' sums. With one plane they are of at most 8 products each, of 15 with 127, so
/// that 16 bits hold two of them.
#[target_feature(enable = "avx2")]
#[inline]
fn by_row<const P: usize>([a, b, c, d]: [__m256i; 4]) -> __m256i {
    if P == PLANES {
        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    }
    let ones = _mm256_set1_epi16(1);
    let ab = _mm256_madd_epi16(_mm256_packs_epi32(a, b), ones);
    let cd = _mm256_madd_epi16(_mm256_packs_epi32(c, d), ones);
    _mm256_madd_epi16(_mm256_packs_epi32(ab, cd), ones)
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Half of the rows' values.
#[target_feature(enable = "avx2")]
#[inline]
fn load_floats(values: &[f32; ROWS], first: usize) -> __m256 {
    let half = &values[first..][..LANES];
    // SAFETY: 8 floats.
    unsafe { _mm256_loadu_ps(half.as_ptr()) }
}
