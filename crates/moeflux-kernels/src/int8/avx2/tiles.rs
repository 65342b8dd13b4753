//! A block of rows with a tile of tokens, or its first half.

/// The kernels for one set of features, with the products of the same name.
macro_rules! tiles {
    ($module:ident, $features:literal) => {
        pub(in crate::int8) mod $module {
            #[allow(clippy::wildcard_imports)] // the instructions
            use std::arch::x86_64::*;
            use std::ops::Range;

            use super::super::columns::LANES;
            use super::super::dots::$module as dots;
            use super::{Four, Scaled, load_codes, rolled};
            use crate::int8::activations::{GROUP, LOW_BITS, TileGroups};
            use crate::int8::tiles::Sums;
            use crate::int8::weights::{Block, ROWS};

            /// See [`tiles::multiply`](crate::int8::tiles::multiply): adds what these spans give to the sums of `n` tokens.
            #[target_feature(enable = $features)]
            pub(in crate::int8) fn add_spans<const WIDTH: usize>(
                block: &Block<'_>,
                weights: &[[[u8; WIDTH]; ROWS]],
                x: TileGroups<'_>,
                spans: Range<usize>,
                n: usize,
                sums: &mut Sums,
            ) {
                if spans.start == 0 {
                    sums.0.as_flattened_mut().fill(0.0);
                }
                match (block.format.is_narrow, n > LANES) {
                    (true, false) => add_narrow::<WIDTH, 1, 8>(block, weights, x, spans, sums),
                    (true, true) => add_narrow::<WIDTH, 2, 4>(block, weights, x, spans, sums),
                    (false, false) => add_wide::<WIDTH, 1, 8>(block, weights, x, spans, sums),
                    (false, true) => add_wide::<WIDTH, 2, 4>(block, weights, x, spans, sums),
                }
            }

            /// Codes below 16 with `VECTORS` times eight tokens, so many rows `AT_ONCE`, one plane after the other.
            #[target_feature(enable = $features)]
            fn add_narrow<const WIDTH: usize, const VECTORS: usize, const AT_ONCE: usize>(
                block: &Block<'_>,
                weights: &[[[u8; WIDTH]; ROWS]],
                x: TileGroups<'_>,
                spans: Range<usize>,
                sums: &mut Sums,
            ) {
                /// What [`dots::step`] takes before [`dots::total`].
                const STEPS: usize = 8;
                let steps = rolled(STEPS.min(WIDTH / 4));
                for (span, weights) in spans.zip(weights) {
                    let at = span * WIDTH % GROUP;
                    let groups = x.of_column(span * WIDTH);
                    let groups = &groups[..block.format.planes];
                    let scaled = Scaled::<VECTORS>::new(block, groups[groups.len() - 1], at, WIDTH);
                    for first_row in (0..ROWS).step_by(AT_ONCE) {
                        let mut products = [[_mm256_setzero_si256(); VECTORS]; AT_ONCE];
                        for (plane, group) in groups.iter().enumerate() {
                            if plane > 0 {
                                for of_row in &mut products {
                                    for product in of_row {
                                        *product = _mm256_slli_epi32::<{ LOW_BITS as i32 }>(*product);
                                    }
                                }
                            }
                            let columns = &group.codes[at / 4..][..WIDTH / 4];
                            let (mut codes, mut x) = (weights[first_row].as_ptr(), columns.as_ptr());
                            for _ in 0..WIDTH.div_ceil(4 * STEPS) {
                                let mut sums = [[_mm256_setzero_si256(); VECTORS]; AT_ONCE];
                                for _ in 0..steps {
                                    // SAFETY: as many steps as the columns have fours.
                                    let four = unsafe { Four::<VECTORS>::load(x) };
                                    for i in 0..AT_ONCE {
                                        // SAFETY: as above, and `AT_ONCE` rows of `WIDTH` codes begin at the first.
                                        let codes = unsafe { load_codes(codes.add(i * WIDTH)) };
                                        for v in 0..VECTORS {
                                            sums[i][v] = dots::step(sums[i][v], codes, four.0[v]);
                                        }
                                    }
                                    (codes, x) = (codes.wrapping_add(4), x.wrapping_add(1));
                                }
                                for i in 0..AT_ONCE {
                                    for v in 0..VECTORS {
                                        let total = dots::total(sums[i][v]);
                                        products[i][v] = _mm256_add_epi32(products[i][v], total);
                                    }
                                }
                            }
                        }
                        for i in 0..AT_ONCE {
                            scaled.add(block, span, first_row + i, products[i], &mut sums.0[first_row + i]);
                        }
                    }
                }
            }

            /// Codes of any size with both planes of `VECTORS` times eight tokens, so many rows `AT_ONCE`.
            #[target_feature(enable = $features)]
            fn add_wide<const WIDTH: usize, const VECTORS: usize, const AT_ONCE: usize>(
                block: &Block<'_>,
                weights: &[[[u8; WIDTH]; ROWS]],
                x: TileGroups<'_>,
                spans: Range<usize>,
                sums: &mut Sums,
            ) {
                let fours = rolled(WIDTH / 4);
                for (span, weights) in spans.zip(weights) {
                    let at = span * WIDTH % GROUP;
                    let [high, low] = x.of_column(span * WIDTH);
                    let scaled = Scaled::<VECTORS>::new(block, low, at, WIDTH);
                    let mut joined = [[Four([_mm256_setzero_si256(); VECTORS]); GROUP / 4]; 2];
                    let columns = high.codes[at / 4..].iter().zip(&low.codes[at / 4..]);
                    for (four, (high, low)) in columns.enumerate().take(WIDTH / 4) {
                        // SAFETY: both are whole columns.
                        let [high, low] = [high, low].map(|four| unsafe { Four::<VECTORS>::load(four) });
                        for v in 0..VECTORS {
                            let [first, second] = dots::join(high.0[v], low.0[v]);
                            joined[0][four].0[v] = first;
                            joined[1][four].0[v] = second;
                        }
                    }
                    for first_row in (0..ROWS).step_by(AT_ONCE) {
                        let mut products = [[_mm256_setzero_si256(); VECTORS]; AT_ONCE];
                        let (mut codes, mut x) = (weights[first_row].as_ptr(), joined[0].as_ptr());
                        for _ in 0..fours {
                            // SAFETY: as many fours as a row of codes and `joined` have.
                            let four = unsafe { *x };
                            for i in 0..AT_ONCE {
                                // SAFETY: as above, and `AT_ONCE` rows of `WIDTH` codes begin at the first.
                                let codes = unsafe { load_codes(codes.add(i * WIDTH)) };
                                for v in 0..VECTORS {
                                    products[i][v] = dots::first(products[i][v], codes, four.0[v]);
                                }
                            }
                            (codes, x) = (codes.wrapping_add(4), x.wrapping_add(1));
                        }
                        for i in 0..AT_ONCE {
                            for v in 0..VECTORS {
                                products[i][v] = dots::between(products[i][v]);
                            }
                        }
                        (codes, x) = (weights[first_row].as_ptr(), joined[1].as_ptr());
                        for _ in 0..fours {
                            // SAFETY: as above.
                            let four = unsafe { *x };
                            for i in 0..AT_ONCE {
                                // SAFETY: as above.
                                let codes = unsafe { load_codes(codes.add(i * WIDTH)) };
                                for v in 0..VECTORS {
                                    products[i][v] = dots::second(products[i][v], codes, four.0[v]);
                                }
                            }
                            (codes, x) = (codes.wrapping_add(4), x.wrapping_add(1));
                        }
                        for i in 0..AT_ONCE {
                            scaled.add(block, span, first_row + i, products[i], &mut sums.0[first_row + i]);
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
use crate::int8::activations::{LOW_BITS, SUM, TOKENS, TileGroup};
use crate::int8::weights::{Block, Offset};

tiles!(plain, "avx2,fma");
tiles!(vnni, "avx2,fma,avxvnni");
#[cfg(test)]
tiles!(emulated, "avx2,fma");

/// What the rows of a span share: of `VECTORS` times eight tokens.
struct Scaled<const VECTORS: usize> {
    /// What products are multiplied with: the tokens' scales, or, of the high plane alone, 16 times those.
    scales: [__m256; VECTORS],
    /// What is taken from the products.
    zeros: [__m256i; VECTORS],
    /// The tokens' scales times their sums of codes.
    sums: [__m256; VECTORS],
}

impl<const VECTORS: usize> Scaled<VECTORS> {
    /// Of `width` columns from column `at` of a group on, whose last plane that is multiplied is given.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn new(block: &Block<'_>, group: &TileGroup, at: usize, width: usize) -> Self {
        let is_high = block.format.planes == 1;
        let mut scaled = Scaled {
            scales: [_mm256_setzero_ps(); VECTORS],
            zeros: [_mm256_setzero_si256(); VECTORS],
            sums: [_mm256_setzero_ps(); VECTORS],
        };
        for v in 0..VECTORS {
            let mut sums = _mm256_setzero_si256();
            for of_columns in &group.sums[at / SUM..(at + width) / SUM] {
                let of_columns = &of_columns[v * LANES..][..LANES];
                // SAFETY: 8 integers.
                let of_columns = unsafe { _mm256_loadu_si256(of_columns.as_ptr().cast()) };
                sums = _mm256_add_epi32(sums, of_columns);
            }
            let scales = load_floats(&group.scales[v * LANES..]);
            scaled.sums[v] = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(sums));
            if let Offset::Zero(zero) = block.format.offset {
                let taken = if is_high { _mm256_srai_epi32::<{ LOW_BITS as i32 }>(sums) } else { sums };
                scaled.zeros[v] = _mm256_mullo_epi32(taken, _mm256_set1_epi32(zero));
            }
            let sixteen = _mm256_set1_ps(f32::from(1_u8 << LOW_BITS));
            scaled.scales[v] = if is_high { _mm256_mul_ps(scales, sixteen) } else { scales };
        }
        scaled
    }

    /// Adds to the sums of one row what a span gives.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn add(
        &self,
        block: &Block<'_>,
        span: usize,
        row: usize,
        products: [__m256i; VECTORS],
        sums: &mut [f32; TOKENS],
    ) {
        let scale = _mm256_set1_ps(block.scales[span].0[row]);
        for (v, sums) in sums.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(VECTORS) {
            let products = _mm256_cvtepi32_ps(_mm256_sub_epi32(products[v], self.zeros[v]));
            let mut sum = _mm256_fmadd_ps(scale, _mm256_mul_ps(self.scales[v], products), load_floats(sums));
            if block.format.offset == Offset::Biases {
                sum = _mm256_fmadd_ps(_mm256_set1_ps(block.biases[span].0[row]), self.sums[v], sum);
            }
            // SAFETY: 8 floats.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), sum) };
        }
    }
}

/// Four columns of `VECTORS` times eight tokens.
#[derive(Clone, Copy)]
struct Four<const VECTORS: usize>([__m256i; VECTORS]);

impl<const VECTORS: usize> Four<VECTORS> {
    /// # Safety
    /// The columns can be read.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load(columns: *const [[i8; 4]; TOKENS]) -> Self {
        const { assert!(VECTORS * LANES <= TOKENS) };
        let mut four = [_mm256_setzero_si256(); VECTORS];
        for (v, four) in four.iter_mut().enumerate() {
            #[expect(clippy::cast_ptr_alignment, reason = "the load is of unaligned memory")]
            // SAFETY: the caller says so.
            let loaded = unsafe { _mm256_loadu_si256(columns.cast::<__m256i>().add(v)) };
            *four = loaded;
        }
        Four(four)
    }
}

/// Four codes in each 32 bits.
///
/// # Safety
/// Four bytes can be read.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_codes(codes: *const u8) -> __m256i {
    // SAFETY: the caller says so.
    _mm256_set1_epi32(unsafe { codes.cast::<i32>().read_unaligned() })
}

/// A number that the compiler does not know, or it would unroll the loop and keep all of the tokens' codes on the stack.
#[inline(always)]
fn rolled(count: usize) -> usize {
    std::hint::black_box(count)
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_floats(values: &[f32]) -> __m256 {
    let values = &values[..LANES];
    // SAFETY: 8 floats.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}
