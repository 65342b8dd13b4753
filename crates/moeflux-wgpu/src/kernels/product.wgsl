// What products with a weight matrix share: which matrix and which rows a workgroup has, and what x is.
//
// The matrix is a whole one, a head's part of it, or the part of the expert that a token chose. Every sum has one order,
// which depends on the number of columns alone, in gemv.wgsl and in gemm.wgsl: columns are taken in groups of 64; chain c of
// CHAINS takes groups c, c + CHAINS, … and in each the columns by index, fused; the chains are then added by index to zero.

struct Params {
    codes_at: u32,
    params_at: u32,
    bias_at: u32,
    x_at: u32,
    up_at: u32,
    tiles_at: u32,
    order_at: u32,
    y_at: u32,
    /// Rows of x of a head, or choices.
    n: u32,
    cols: u32,
    /// Of a head's or an expert's matrix.
    rows: u32,
    heads: u32,
    /// Of the whole stack: the matrices that are bound.
    first_matrix: u32,
    matrices: u32,
    /// Rows of the first matrix that are not bound.
    first_row: u32,
    bound_rows: u32,
    /// Choices that share a row of x.
    choices: u32,
    /// From a row of x to the next.
    x_stride: u32,
    alpha: f32,
    limit: f32,
}

@group(0) @binding(1) var<storage, read> params: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> tiles: array<u32>;
@group(0) @binding(6) var<storage, read> order: array<u32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

/// Groups of 64 columns: two units each.
const GROUPS: u32 = (UNITS + 1u) / 2u;

/// A matrix among those that are bound, and which rows of x meet it.
struct Tile {
    matrix: u32,
    index: u32,
    count: u32,
}

/// The tile of a workgroup; none if its count is 0.
fn tile_of(group: vec3<u32>) -> Tile {
    var matrix = group.z;
    var count = min(T, p.n - group.y * T);
    if (MODE == 1u) {
        matrix = tiles[p.tiles_at + group.y];
        count = 1u;
    } else if (MODE == 2u) {
        matrix = tiles[p.tiles_at + group.y * 3u];
        count = tiles[p.tiles_at + group.y * 3u + 2u];
    }
    if (count == 0u || matrix < p.first_matrix || matrix - p.first_matrix >= p.matrices) {
        return Tile(0u, 0u, 0u);
    }
    return Tile(matrix, group.y, count);
}

/// The row of y that a tile's row t is; those past its last row are the last one again.
fn y_row(tile: Tile, t: u32) -> u32 {
    let within = min(t, tile.count - 1u);
    if (MODE == 2u) {
        return order[p.order_at + tiles[p.tiles_at + tile.index * 3u + 1u] + within];
    }
    let row = tile.index * T + within;
    if (MODE == 0u) {
        return row * p.heads + tile.matrix;
    }
    return row;
}

/// Where the row of x begins that a tile's row t reads.
fn x_start(tile: Tile, t: u32) -> u32 {
    var row = y_row(tile, t);
    if (MODE != 0u) {
        row /= p.choices;
    }
    return row * p.x_stride;
}

/// The row of W that is row `row` of the bound ones, or the last of them.
fn w_row(tile: Tile, row: u32) -> u32 {
    return (tile.matrix - p.first_matrix) * p.rows + min(row, p.bound_rows - 1u);
}

/// Four values of a row of x from a column on; zeros past its end.
fn four(start: u32, column: u32) -> vec4<f32> {
    if (column >= p.cols) {
        return vec4<f32>(0.0);
    }
    let values = four_of_x(start + column, p.cols - column);
    if (ACTIVATION == 0u) {
        return values;
    }
    let ups = four_of_up(start + column, p.cols - column);
    return vec4(
        activated(values.x, ups.x),
        activated(values.y, ups.y),
        activated(values.z, ups.z),
        activated(values.w, ups.w),
    );
}

/// Writes a sum to row `row` of the bound ones.
fn write_sum(tile: Tile, t: u32, row: u32, sum: f32) {
    if (t < tile.count && row < p.bound_rows) {
        var value = sum;
        if (HAS_BIAS) {
            value += bias[p.bias_at + tile.matrix * p.rows + p.first_row + row];
        }
        y[p.y_at + y_row(tile, t) * p.rows + p.first_row + row] = value;
    }
}
