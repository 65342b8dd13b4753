//! NEON: by itself, with products of four codes (`dotprod`), and with products of matrices (`i8mm`).
//!
//! The instructions of the latter two are written in assembly, since stable Rust has no functions for them.

/// Products with one token for one set of features. `$dot` adds to the four sums of sixteen products of codes with
/// activations, no matter which product to which. It takes codes without a sign, or with one if `$shift` is 128: codes
/// of 8 bits come less that, and it is put back, times the sum of the activations.
macro_rules! vectors {
    ($features:literal, $shift:literal, $dot:item) => {
        #[allow(clippy::wildcard_imports)] // the instructions
        use std::arch::aarch64::*;

        use crate::int8::activations::{GROUP, LOW_BITS, PLANES, Pair, SUM};
        use crate::int8::weights::{Block, Codes, E2M1, Offset, ROWS};

        const BYTES: u8 = 0;
        const NIBBLES: u8 = 1;
        const E2M1_CODES: u8 = 2;
        /// What is taken from codes of 8 bits.
        const SHIFT: u8 = $shift;

        /// The products of a block's rows with one token: see [`scalar::vector`](crate::int8::scalar::vector).
        #[target_feature(enable = $features)]
        pub(crate) fn vector(block: &Block<'_>, x: &[Pair], y: &mut [f32; ROWS]) {
            match (block.codes, block.format.width) {
                (Codes::Bytes, 16) => vector_of::<BYTES, 16>(block, x, y),
                (Codes::Bytes, 32) => vector_of::<BYTES, 32>(block, x, y),
                (Codes::Bytes, _) => vector_of::<BYTES, 64>(block, x, y),
                (Codes::Nibbles, 32) => vector_of::<NIBBLES, 32>(block, x, y),
                (Codes::Nibbles, _) => vector_of::<NIBBLES, 64>(block, x, y),
                (Codes::E2m1, _) => vector_of::<E2M1_CODES, 32>(block, x, y),
            }
        }

        /// Spans of `WIDTH` columns.
        #[target_feature(enable = $features)]
        fn vector_of<const CODES: u8, const WIDTH: usize>(
            block: &Block<'_>,
            x: &[Pair],
            y: &mut [f32; ROWS],
        ) {
            let spans = block.scales.len();
            let bytes = if CODES == BYTES { WIDTH } else { WIDTH / 2 };
            assert!(block.rows.len == spans * bytes);
            assert!(spans * WIDTH == block.cols && block.cols <= x.len() * 2 * GROUP);
            let planes = block.format.planes;
            let biased = block.format.offset == Offset::Biases;
            let zero = match block.format.offset {
                Offset::Biases => 0,
                Offset::Zero(zero) => zero,
            } - if CODES == BYTES { i32::from(SHIFT) } else { 0 };
            let rows: [*const u8; ROWS] = std::array::from_fn(|i| block.rows.get(i).as_ptr());
            let (mask, levels) = (vdupq_n_u8(15), load_codes(&E2M1));

            let mut y_sums = [vdupq_n_f32(0.0); ROWS / 4];
            for span in 0..spans {
                let (pair, at) = (&x[span * WIDTH / (2 * GROUP)], span * WIDTH % (2 * GROUP));
                let scale = pair.scales[at / GROUP];
                let code_sum: i32 = pair.sums[planes - 1][at / SUM..][..WIDTH / SUM].iter().sum();
                let (zeros, code_sums) = (vdupq_n_s32(zero * code_sum), vdupq_n_f32(scale * code_sum as f32));
                for (q, y_sums) in y_sums.iter_mut().enumerate() {
                    let mut of_rows = [vdupq_n_s32(0); 4];
                    for (i, sum) in of_rows.iter_mut().enumerate() {
                        let mut of_planes = [vdupq_n_s32(0); PLANES];
                        for part in 0..bytes / 16 {
                            // SAFETY: each row has so many bytes of every span.
                            let codes = unsafe { vld1q_u8(rows[4 * q + i].add(span * bytes + 16 * part)) };
                            if CODES == BYTES {
                                let codes = veorq_u8(codes, vdupq_n_u8(SHIFT));
                                for (plane, sum) in of_planes[..planes].iter_mut().enumerate() {
                                    let x = load(&pair.codes[plane].as_chunks().0[at / 16 + part]);
                                    *sum = dot(*sum, codes, x);
                                }
                            } else {
                                let mut even = vandq_u8(codes, mask);
                                let mut odd = vshrq_n_u8::<4>(codes);
                                if CODES == E2M1_CODES {
                                    even = vqtbl1q_u8(levels, even);
                                    odd = vqtbl1q_u8(levels, odd);
                                }
                                for (plane, sum) in of_planes[..planes].iter_mut().enumerate() {
                                    let halves = pair.halves[plane].as_chunks::<16>().0;
                                    *sum = dot(*sum, even, load(&halves[at / 32 + part]));
                                    *sum = dot(*sum, odd, load(&halves[GROUP / 16 + at / 32 + part]));
                                }
                            }
                        }
                        let [high, low] = of_planes;
                        *sum = vaddq_s32(vshlq_n_s32::<{ LOW_BITS as i32 }>(high), low);
                    }
                    let [a, b, c, d] = of_rows;
                    let products = vsubq_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)), zeros);
                    let scaled = vmulq_f32(vdupq_n_f32(scale), vcvtq_f32_s32(products));
                    *y_sums = vfmaq_f32(*y_sums, load_floats(&block.scales[span].0, 4 * q), scaled);
                    if biased {
                        *y_sums = vfmaq_f32(*y_sums, load_floats(&block.biases[span].0, 4 * q), code_sums);
                    }
                }
            }
            for (y, sums) in y.as_chunks_mut::<4>().0.iter_mut().zip(y_sums) {
                // SAFETY: `y` has 4 floats.
                unsafe { vst1q_f32(y.as_mut_ptr(), sums) };
            }
        }

        #[target_feature(enable = $features)]
        #[inline]
        $dot

        #[target_feature(enable = "neon")]
        #[inline]
        fn load(bytes: &[i8; 16]) -> int8x16_t {
            // SAFETY: 16 bytes.
            unsafe { vld1q_s8(bytes.as_ptr()) }
        }

        #[target_feature(enable = "neon")]
        #[inline]
        fn load_codes(bytes: &[u8; 16]) -> uint8x16_t {
            // SAFETY: 16 bytes.
            unsafe { vld1q_u8(bytes.as_ptr()) }
        }

        /// Four of the values.
        #[target_feature(enable = "neon")]
        #[inline]
        fn load_floats(values: &[f32; 16], first: usize) -> float32x4_t {
            let four = &values[first..first + 4];
            // SAFETY: 4 floats.
            unsafe { vld1q_f32(four.as_ptr()) }
        }
    };
}

/// Products with 16 tokens for one set of features. `$products` are those of one span of eight rows with eight tokens
/// from one on, by row and token, of codes less what `vectors` was told.
macro_rules! tiles {
    ($features:literal, $products:item) => {
        use std::arch::asm;
        use std::ops::Range;

        use crate::int8::activations::{TOKENS, TileGroup, TileGroups};
        use crate::int8::tiles::Sums;

        /// Rows and tokens that share what is loaded.
        const AT_ONCE: usize = 8;
        /// Registers of four sums, by row.
        type Products = [[int32x4_t; AT_ONCE / 4]; AT_ONCE];

        /// See [`tiles::multiply`](crate::int8::tiles::multiply): adds what these spans give.
        #[target_feature(enable = $features)]
        pub(crate) fn add_spans<const WIDTH: usize>(
            block: &Block<'_>,
            weights: &[[[u8; WIDTH]; ROWS]],
            x: TileGroups<'_>,
            spans: Range<usize>,
            sums: &mut Sums,
        ) {
            if spans.start == 0 {
                sums.0 = [[0.0; TOKENS]; ROWS];
            }
            let zero = match block.format.offset {
                Offset::Biases => 0,
                Offset::Zero(zero) => zero,
            } - i32::from(SHIFT);
            for (first_row, first_token) in [(0, 0), (0, AT_ONCE), (AT_ONCE, 0), (AT_ONCE, AT_ONCE)] {
                for (span, weights) in spans.clone().zip(weights) {
                    let (group, at) = (x.of_column(span * WIDTH), span * WIDTH % GROUP);
                    let last = group[block.format.planes - 1];
                    let products = products(
                        &weights.as_chunks().0[first_row / AT_ONCE],
                        group,
                        block.format.planes,
                        at,
                        first_token,
                    );
                    for half in 0..AT_ONCE / 4 {
                        let token = first_token + 4 * half;
                        let mut code_sums = vdupq_n_s32(0);
                        for of_columns in &last.sums[at / SUM..(at + WIDTH) / SUM] {
                            code_sums = vaddq_s32(code_sums, load_ints(of_columns, token));
                        }
                        let (zeros, scales) =
                            (vmulq_n_s32(code_sums, zero), load_floats(&last.scales, token));
                        let code_sums = vmulq_f32(scales, vcvtq_f32_s32(code_sums));
                        for i in 0..AT_ONCE {
                            let row = first_row + i;
                            let scaled =
                                vmulq_f32(scales, vcvtq_f32_s32(vsubq_s32(products[i][half], zeros)));
                            let mut sum = load_floats(&sums.0[row], token);
                            sum = vfmaq_n_f32(sum, scaled, block.scales[span].0[row]);
                            if block.format.offset == Offset::Biases {
                                sum = vfmaq_n_f32(sum, code_sums, block.biases[span].0[row]);
                            }
                            let sums = &mut sums.0[row][token..token + 4];
                            // SAFETY: 4 floats.
                            unsafe { vst1q_f32(sums.as_mut_ptr(), sum) };
                        }
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        #[inline]
        $products

        /// Four of the values.
        #[target_feature(enable = "neon")]
        #[inline]
        fn load_ints(values: &[i32; TOKENS], first: usize) -> int32x4_t {
            let four = &values[first..first + 4];
            // SAFETY: 4 integers.
            unsafe { vld1q_s32(four.as_ptr()) }
        }
    };
}

/// What every processor of this architecture has.
pub(crate) mod plain {
    vectors!(
        "neon",
        128,
        fn dot(sum: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
            // A product of -128 with -127 fits 16 bits, a sum of two does not.
            let codes = vreinterpretq_s8_u8(codes);
            let sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(codes), vget_low_s8(x)));
            vpadalq_s16(sum, vmull_high_s8(codes, x))
        }
    );
}

/// With `sdot`, whose both factors have a sign.
pub(crate) mod dotprod {
    vectors!(
        "neon,dotprod",
        128,
        fn dot(mut sum: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
            // SAFETY: registers alone, and the instruction is among the features.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
                    sum = inout(vreg) sum,
                    codes = in(vreg) codes,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            sum
        }
    );

    tiles!(
        "neon,dotprod",
        fn products<const WIDTH: usize>(
            codes: &[[u8; WIDTH]; AT_ONCE],
            group: [&TileGroup; PLANES],
            planes: usize,
            at: usize,
            first_token: usize,
        ) -> Products {
            let mut sums = [[vdupq_n_s32(0); AT_ONCE / 4]; AT_ONCE];
            for plane in 0..PLANES {
                sums = sums.map(|sums| sums.map(|sum| vshlq_n_s32::<{ LOW_BITS as i32 }>(sum)));
                if plane == planes {
                    break;
                }
                for part in 0..WIDTH / 16 {
                    let mut of_rows = [vdupq_n_u8(0); AT_ONCE];
                    for (of_row, codes) in of_rows.iter_mut().zip(codes) {
                        *of_row = veorq_u8(load_codes(&codes.as_chunks().0[part]), vdupq_n_u8(SHIFT));
                    }
                    for half in 0..AT_ONCE / 4 {
                        let token = first_token + 4 * half;
                        let x = [0, 1, 2, 3].map(|i| {
                            let four = &group[plane].codes[at / 4 + 4 * part + i];
                            four.as_flattened().as_chunks().0[token / 4]
                        });
                        for (sums, codes) in sums.iter_mut().zip(of_rows) {
                            let sum = dot_lane::<0>(sums[half], load(&x[0]), codes);
                            let sum = dot_lane::<1>(sum, load(&x[1]), codes);
                            let sum = dot_lane::<2>(sum, load(&x[2]), codes);
                            sums[half] = dot_lane::<3>(sum, load(&x[3]), codes);
                        }
                    }
                }
            }
            sums
        }
    );

    /// Adds the products of four columns of four tokens with four codes of one row.
    #[target_feature(enable = "neon,dotprod")]
    #[inline]
    fn dot_lane<const LANE: usize>(mut sum: int32x4_t, x: int8x16_t, codes: uint8x16_t) -> int32x4_t {
        // SAFETY: registers alone, and the instruction is among the features.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {x:v}.16b, {codes:v}.4b[{lane}]",
                sum = inout(vreg) sum,
                x = in(vreg) x,
                codes = in(vreg) codes,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
}

/// With `usdot` and `usmmla`, whose first factor has no sign.
pub(crate) mod i8mm {
    vectors!(
        "neon,dotprod,i8mm",
        0,
        fn dot(mut sum: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
            // SAFETY: registers alone, and the instruction is among the features.
            unsafe {
                asm!(
                    "usdot {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
                    sum = inout(vreg) sum,
                    codes = in(vreg) codes,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            sum
        }
    );

    tiles!(
        "neon,dotprod,i8mm",
        fn products<const WIDTH: usize>(
            codes: &[[u8; WIDTH]; AT_ONCE],
            group: [&TileGroup; PLANES],
            planes: usize,
            at: usize,
            first_token: usize,
        ) -> Products {
            // By pair of rows and pair of tokens: the first row's two sums, then the second's.
            let mut sums = [[vdupq_n_s32(0); AT_ONCE / 2]; AT_ONCE / 2];
            for plane in 0..PLANES {
                sums = sums.map(|sums| sums.map(|sum| vshlq_n_s32::<{ LOW_BITS as i32 }>(sum)));
                if plane == planes {
                    break;
                }
                for eight in 0..WIDTH / 8 {
                    // Eight columns of two tokens.
                    let mut x = [vdupq_n_s8(0); AT_ONCE / 2];
                    for (half, x) in x.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                        let [a, b] = [0, 1].map(|i| {
                            let four = &group[plane].codes[at / 4 + 2 * eight + i];
                            let four = four.as_flattened().as_chunks().0[first_token / 4 + half];
                            vreinterpretq_s32_s8(load(&four))
                        });
                        *x = [vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))];
                    }
                    for (sums, [a, b]) in sums.iter_mut().zip(codes.as_chunks().0) {
                        let codes = vcombine_u8(load_half(a, eight), load_half(b, eight));
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = matrix_product(*sum, codes, x);
                        }
                    }
                }
            }
            let mut by_row = [[vdupq_n_s32(0); AT_ONCE / 4]; AT_ONCE];
            for (by_row, sums) in by_row.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
                for (half, [a, b]) in sums.as_chunks::<2>().0.iter().enumerate() {
                    let (a, b) = (vreinterpretq_s64_s32(*a), vreinterpretq_s64_s32(*b));
                    by_row[0][half] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
                    by_row[1][half] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
                }
            }
            by_row
        }
    );

    /// Eight codes of a row.
    #[target_feature(enable = "neon")]
    #[inline]
    fn load_half<const WIDTH: usize>(codes: &[u8; WIDTH], eight: usize) -> uint8x8_t {
        let codes: &[u8; 8] = &codes.as_chunks().0[eight];
        // SAFETY: 8 bytes.
        unsafe { vld1_u8(codes.as_ptr()) }
    }

    /// Adds the products of eight columns of two rows with two tokens.
    #[target_feature(enable = "neon,dotprod,i8mm")]
    #[inline]
    fn matrix_product(mut sums: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: registers alone, and the instruction is among the features.
        unsafe {
            asm!(
                "usmmla {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}
