//! Products with a weight matrix: one vector or many, of all rows or of each head's own.

use crate::matrix::{GpuMatrix, UNIT};
use crate::{Encoder, Program, View};

use super::{ACTIVATED, ELEMENT, GRID_ROW, LANES, MATH, WEIGHTS, grid};

const PRODUCT: &str = include_str!("product.wgsl");
const EIGHT: &str = include_str!("eight.wgsl");
const GEMV: &str = include_str!("gemv.wgsl");
const GEMM: &str = include_str!("gemm.wgsl");
/// Weights in any encoding, and in affine codes of four bits.
const ANY: &str =
    concat!(include_str!("codes.wgsl"), include_str!("scales.wgsl"), include_str!("weights.wgsl"));
const AFFINE4: &str = concat!(include_str!("codes_affine4.wgsl"), include_str!("scales.wgsl"));
/// Rows of x that begin anywhere, and where vectors do.
const VALUES: &str = include_str!("inputs.wgsl");
const VECTORS: &str = include_str!("inputs4.wgsl");

/// A product's program for each encoding (any, affine of four bits) and for each kind of rows of x.
macro_rules! product {
    ($shape:ident, $weights:ident, $inputs:ident) => {
        Program {
            name: "linear",
            entry: "main",
            source: &[$shape, PRODUCT, $inputs, $weights, EIGHT, ACTIVATED, MATH],
        }
    };
    ($shape:ident) => {
        [
            [product!($shape, ANY, VALUES), product!($shape, ANY, VECTORS)],
            [product!($shape, AFFINE4, VALUES), product!($shape, AFFINE4, VECTORS)],
        ]
    };
}
static GEMV_PROGRAMS: [[Program; 2]; 2] = product!(GEMV);
static GEMM_PROGRAMS: [[Program; 2]; 2] = product!(GEMM);
static EMBED: Program =
    Program { name: "embed", entry: "main", source: &[include_str!("embed.wgsl"), ELEMENT, WEIGHTS] };
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

/// `y = (silu(gate) · up)·wᵀ + bias`: [`swiglu`](super::swiglu) and [`linear`] in one dispatch, with the same bits. For few
/// rows: each workgroup computes its own.
pub fn swiglu_linear(
    enc: &mut Encoder<'_>,
    w: &GpuMatrix,
    bias: Option<&View>,
    gate: &View,
    up: &View,
    y: &View,
) {
    assert!(gate.len() / w.cols() * w.rows() == y.len() && up.len() == gate.len());
    assert!(bias.is_none_or(|bias| bias.len() == w.rows()));
    Product { bias, input: Input::Swiglu(up), ..Product::new(w, w.rows(), gate, y) }.record(enc);
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

/// Rows of x of a tile of choices of one expert.
pub(super) const TILE: usize = 16;

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
    /// From a row of `x` to the next.
    pub(super) x_stride: usize,
    pub(super) y: &'a View,
    pub(super) input: Input<'a>,
    pub(super) tiles: Tiles<'a>,
    /// Rows of `y` that share a row of `x`.
    pub(super) choices: usize,
}

/// Invocations of a workgroup without tiles.
const WITHOUT: usize = 256;
/// Sums of a row that are added at the end; more of them let more invocations read a row.
const CHAINS: usize = 32;
/// Most rows of x that do without tiles in a workgroup's memory.
const FEW: usize = 16;
/// Workgroups that keep a large device busy; with fewer, each has less to do.
const BUSY: usize = 128;

/// The shape of a workgroup's work; it changes no bit.
#[derive(Clone, Copy)]
enum Work {
    /// So many rows of x, two at most.
    Gemv { x_rows: usize },
    /// Tiles of rows of x and rows of W, and the part of both that an invocation has.
    Gemm { x_rows: usize, rows: usize, each: [usize; 2] },
}

/// Tiles of many rows of x, the largest first.
const TILES: [Work; 3] = [
    Work::Gemm { x_rows: 64, rows: 128, each: [8, 4] },
    Work::Gemm { x_rows: 64, rows: 64, each: [8, 4] },
    Work::Gemm { x_rows: 32, rows: 32, each: [4, 4] },
];
/// Tiles of choices of one expert.
const EXPERT_TILES: Work = Work::Gemm { x_rows: TILE, rows: 128, each: [4, 4] };

impl Work {
    /// Rows of x and of W of a workgroup, if a sum has so many chains.
    fn tile(self, chains: usize) -> [usize; 2] {
        match self {
            Work::Gemv { x_rows } => [x_rows, WITHOUT / chains],
            Work::Gemm { x_rows, rows, .. } => [x_rows, rows],
        }
    }

    /// Workgroups for so many rows of x and of W.
    fn workgroups(self, chains: usize, n: usize, rows: usize) -> usize {
        let [x_tile, tile] = self.tile(chains);
        n.div_ceil(x_tile) * rows.div_ceil(tile)
    }

    /// For `n` rows of x, the same matrices for all of them, with so many rows in all.
    fn of(chains: usize, n: usize, rows: usize) -> Self {
        let tiles = TILES.iter().find(|work| work.workgroups(chains, n, rows) >= BUSY);
        match tiles {
            Some(&tiles) if n > FEW => tiles,
            _ => Work::Gemv { x_rows: n.min(2) },
        }
    }
}

impl<'a> Product<'a> {
    pub(super) fn new(w: &'a GpuMatrix, rows: usize, x: &'a View, y: &'a View) -> Self {
        let (input, tiles) = (Input::Plain, Tiles::Heads);
        Product { w, rows, heads: 1, bias: None, x, x_stride: w.cols(), y, input, tiles, choices: 1 }
    }

    pub(super) fn record(self, enc: &mut Encoder<'_>) {
        let Product { w, rows, heads, bias, x, x_stride, y, input, tiles, choices } = self;
        let (none, cols) = (enc.no_view(), w.cols());
        if y.is_empty() {
            return;
        }
        let n = y.len() / (rows * heads);
        let units = cols.div_ceil(UNIT);
        let chains = units.div_ceil(2).next_power_of_two().min(CHAINS);
        let (mode, table, order, work, count) = match tiles {
            Tiles::Heads => {
                let work = Work::of(chains, n, rows * heads);
                (0, &none, &none, work, n.div_ceil(work.tile(chains)[0]))
            }
            Tiles::Each(ids) => (1, ids, &none, Work::Gemv { x_rows: 1 }, n),
            Tiles::Grouped { tiles, order } => (2, tiles, order, EXPERT_TILES, tiles.len() / 3),
        };
        let (activation, up, alpha, limit) = match input {
            Input::Plain => (0, &none, 0.0, 0.0),
            Input::Swiglu(up) => (1, up, 0.0, 0.0),
            Input::ClampedSwiglu { up, alpha, limit } => (2, up, alpha, limit),
        };
        let is_whole = cols.is_multiple_of(UNIT);
        let is_vectors =
            is_whole && [x.offset(), up.offset(), x_stride].iter().all(|start| start.is_multiple_of(4));
        let mut constants = vec![
            ("CHAINS", chains as u32),
            ("UNITS", units as u32),
            ("MODE", mode),
            ("ACTIVATION", activation),
            ("HAS_BIAS", u32::from(bias.is_some())),
            ("IS_WHOLE", u32::from(is_whole)),
        ];
        let programs = match work {
            Work::Gemv { .. } => {
                constants.push(("LANES", WITHOUT as u32));
                &GEMV_PROGRAMS
            }
            Work::Gemm { x_rows, rows, each: [x_each, each] } => {
                let lanes = x_rows / x_each * (rows / each);
                constants.extend([("LANES", lanes), ("BN", rows), ("TM", x_each), ("TN", each)].map(as_u32));
                &GEMM_PROGRAMS
            }
        };
        let program = &programs[usize::from(w.is_affine4())][usize::from(is_vectors)];
        let [x_rows, rows_at_once] = work.tile(chains);
        constants.push(("T", x_rows as u32));
        constants.extend(w.constants());
        for part in w.parts() {
            // Of one matrix some rows may be bound, of several only whole ones are.
            let is_one = rows == w.rows();
            assert!(is_one || (part.first_row.is_multiple_of(rows) && part.rows.is_multiple_of(rows)));
            let first_row = if is_one { part.first_row } else { 0 };
            let bound_rows = if is_one { part.rows } else { rows };
            let first_matrix = if is_one { 0 } else { part.first_row / rows };
            let matrices = part.rows / bound_rows;
            let params =
                [n, cols, rows, heads, first_matrix, matrices, first_row, bound_rows, choices, x_stride];
            let mut params = params.map(|x| x as u32).to_vec();
            params.extend([alpha.to_bits(), limit.to_bits()]);
            let views = [&part.codes, &part.params, bias.unwrap_or(&none), x, up, table, order, y];
            let groups = [bound_rows.div_ceil(rows_at_once), count, heads].map(|x| x as u32);
            enc.dispatch(program, &constants, &views, &params, groups);
        }
    }
}

fn as_u32((name, value): (&'static str, usize)) -> (&'static str, u32) {
    (name, value as u32)
}
