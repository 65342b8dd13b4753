//! AVX2 with FMA, with and without AVX-VNNI.

/// The kernels for one set of features; `$dot` adds to each of eight sums the products of four codes, of at most
/// 4 bits if its last argument says so, with four activations.
macro_rules! kernels {
    ($module:ident, $features:literal, $dot:item) => {
        pub(crate) mod $module {
            #[allow(clippy::wildcard_imports)] // the instructions
            use std::arch::x86_64::*;

            use crate::int8::activations::{GROUP, LOW_BITS, PLANES, Pair, SUM};
            use crate::int8::weights::{Block, Codes, E2M1, Offset, ROWS};

            const BYTES: u8 = 0;
            const NIBBLES: u8 = 1;
            const E2M1_CODES: u8 = 2;
            /// Rows whose sums are held together.
            const LANES: usize = 8;

            /// The products of a block's rows with one token: see [`scalar::vector`](crate::int8::scalar::vector).
            #[target_feature(enable = $features)]
            pub(crate) fn vector(block: &Block<'_>, x: &[Pair], y: &mut [f32; ROWS]) {
                for (half, y) in y.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    match (block.codes, block.format.width) {
                        (Codes::Bytes, 16) => half_of::<BYTES, 1, 2>(block, half * LANES, x, y),
                        (Codes::Bytes, 32) => half_of::<BYTES, 1, 1>(block, half * LANES, x, y),
                        (Codes::Bytes, _) => half_of::<BYTES, 2, 1>(block, half * LANES, x, y),
                        (Codes::Nibbles, 32) => half_of::<NIBBLES, 1, 2>(block, half * LANES, x, y),
                        (Codes::Nibbles, _) => half_of::<NIBBLES, 1, 1>(block, half * LANES, x, y),
                        (Codes::E2m1, _) => half_of::<E2M1_CODES, 1, 2>(block, half * LANES, x, y),
                    }
                }
            }

            /// Eight rows, `LOADS` times 32 bytes of each at a time, which hold `SPANS` spans.
            #[target_feature(enable = $features)]
            fn half_of<const CODES: u8, const LOADS: usize, const SPANS: usize>(
                block: &Block<'_>,
                first_row: usize,
                x: &[Pair],
                y: &mut [f32; LANES],
            ) {
                let rows: [&[u8]; LANES] = std::array::from_fn(|i| block.rows.get(first_row + i));
                let bytes = rows[0].len();
                assert!(rows.iter().all(|row| row.len() == bytes));
                let spans = block.scales.len();
                let columns = if CODES == BYTES { 32 * LOADS } else { 64 };
                let width = columns / SPANS;
                assert!(spans * width == block.cols && block.cols <= x.len() * 2 * GROUP);
                // Only halves of bytes end within 32 bytes, and they are loaded once.
                let whole = bytes / (32 * LOADS);
                let mut tails = [[0_u8; 32]; LANES];
                let whole_rows: [*const u8; LANES] = std::array::from_fn(|i| rows[i].as_ptr());
                let mut tail_rows = whole_rows;
                if bytes > whole * 32 * LOADS {
                    for i in 0..LANES {
                        let tail = &rows[i][whole * 32 * LOADS..];
                        tails[i][..tail.len()].copy_from_slice(tail);
                        tail_rows[i] = tails[i].as_ptr();
                    }
                }
                let planes = block.format.planes;
                let biased = block.format.offset == Offset::Biases;
                let zero = match block.format.offset {
                    Offset::Biases => 0,
                    Offset::Zero(zero) => zero,
                };
                let mask = _mm256_set1_epi8(15);
                let levels = _mm256_broadcastsi128_si256(load128(&E2M1));

                let mut y_sums = _mm256_setzero_ps();
                for unit in 0..bytes.div_ceil(32 * LOADS) {
                    let (rows, at) =
                        if unit < whole { (&whole_rows, unit * 32 * LOADS) } else { (&tail_rows, 0) };
                    let pair = &x[unit * columns / (2 * GROUP)];
                    let in_pair = unit * columns % (2 * GROUP);
                    // Products added within each 16 bytes: of the `q`-th sums, 128 bits hold four rows from `4q` on.
                    let mut sums = [_mm256_setzero_si256(); 2];
                    for q in 0..2 {
                        let mut of_rows = [_mm256_setzero_si256(); 4];
                        for i in 0..4 {
                            let row = rows[4 * q + i].wrapping_add(at);
                            let mut of_planes = [_mm256_setzero_si256(); PLANES];
                            for part in 0..LOADS {
                                // SAFETY: `whole` counts whole loads of each row, and each tail has 32 bytes.
                                let codes = unsafe { _mm256_loadu_si256(row.wrapping_add(32 * part).cast()) };
                                if CODES == BYTES {
                                    for (plane, sum) in of_planes[..planes].iter_mut().enumerate() {
                                        let x = load(&pair.codes[plane].as_chunks().0[in_pair / 32 + part]);
                                        *sum = dot(*sum, codes, x, false);
                                    }
                                } else {
                                    let mut even = _mm256_and_si256(codes, mask);
                                    let mut odd = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
                                    if CODES == E2M1_CODES {
                                        even = _mm256_shuffle_epi8(levels, even);
                                        odd = _mm256_shuffle_epi8(levels, odd);
                                    }
                                    for (plane, sum) in of_planes[..planes].iter_mut().enumerate() {
                                        let halves = pair.halves[plane].as_chunks::<32>().0;
                                        *sum = dot(*sum, even, load(&halves[in_pair / 64]), true);
                                        *sum = dot(*sum, odd, load(&halves[2 + in_pair / 64]), true);
                                    }
                                }
                            }
                            let [high, low] = of_planes;
                            of_rows[i] = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(high), low);
                        }
                        let [a, b, c, d] = of_rows;
                        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
                        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
                        sums[q] = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
                    }
                    let low = _mm256_permute2x128_si256::<0x20>(sums[0], sums[1]);
                    let high = _mm256_permute2x128_si256::<0x31>(sums[0], sums[1]);
                    let sums = if SPANS == 1 { [_mm256_add_epi32(low, high), high] } else { [low, high] };
                    for i in 0..SPANS {
                        let span = unit * SPANS + i;
                        if span >= spans {
                            break;
                        }
                        let at = in_pair + i * width;
                        let scale = pair.scales[at / GROUP];
                        let mut code_sum = 0;
                        for sum in 0..width / SUM {
                            code_sum += pair.sums[planes - 1][at / SUM + sum];
                        }
                        let products = _mm256_sub_epi32(sums[i], _mm256_set1_epi32(zero * code_sum));
                        let scaled = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(products));
                        let scales = load_floats(&block.scales[span].0, first_row);
                        y_sums = _mm256_fmadd_ps(scales, scaled, y_sums);
                        if biased {
                            let biases = load_floats(&block.biases[span].0, first_row);
                            y_sums = _mm256_fmadd_ps(biases, _mm256_set1_ps(scale * code_sum as f32), y_sums);
                        }
                    }
                }
                // SAFETY: `y` has 8 floats.
                unsafe { _mm256_storeu_ps(y.as_mut_ptr(), y_sums) };
            }

            #[target_feature(enable = $features)]
            #[inline]
            $dot

            #[target_feature(enable = "avx2")]
            #[inline]
            fn load(bytes: &[i8; 32]) -> __m256i {
                // SAFETY: 32 bytes.
                unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
            }

            #[target_feature(enable = "avx2")]
            #[inline]
            fn load128(bytes: &[u8; 16]) -> __m128i {
                // SAFETY: 16 bytes.
                unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
            }

            /// Half of the rows' values.
            #[target_feature(enable = "avx2")]
            #[inline]
            fn load_floats(values: &[f32; ROWS], first: usize) -> __m256 {
                let half = &values[first..first + LANES];
                // SAFETY: 8 floats.
                unsafe { _mm256_loadu_ps(half.as_ptr()) }
            }
        }
    };
}

kernels!(
    plain,
    "avx2,fma",
    fn dot(sum: __m256i, codes: __m256i, x: __m256i, narrow: bool) -> __m256i {
        if narrow {
            // Sums of two products of up to 24 with up to 127 fit 16 bits.
            let pairs = _mm256_maddubs_epi16(codes, x);
            return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        // Sums of two products of up to 255 with 127 do not: even and odd bytes apart.
        let even = _mm256_and_si256(codes, _mm256_set1_epi16(255));
        let odd = _mm256_srli_epi16::<8>(codes);
        let x_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
        let x_odd = _mm256_srai_epi16::<8>(x);
        let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, x_even));
        _mm256_add_epi32(sum, _mm256_madd_epi16(odd, x_odd))
    }
);

kernels!(
    vnni,
    "avx2,fma,avxvnni",
    fn dot(sum: __m256i, codes: __m256i, x: __m256i, _narrow: bool) -> __m256i {
        _mm256_dpbusd_avx_epi32(sum, codes, x)
    }
);
