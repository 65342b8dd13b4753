//! Products with a weight matrix.

use crate::dequant::PACKED_ROWS;
use crate::dot::dot4;
use crate::encoding::Encoding;
use crate::instruction_set::multiversion;
use crate::matrix::Matrix;
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile};

/// `y = x·wᵀ`: `x` is `[n, cols]`, `y` is `[n, rows]`. Sums over columns as [`dot`](mod@crate::dot) says.
pub fn linear(pool: &ThreadPool, w: &Matrix<'_>, x: &[f32], y: &mut [f32]) {
    let x = Rows::all(x, w.cols());
    assert_eq!(y.len(), x.len() * w.rows());
    let tiling = Tiling::columns(x.len(), w.rows(), rows_per_task(pool, w, x.len()));
    for_each_tile(pool, y, tiling, |_, y| product(w, y.first_column(), &x, y));
}

/// Rows `ids` of `w`, dequantised: `y` is `[n, cols]`. Ids must be below the number of rows.
pub fn embed(w: &Matrix<'_>, ids: &[u32], y: &mut [f32]) {
    assert_eq!(y.len(), ids.len() * w.cols());
    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(w.cols().max(1))) {
        w.dequantize_row(id as usize, y);
    }
}

/// Rows of `w` that a task should take when it multiplies them with `n` vectors.
pub(crate) fn rows_per_task(pool: &ThreadPool, w: &Matrix<'_>, n: usize) -> usize {
    // A weight costs about as much to dequantise as to multiply once.
    pool.units_per_task(w.rows(), w.cols() * (n + 1)).next_multiple_of(BLOCK)
}

/// Vectors of one length that lie in a slice at equal distances: all of them or some.
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    /// From the start of one vector to that of the next.
    stride: usize,
    width: usize,
    len: usize,
    chosen: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// All of `data`, `[n, width]`.
    pub(crate) fn all(data: &'a [f32], width: usize) -> Self {
        let len = data.len().checked_div(width).unwrap_or(0);
        assert_eq!(data.len(), len * width);
        Rows { data, stride: width, width, len, chosen: None }
    }

    /// Of each row of `data`, `[n, stride]`, the `width` columns from `first` on.
    pub(crate) fn columns(data: &'a [f32], stride: usize, first: usize, width: usize) -> Self {
        let all = Rows::all(data, stride);
        assert!(first + width <= stride);
        Rows { data: data.get(first..).unwrap_or(&[]), width, ..all }
    }

    /// The rows `chosen` of `data`.
    pub(crate) fn gathered(data: &'a [f32], width: usize, chosen: &'a [u32]) -> Self {
        Rows { data, stride: width, width, len: chosen.len(), chosen: Some(chosen) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> &'a [f32] {
        let i = self.chosen.map_or(i, |chosen| chosen[i] as usize);
        &self.data[i * self.stride..][..self.width]
    }
}

/// Weight rows and vectors multiplied at once.
const BLOCK: usize = 4;

/// Weight rows dequantised at once: more where rows do not lie by themselves.
#[inline(always)]
fn rows_at_once(w: &Matrix<'_>) -> usize {
    if matches!(w.encoding(), Encoding::Packed { .. }) { PACKED_ROWS } else { BLOCK }
}

multiversion! {
    /// `y[t][r] = w[first_row + r] · x[t]` for every row `t` and column `r` of the tile. Each weight is dequantised
    /// once.
    pub(crate) fn product(w: &Matrix<'_>, first_row: usize, x: &Rows<'_>, y: &mut Tile<'_>) {
        let (cols, n, end) = (w.cols(), x.len(), y.width());
        let at_once = rows_at_once(w);
        let mut many = vec![0.0; at_once.max(BLOCK) * cols];
        for first in (0..end).step_by(BLOCK) {
            let rows = BLOCK.min(end - first);
            if first.is_multiple_of(at_once) {
                let rows = at_once.min(end - first);
                w.dequantize_rows_inline(first_row + first, rows, &mut many[..rows * cols]);
            }
            let buffer = &many[first % at_once * cols..][..BLOCK * cols];
            let weights: [&[f32]; BLOCK] = std::array::from_fn(|i| &buffer[i * cols..][..cols]);
            let in_blocks = n - n % BLOCK;
            for t in (0..in_blocks).step_by(BLOCK) {
                let x = std::array::from_fn::<_, BLOCK, _>(|j| x.row(t + j));
                for (i, weights) in weights.iter().enumerate().take(rows) {
                    for (j, value) in dot4(weights, x).into_iter().enumerate() {
                        y.row(t + j)[first + i] = value;
                    }
                }
            }
            // The few vectors left take all rows at once; beyond `rows` the buffer holds rows already done.
            for t in in_blocks..n {
                let values = dot4(x.row(t), weights);
                y.row(t)[first..first + rows].copy_from_slice(&values[..rows]);
            }
        }
    }
}
