//! Products of codes with activations, by the instructions that a processor has for them: `plain` AVX2, or AVX-VNNI's sums
//! of four products. Codes are never negative; narrow ones are below 25.
#![allow(clippy::wildcard_imports)] // the instructions

use std::arch::x86_64::*;

/// Products of pairs in 16 bits.
pub(super) mod plain {
    use super::*;
    use crate::int8::activations::LOW_BITS;

    /// Adds the products of four codes below 16 in each 32 bits to a sum that [`total`] ends. It holds eight such steps.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn step(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // Each 16 bits sum two products a step, of at most 15·127.
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x))
    }

    /// What the steps made, in 32 bits.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn total(sum: __m256i) -> __m256i {
        _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
    }

    /// The sums of the products of two times four narrow codes with both planes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn both_planes(
        codes: [__m256i; 2],
        high: [__m256i; 2],
        low: [__m256i; 2],
    ) -> __m256i {
        let pairs = |x: [__m256i; 2]| {
            let [a, b] = [_mm256_maddubs_epi16(codes[0], x[0]), _mm256_maddubs_epi16(codes[1], x[1])];
            _mm256_add_epi16(a, b)
        };
        let sixteen = _mm256_set1_epi16(1 << LOW_BITS);
        _mm256_add_epi32(_mm256_madd_epi16(pairs(high), sixteen), total(pairs(low)))
    }

    /// Activations of 12 bits as [`first`] and [`second`] take them: even columns, then odd ones, in 16 bits each.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn join(high: __m256i, low: __m256i) -> [__m256i; 2] {
        const TIMES_16: i32 = 8 - LOW_BITS as i32;
        let (high_even, low_even) = (_mm256_slli_epi16::<8>(high), _mm256_slli_epi16::<8>(low));
        let high_odd = _mm256_and_si256(high, _mm256_set1_epi16(0xff00_u16 as i16));
        [
            _mm256_add_epi16(_mm256_srai_epi16::<TIMES_16>(high_even), _mm256_srai_epi16::<8>(low_even)),
            _mm256_add_epi16(_mm256_srai_epi16::<TIMES_16>(high_odd), _mm256_srai_epi16::<8>(low)),
        ]
    }

    /// Adds to a sum the products of codes of up to 8 bits with the first of what [`join`] gave.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn first(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        let even = _mm256_and_si256(codes, _mm256_set1_epi16(255));
        _mm256_add_epi32(sum, _mm256_madd_epi16(even, x))
    }

    /// Between all products with the first and all with the second.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn between(sum: __m256i) -> __m256i {
        sum
    }

    /// Adds to a sum the products with the second.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(in super::super) fn second(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), x))
    }
}

/// The same with an instruction that adds four products to each 32 bits.
macro_rules! sums_of_four {
    ($module:ident, $features:literal, $dot:path) => {
        pub(super) mod $module {
            use super::*;
            use crate::int8::activations::LOW_BITS;

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn step(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
                $dot(sum, codes, x)
            }

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn total(sum: __m256i) -> __m256i {
                sum
            }

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn both_planes(
                codes: [__m256i; 2],
                high: [__m256i; 2],
                low: [__m256i; 2],
            ) -> __m256i {
                let sum = $dot($dot(_mm256_setzero_si256(), codes[0], high[0]), codes[1], high[1]);
                $dot($dot(between(sum), codes[0], low[0]), codes[1], low[1])
            }

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn join(high: __m256i, low: __m256i) -> [__m256i; 2] {
                [high, low]
            }

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn first(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
                $dot(sum, codes, x)
            }

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn between(sum: __m256i) -> __m256i {
                _mm256_slli_epi32::<{ LOW_BITS as i32 }>(sum)
            }

            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn second(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
                $dot(sum, codes, x)
            }
        }
    };
}

sums_of_four!(vnni, "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);

// Lets tests take the kernels for AVX-VNNI on processors that lack it.
#[cfg(test)]
sums_of_four!(emulated, "avx2,fma", super::emulated_dot);

/// What `vpdpbusd` does.
#[cfg(test)]
#[target_feature(enable = "avx2,fma")]
fn emulated_dot(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    let even = _mm256_and_si256(codes, _mm256_set1_epi16(255));
    let x_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
    let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, x_even));
    let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), _mm256_srai_epi16::<8>(x));
    _mm256_add_epi32(sum, odd)
}
