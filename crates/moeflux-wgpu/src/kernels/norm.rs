//! Normalisations over rows, one workgroup a row.

use crate::{Encoder, Program, View};

use super::{GRID_ROW, MATH, grid};

const SUM: &str = include_str!("sum_of_squares.wgsl");
const RMS: &[&str] = &[include_str!("rms_norm.wgsl"), SUM];
static RMS_NORM: Program = Program { name: "rms_norm", entry: "main", source: RMS };
static ADD_RMS_NORM: Program = Program { name: "add_rms_norm", entry: "main", source: RMS };
static GATED_RMS_NORM: Program = Program {
    name: "gated_rms_norm",
    entry: "main",
    source: &[include_str!("gated_rms_norm.wgsl"), SUM, MATH],
};
static L2_NORM: Program =
    Program { name: "l2_norm", entry: "main", source: &[include_str!("l2_norm.wgsl"), SUM] };

/// `y = x · 1/sqrt(mean(x²) + eps) · weight` over each row of `weight.len()` values.
pub fn rms_norm(enc: &mut Encoder<'_>, x: &View, weight: &View, eps: f32, y: &View) {
    let none = enc.no_view();
    rms(enc, &RMS_NORM, [x, x, weight, &none, y], eps, false);
}

/// `x = a + b` and `y = rms_norm(x)`: [`add`](super::add) and [`rms_norm`] in one dispatch, with the same bits.
pub fn add_rms_norm(enc: &mut Encoder<'_>, a: &View, b: &View, weight: &View, eps: f32, x: &View, y: &View) {
    assert!(a.len() == x.len() && b.len() == x.len());
    rms(enc, &ADD_RMS_NORM, [a, b, weight, x, y], eps, true);
}

fn rms(enc: &mut Encoder<'_>, program: &'static Program, views: [&View; 5], eps: f32, has_sum: bool) {
    let (rows, dim) = rows_of(views[0], views[2].len(), views[4]);
    let [lanes, row] = constants(dim);
    let each = dim.div_ceil(lanes.1 as usize) as u32;
    let constants = [lanes, row, ("EACH", each), ("HAS_SUM", u32::from(has_sum))];
    enc.dispatch(program, &constants, &views, &[rows as u32, dim as u32, eps.to_bits()], grid(rows));
}

/// `rms_norm(x) · silu(gate)`, element by element; `gate` has the shape of `x`.
pub fn gated_rms_norm(enc: &mut Encoder<'_>, x: &View, gate: &View, weight: &View, eps: f32, y: &View) {
    assert_eq!(gate.len(), x.len());
    let (rows, dim) = rows_of(x, weight.len(), y);
    let params = [rows as u32, dim as u32, eps.to_bits()];
    enc.dispatch(&GATED_RMS_NORM, &constants(dim), &[x, gate, weight, y], &params, grid(rows));
}

/// `y = x · 1/sqrt(sum(x²) + eps) · scale` over each row of `dim` values.
pub fn l2_norm(enc: &mut Encoder<'_>, x: &View, dim: usize, eps: f32, scale: f32, y: &View) {
    let (rows, dim) = rows_of(x, dim, y);
    let params = [rows as u32, dim as u32, eps.to_bits(), scale.to_bits()];
    enc.dispatch(&L2_NORM, &constants(dim), &[x, y], &params, grid(rows));
}

fn rows_of(x: &View, dim: usize, y: &View) -> (usize, usize) {
    assert!(dim > 0 && x.len().is_multiple_of(dim) && y.len() == x.len());
    (x.len() / dim, dim)
}

/// The order of sums is that of the lanes, so their number depends on the row's length alone.
fn constants(dim: usize) -> [(&'static str, u32); 2] {
    let lanes = dim.next_power_of_two().clamp(32, 256) as u32;
    [("LANES", lanes), ("GRID_ROW", GRID_ROW)]
}
