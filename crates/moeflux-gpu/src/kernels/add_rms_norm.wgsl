// x = a + b and y = x · 1/sqrt(mean(x²) + eps) · weight over rows of `dim` values, one workgroup a row. An invocation reads of
// x what it wrote itself. The same bits as of the two operations one after the other.

struct Params {
    a_at: u32,
    b_at: u32,
    weight_at: u32,
    x_at: u32,
    y_at: u32,
    rows: u32,
    dim: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GRID_ROW + group.x;
    if (row >= p.rows) {
        return;
    }
    let first = row * p.dim;
    for (var i = lane; i < p.dim; i += LANES) {
        x[p.x_at + first + i] = a[p.a_at + first + i] + b[p.b_at + first + i];
    }
    let inverse = 1.0 / sqrt(sum_of_squares(p.x_at + first, p.dim, lane) / f32(p.dim) + p.eps);
    for (var i = lane; i < p.dim; i += LANES) {
        y[p.y_at + first + i] = x[p.x_at + first + i] * inverse * weight[p.weight_at + i];
    }
}
