// The rows of x that are asked for.

struct Params {
    x_at: u32,
    rows_at: u32,
    y_at: u32,
    n: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i < p.n) {
        y[p.y_at + i] = x[p.x_at + rows[p.rows_at + i / p.width] * p.width + i % p.width];
    }
}
