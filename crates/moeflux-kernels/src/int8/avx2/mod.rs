//! AVX2 with FMA, with and without AVX-VNNI.

mod columns;
mod dots;
mod ggml;
mod parameters;
#[cfg(test)]
mod tests;
mod tiles;
mod unpack;
mod vectors;

pub(super) use self::columns::{regroup, transpose, transpose_sums};
pub(super) use self::ggml::{block_parameters, unpack_blocks};
pub(super) use self::parameters::parameters;
pub(super) use self::unpack::{unpack, unpack4_spans};

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;

/// Multiplies what stays in registers, and says how many operations that were.
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply_registers(steps: u32) -> u64 {
    // As many as hide what one waits for the other.
    const SUMS: usize = 12;
    let x = _mm256_set1_epi32(std::hint::black_box(1));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = dots::plain::step(*sum, *sum, x);
        }
    }
    std::hint::black_box(sums);
    u64::from(steps) * SUMS as u64 * (32 * 2)
}

/// AVX2 by itself.
pub(super) mod plain {
    pub(in crate::int8) use super::tiles::plain::add_spans;
    pub(in crate::int8) use super::vectors::plain::vectors;
}

/// With AVX-VNNI.
pub(super) mod vnni {
    pub(in crate::int8) use super::tiles::vnni::add_spans;
    pub(in crate::int8) use super::vectors::vnni::vectors;
}
