//! The largest of many values, so that a step reads back a few.

use crate::{Encoder, Program, View};

use super::ORDER;

static TOP_K: Program =
    Program { name: "top_k", entry: "main", source: &[include_str!("top_k.wgsl"), ORDER] };

/// Values that one workgroup sorts.
const CHUNK: usize = 2048;
/// The largest `k`: each pass halves what is left at least.
pub const MAX_TOP_K: usize = CHUNK / 2;

/// Floats, and as many indices, of memory that [`top_k`] needs in each of its two scratch views.
pub fn top_k_scratch_len(rows: usize, cols: usize, k: usize) -> usize {
    rows * cols.div_ceil(CHUNK) * k
}

/// The `k` largest values of each row of `values`, `[rows, cols]`, and their columns (u32), both `[rows, k]`, by falling
/// value; of equal ones the lowest column comes first, NaN comes last.
///
/// `scratch` are two pairs of values and indices of [`top_k_scratch_len`] each.
pub fn top_k(
    enc: &mut Encoder<'_>,
    values: &View,
    cols: usize,
    k: usize,
    scratch: &[(View, View); 2],
    top_values: &View,
    top_indices: &View,
) {
    assert!(0 < k && k <= MAX_TOP_K && k <= cols && values.len().is_multiple_of(cols));
    let rows = values.len() / cols;
    assert!(top_values.len() == rows * k && top_indices.len() == rows * k);
    let constants = [("CHUNK", CHUNK as u32), ("K", k as u32)];
    let none = enc.no_view();
    let (mut from, mut n, mut pass) = ((values.clone(), none), cols, 0);
    loop {
        let chunks = n.div_ceil(CHUNK);
        let to = if chunks == 1 {
            (top_values.clone(), top_indices.clone())
        } else {
            let (values, indices) = &scratch[pass % 2];
            (values.slice(0..rows * chunks * k), indices.slice(0..rows * chunks * k))
        };
        let views = [&from.0, &from.1, &to.0, &to.1];
        let params = [n as u32, chunks as u32, u32::from(pass > 0)];
        enc.dispatch(&TOP_K, &constants, &views, &params, [chunks as u32, rows as u32, 1]);
        if chunks == 1 {
            return;
        }
        (from, n, pass) = (to, chunks * k, pass + 1);
    }
}
