// Rows of a matrix by their indices, an invocation for each eight columns.

struct Params {
    codes_at: u32,
    params_at: u32,
    ids_at: u32,
    y_at: u32,
    n: u32,
    cols: u32,
    /// Rows that are bound.
    first_row: u32,
    rows: u32,
}

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> params: array<u32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let eighths = (p.cols + 7u) / 8u;
    let i = element(group, lane);
    if (i >= p.n * eighths) {
        return;
    }
    let row = ids[p.ids_at + i / eighths];
    if (row < p.first_row || row - p.first_row >= p.rows) {
        return;
    }
    let eighth = i % eighths;
    let scale = scale_of(row - p.first_row, eighth / 4u);
    let weights = eight_weights(row - p.first_row, eighth / 4u, eighth % 4u, scale);
    for (var j = 0u; j < min(8u, p.cols - eighth * 8u); j++) {
        y[p.y_at + i / eighths * p.cols + eighth * 8u + j] = weights[j];
    }
}
