//! Products with a weight matrix: one vector or many, of all rows or of each head's own.

use crate::matrix::{GpuMatrix, UNIT};
use crate::{Encoder, Program, View};

use super::{GRID_ROW, LANES, MATH, WEIGHTS, grid};

static LINEAR: Program =
    Program { name: "linear", entry: "main", source: &[include_str!("linear.wgsl"), WEIGHTS, MATH] };
static EMBED: Program =
    Program { name: "embed", entry: "main", source: &[include_str!("embed.wgsl"), WEIGHTS] };
static TRANSPOSED: Program = Program {
    name: "head_linear_transposed",
    entry: "main",
    source: &[include_str!("head_linear_transposed.wgsl"), WEIGHTS],
};

/// `y = x·wᵀ + bias`: `x` is `[n, cols]`, `y` is `[n, rows]`, `bias` `[rows]`.
pub fn linear(enc: &mut Encoder<'_>, w: &GpuMatrix, bias: Option<&View>, x: &View, y: &View) {
    assert_eq!(x.len() / w.cols() * w.rows(), y.len());
    assert!(bias.is_none_or(|bias| bias.len() == w.rows()));
    Product { bias, ..Product::new(w, w.rows(), x, y) }.record(enc);
}

/// `y_h = W_h·x_h` for each head `h` of each token: `w` holds the heads' matrices `[rows, cols]` one after the other, `x`
/// is `[n, heads, cols]`, `y` is `[n, heads, rows]`.
pub fn head_linear(enc: &mut Encoder<'_>, w: &GpuMatrix, heads: usize, x: &View, y: &View) {
    let rows = w.rows() / heads;
    assert!(w.rows() == rows * heads && x.len() / w.cols() * rows == y.len());
    Product { heads, ..Product::new(w, rows, x, y) }.record(enc);
}

/// `y_h = W_hᵀ·x_h` for each head `h` of each token: `x` is `[n, heads, rows]`, `y` is `[n, heads, cols]`. Sums go by row.
pub fn head_linear_transposed(enc: &mut Encoder<'_>, w: &GpuMatrix, heads: usize, x: &View, y: &View) {
    let (rows, cols) = (w.rows() / heads, w.cols());
    assert!(w.rows() == rows * heads && x.len() / rows * cols == y.len());
    let n = x.len() / (rows * heads);
    for part in w.parts() {
        let mut constants = vec![("LANES", LANES as u32)];
        constants.extend(w.constants());
        let (first, count) = (part.first_row / rows, part.rows / rows);
        let params = [heads, rows, cols, first].map(|x| x as u32);
        let views = [&part.codes, &part.params, x, y];
        let columns = cols.div_ceil(8).div_ceil(LANES);
        enc.dispatch(&TRANSPOSED, &constants, &views, &params, [columns as u32, count as u32, n as u32]);
    }
}

/// Rows `ids` (u32) of `w`: `y` is `[n, cols]`. Ids must be below the number of rows.
pub fn embed(enc: &mut Encoder<'_>, w: &GpuMatrix, ids: &View, y: &View) {
    let cols = w.cols();
    assert_eq!(y.len(), ids.len() * cols);
    for part in w.parts() {
        let mut constants = vec![("LANES", LANES as u32), ("GRID_ROW", GRID_ROW)];
        constants.extend(w.constants());
        let params = [ids.len(), cols, part.first_row, part.rows].map(|x| x as u32);
        let eighths = ids.len() * cols.div_ceil(8);
        let views = [&part.codes, &part.params, ids, y];
        enc.dispatch(&EMBED, &constants, &views, &params, grid(eighths.div_ceil(LANES)));
    }
}

/// Which matrix of a stack a tile takes.
pub(super) enum Tiles<'a> {
    /// That of each head; all rows of `x` the same ones.
    Heads,
    /// For each choice the matrix of its index (u32), `[n]`.
    Each(&'a View),
    /// Tiles of choices of one matrix: `[tiles, 3]` with the matrix, the first choice in `order` and how many.
    Grouped { tiles: &'a View, order: &'a View },
}

/// Rows of x of a tile where there are many.
pub(super) const TILE: usize = 8;

/// What is done to `x` as it is read.
pub(super) enum Input<'a> {
    Plain,
    Swiglu(&'a View),
    ClampedSwiglu { up: &'a View, alpha: f32, limit: f32 },
}

/// A product with a stack of matrices, each `[rows, cols]`.
pub(super) struct Product<'a> {
    pub(super) w: &'a GpuMatrix,
    pub(super) rows: usize,
    pub(super) heads: usize,
    /// For every row of the stack.
    pub(super) bias: Option<&'a View>,
    pub(super) x: &'a View,
    pub(super) y: &'a View,
    pub(super) input: Input<'a>,
    pub(super) tiles: Tiles<'a>,
    /// Rows of `y` that share a row of `x`.
    pub(super) choices: usize,
}

/// Invocations of a workgroup.
const WORKGROUP: usize = 128;

impl<'a> Product<'a> {
    pub(super) fn new(w: &'a GpuMatrix, rows: usize, x: &'a View, y: &'a View) -> Self {
        Product { w, rows, heads: 1, bias: None, x, y, input: Input::Plain, tiles: Tiles::Heads, choices: 1 }
    }

    pub(super) fn record(self, enc: &mut Encoder<'_>) {
        let Product { w, rows, heads, bias, x, y, input, tiles, choices } = self;
        let (none, cols) = (enc.no_view(), w.cols());
        if y.is_empty() {
            return;
        }
        let n = y.len() / (rows * heads);
        let (mode, table, order, tile, count) = match tiles {
            Tiles::Heads if n < TILE / 2 => (0, &none, &none, 1, n),
            Tiles::Heads => (0, &none, &none, TILE, n.div_ceil(TILE)),
            Tiles::Each(ids) => (1, ids, &none, 1, n),
            Tiles::Grouped { tiles, order } => (2, tiles, order, TILE, tiles.len() / 3),
        };
        let rows_at_once = if tile == 1 { 1 } else { 4 };
        let (activation, up, alpha, limit) = match input {
            Input::Plain => (0, &none, 0.0, 0.0),
            Input::Swiglu(up) => (1, up, 0.0, 0.0),
            Input::ClampedSwiglu { up, alpha, limit } => (2, up, alpha, limit),
        };
        let units = cols.div_ceil(UNIT);
        let split = units.next_power_of_two().min(16);
        let mut constants = vec![
            ("LANES", WORKGROUP as u32),
            ("SPLIT", split as u32),
            ("T", tile as u32),
            ("ROWS", rows_at_once as u32),
            ("UNITS", units as u32),
            ("MODE", mode),
            ("ACTIVATION", activation),
            ("HAS_BIAS", u32::from(bias.is_some())),
        ];
        constants.extend(w.constants());
        for part in w.parts() {
            // Of one matrix some rows may be bound, of several only whole ones are.
            let is_one = rows == w.rows();
            assert!(is_one || (part.first_row.is_multiple_of(rows) && part.rows.is_multiple_of(rows)));
            let first_row = if is_one { part.first_row } else { 0 };
            let bound_rows = if is_one { part.rows } else { rows };
            let first_matrix = if is_one { 0 } else { part.first_row / rows };
            let matrices = part.rows / bound_rows;
            let params = [n, cols, rows, heads, first_matrix, matrices, first_row, bound_rows, choices];
            let mut params = params.map(|x| x as u32).to_vec();
            params.extend([alpha.to_bits(), limit.to_bits()]);
            let views = [&part.codes, &part.params, bias.unwrap_or(&none), x, up, table, order, y];
            let groups = bound_rows.div_ceil(WORKGROUP / split * rows_at_once);
            enc.dispatch(&LINEAR, &constants, &views, &params, [groups as u32, count as u32, heads as u32]);
        }
    }
}
