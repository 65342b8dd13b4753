//! A block of rows with a tile of tokens.

#[allow(clippy::wildcard_imports)] // the instructions
use std::arch::x86_64::*;
use std::ops::Range;

use super::{load_columns, load_floats, load_ints, store_floats, transpose16};
use crate::int8::activations::{GROUP, LOW_BITS, PLANES, SUM, TOKENS, TileGroup, TileGroups};
use crate::int8::tiles::Sums;
use crate::int8::weights::{Block, Offset, ROWS};

/// See [`tiles::multiply`](crate::int8::tiles::multiply): adds what these spans give.
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
pub(in crate::int8) fn join(high: __m512i, low: __m512i) -> __m512i {
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

/// What the rows of a span share.
pub(in crate::int8) struct Scaled {
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
    pub(in crate::int8) fn new(
        block: &Block<'_>,
        group: [&TileGroup; PLANES],
        at: usize,
        width: usize,
    ) -> Self {
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
    pub(in crate::int8) fn add(
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
