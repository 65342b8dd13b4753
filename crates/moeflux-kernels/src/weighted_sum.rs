//! Weighted sums of rows, added in the order of the rows.

/// Channels summed at once: as many as registers hold.
const STRIP: usize = 64;

/// `y = y·keep + Σ weights[p]·rows[p]`, by `p`; `rows` is `[weights, y]`.
#[inline(always)]
pub(crate) fn add_weighted_rows(weights: &[f32], rows: &[f32], keep: f32, y: &mut [f32]) {
    let width = y.len();
    assert_eq!(rows.len(), weights.len() * width);
    let (strips, tail) = y.as_chunks_mut::<STRIP>();
    for (strip, y) in strips.iter_mut().enumerate() {
        add_strip(weights, rows, width, strip * STRIP, keep, y);
    }
    let done = width - tail.len();
    for (i, y) in tail.iter_mut().enumerate() {
        add_strip(weights, rows, width, done + i, keep, std::array::from_mut(y));
    }
}

/// The same for `N` channels from `channel` on.
#[inline(always)]
fn add_strip<const N: usize>(
    weights: &[f32],
    rows: &[f32],
    width: usize,
    channel: usize,
    keep: f32,
    y: &mut [f32; N],
) {
    let mut sum = y.map(|y| y * keep);
    for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
        let row = &row[channel..][..N];
        for i in 0..N {
            sum[i] += weight * row[i];
        }
    }
    *y = sum;
}
