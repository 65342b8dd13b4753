// y = rms_norm(x) · silu(gate) over rows of `dim` values, one workgroup a row.

struct Params {
    x_at: u32,
    gate_at: u32,
    weight_at: u32,
    y_at: u32,
    rows: u32,
    dim: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GRID_ROW + group.x;
    if (row >= p.rows) {
        return;
    }
    let first = row * p.dim;
    let inverse = 1.0 / sqrt(sum_of_squares(p.x_at + first, p.dim, lane) / f32(p.dim) + p.eps);
    for (var i = lane; i < p.dim; i += LANES) {
        let normed = x[p.x_at + first + i] * inverse * weight[p.weight_at + i];
        y[p.y_at + first + i] = normed * silu(gate[p.gate_at + first + i]);
    }
}
