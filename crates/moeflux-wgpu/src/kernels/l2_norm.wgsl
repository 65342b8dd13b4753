// y = x · 1/sqrt(Σx² + eps) · scale over rows of `dim` values, one workgroup a row.

struct Params {
    x_at: u32,
    y_at: u32,
    rows: u32,
    dim: u32,
    eps: f32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GRID_ROW + group.x;
    if (row >= p.rows) {
        return;
    }
    let first = row * p.dim;
    let inverse = 1.0 / sqrt(sum_of_squares(p.x_at + first, p.dim, lane) + p.eps);
    for (var i = lane; i < p.dim; i += LANES) {
        y[p.y_at + first + i] = x[p.x_at + first + i] * inverse * p.scale;
    }
}
