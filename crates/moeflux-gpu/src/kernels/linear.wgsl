// y = W·x for tiles of T rows of x and ROWS·LANES/SPLIT rows of W: of a whole matrix, of a head's part of it, or of the
// expert's part of it that a token chose.
//
// The order of a sum depends on the number of columns alone: with SPLIT invocations a row, invocation l takes units (32
// columns) l, l + SPLIT, … and in each the columns by index, fused; their sums are added as a tree: l takes l + SPLIT/2,
// then l + SPLIT/4, and so on.

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
    alpha: f32,
    limit: f32,
}

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> params: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read> up: array<f32>;
@group(0) @binding(5) var<storage, read> tiles: array<u32>;
@group(0) @binding(6) var<storage, read> order: array<u32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

/// Rows of W of a workgroup and invocation, and of a workgroup.
const GROUPS: u32 = LANES / SPLIT;
const OUTPUTS: u32 = T * ROWS * GROUPS;
/// Units of x, one word apart so that invocations read different banks; later the sums, [SPLIT, OUTPUTS + 1].
var<workgroup> tile: array<f32, max(T * SPLIT * 33u, SPLIT * (OUTPUTS + 1u))>;
/// The rows of the tile in x and in y.
var<workgroup> x_rows: array<u32, T>;
var<workgroup> y_rows: array<u32, T>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Which matrix, and which rows of x and y.
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
        return;
    }
    if (lane < T) {
        var row = group.y * T + lane;
        if (MODE == 0u) {
            row = row * p.heads + matrix;
            x_rows[lane] = row;
        } else {
            if (MODE == 2u) {
                row = order[p.order_at + tiles[p.tiles_at + group.y * 3u + 1u] + min(lane, count - 1u)];
            }
            x_rows[lane] = row / p.choices;
        }
        y_rows[lane] = row;
    }
    workgroupBarrier();

    let part = lane % SPLIT;
    let first = group.x * ROWS * GROUPS + lane / SPLIT * ROWS;
    var rows: array<u32, ROWS>;
    var sums: array<f32, T * ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        rows[r] = (matrix - p.first_matrix) * p.rows + min(first + r, p.bound_rows - 1u);
    }
    for (var i = 0u; i < T * ROWS; i++) {
        sums[i] = 0.0;
    }
    for (var chunk = 0u; chunk < UNITS; chunk += SPLIT) {
        for (var i = lane; i < T * SPLIT * 32u; i += LANES) {
            let t = i / (SPLIT * 32u);
            let column = i % (SPLIT * 32u) + chunk * 32u;
            var value = 0.0;
            if (t < count && column < p.cols) {
                value = input(x_rows[t] * p.cols + column);
            }
            tile[i / 32u * 33u + i % 32u] = value;
        }
        workgroupBarrier();
        let unit = chunk + part;
        if (unit < UNITS) {
            var scales: array<vec2<f32>, ROWS>;
            for (var r = 0u; r < ROWS; r++) {
                scales[r] = scale_of(rows[r], unit);
            }
            for (var eighth = 0u; eighth < 4u; eighth++) {
                for (var r = 0u; r < ROWS; r++) {
                    let weights = eight_weights(rows[r], unit, eighth, scales[r]);
                    for (var t = 0u; t < T; t++) {
                        let at = (t * SPLIT + part) * 33u + eighth * 8u;
                        for (var i = 0u; i < 8u; i++) {
                            sums[t * ROWS + r] = fma(weights[i], tile[at + i], sums[t * ROWS + r]);
                        }
                    }
                }
            }
        }
        workgroupBarrier();
    }

    for (var t = 0u; t < T; t++) {
        for (var r = 0u; r < ROWS; r++) {
            tile[part * (OUTPUTS + 1u) + (t * GROUPS + lane / SPLIT) * ROWS + r] = sums[t * ROWS + r];
        }
    }
    workgroupBarrier();
    for (var output = lane; output < OUTPUTS; output += LANES) {
        var tree: array<f32, SPLIT>;
        for (var l = 0u; l < SPLIT; l++) {
            tree[l] = tile[l * (OUTPUTS + 1u) + output];
        }
        for (var width = SPLIT / 2u; width > 0u; width /= 2u) {
            for (var l = 0u; l < width; l++) {
                tree[l] += tree[l + width];
            }
        }
        let t = output / (GROUPS * ROWS);
        let row = group.x * ROWS * GROUPS + output % (GROUPS * ROWS);
        if (t < count && row < p.bound_rows) {
            var value = tree[0];
            if (HAS_BIAS) {
                value += bias[p.bias_at + matrix * p.rows + p.first_row + row];
            }
            y[p.y_at + y_rows[t] * p.rows + p.first_row + row] = value;
        }
    }
}

/// A value of x, or what an expert makes of its two products.
fn input(at: u32) -> f32 {
    let value = x[p.x_at + at];
    if (ACTIVATION == 1u) {
        return silu(value) * up[p.up_at + at];
    }
    if (ACTIVATION == 2u) {
        // A NaN passes.
        let gate = select(value, p.limit, value > p.limit);
        let raw = up[p.up_at + at];
        let above = select(raw, p.limit, raw > p.limit);
        let cut = select(above, -p.limit, above < -p.limit);
        return (cut + 1.0) * (gate * sigmoid(gate * p.alpha));
    }
    return value;
}
