//! Products in which every head has a matrix of its own.

use crate::instruction_set::multiversion;
use crate::int8::weights::Format;
use crate::int8::{self, Int8Scratch, Tokens};
use crate::linear::{Rows, product};
use crate::matrix::Matrix;
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile};
use crate::weighted_sum::add_weighted_rows;

/// `y_h = W_h·x_h` for each head `h` of each token: `w` holds the heads' matrices `[rows, cols]` one after the other, `x`
/// is `[n, heads, cols]`, `y` is `[n, heads, rows]`. Sums over columns as [`dot`](mod@crate::dot) says.
pub fn head_linear(pool: &ThreadPool, w: &Matrix<'_>, heads: usize, x: &[f32], y: &mut [f32]) {
    let (rows, cols) = (rows_of_a_head(w, heads), w.cols());
    for_each_head(pool, w, heads, (x, cols), (y, rows), |head, x, y| product(w, head * rows, x, y));
}

/// [`head_linear`] with quantised activations, as [`int8`](mod@crate::int8) says.
pub fn int8_head_linear(
    pool: &ThreadPool,
    w: &Matrix<'_>,
    heads: usize,
    x: &[f32],
    scratch: &mut Int8Scratch,
    y: &mut [f32],
) {
    let Some(format) = Format::of_linear(w) else {
        return head_linear(pool, w, heads, x, y);
    };
    let (rows, cols) = (rows_of_a_head(w, heads), w.cols());
    let n = x.len() / (heads * cols);
    let of_heads: Vec<u32> =
        (0..heads).flat_map(|head| (0..n).map(move |t| (t * heads + head) as u32)).collect();
    let of_head = |head: usize| Tokens::Chosen(&of_heads[head * n..(head + 1) * n]);
    let groups = &mut scratch.0;
    groups.quantize(pool, cols, format.planes, &Rows::all(x, cols));
    groups.group(pool, cols, format.planes, (0..heads).map(of_head));
    for_each_head(pool, w, heads, (x, cols), (y, rows), |head, _, y| {
        int8::product(w, format, head * rows, &groups.input(head, of_head(head)), y);
    });
}

/// `y_h = W_hᵀ·x_h` for each head `h` of each token: `x` is `[n, heads, rows]`, `y` is `[n, heads, cols]`. Sums go by row.
pub fn head_linear_transposed(pool: &ThreadPool, w: &Matrix<'_>, heads: usize, x: &[f32], y: &mut [f32]) {
    let (rows, cols) = (rows_of_a_head(w, heads), w.cols());
    for_each_head(pool, w, heads, (x, rows), (y, cols), |head, x, y| {
        transposed_product(w, head * rows..(head + 1) * rows, x, y);
    });
}

fn rows_of_a_head(w: &Matrix<'_>, heads: usize) -> usize {
    assert!(heads > 0 && w.rows().is_multiple_of(heads));
    w.rows() / heads
}

/// Runs `f` for each head on its channels of all tokens: `x` is `[n, heads, x_dim]`, `y` is `[n, heads, y_dim]`.
fn for_each_head(
    pool: &ThreadPool,
    w: &Matrix<'_>,
    heads: usize,
    (x, x_dim): (&[f32], usize),
    (y, y_dim): (&mut [f32], usize),
    f: impl Fn(usize, &Rows<'_>, &mut Tile<'_>) + Sync + Send,
) {
    let n = x.len() / (heads * x_dim);
    assert!(x.len() == n * heads * x_dim && y.len() == n * heads * y_dim);
    let heads_per_task = pool.units_per_task(heads, w.rows() / heads * w.cols() * (n + 1));
    for_each_tile(pool, y, Tiling::columns(n, heads * y_dim, heads_per_task * y_dim), |_, y| {
        let first = y.first_column() / y_dim;
        for local in 0..y.width() / y_dim {
            let head = first + local;
            let x = Rows::columns(x, heads * x_dim, head * x_dim, x_dim);
            f(head, &x, &mut y.columns(local * y_dim..(local + 1) * y_dim));
        }
    });
}

multiversion! {
    /// `y[t] = Σ_r x[t][r]·w[r]` over the `rows` of `w`, by `r`. Each weight is dequantised once.
    fn transposed_product(w: &Matrix<'_>, rows: std::ops::Range<usize>, x: &Rows<'_>, y: &mut Tile<'_>) {
        let mut weights = vec![0.0; rows.len() * w.cols()];
        for (row, weights) in rows.zip(weights.chunks_exact_mut(w.cols())) {
            w.dequantize_row_inline(row, weights);
        }
        for t in 0..x.len() {
            let y = y.row(t);
            y.fill(0.0);
            add_weighted_rows(x.row(t), &weights, 1.0, y);
        }
    }
}
