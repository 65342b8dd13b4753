// y_h = W_hᵀ·x_h, an invocation for each eight columns of a head of a token. Sums go by row, fused.

struct Params {
    codes_at: u32,
    params_at: u32,
    x_at: u32,
    y_at: u32,
    heads: u32,
    /// Of a head.
    rows: u32,
    cols: u32,
    /// The first head that is bound.
    first_head: u32,
}

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> params: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let eighth = group.x * LANES + lane;
    if (eighth * 8u >= p.cols) {
        return;
    }
    let head = group.z * p.heads + p.first_head + group.y;
    var sums: array<f32, 8>;
    for (var j = 0u; j < 8u; j++) {
        sums[j] = 0.0;
    }
    for (var r = 0u; r < p.rows; r++) {
        let row = group.y * p.rows + r;
        let weights = eight_weights(row, eighth / 4u, eighth % 4u, scale_of(row, eighth / 4u));
        let factor = x[p.x_at + head * p.rows + r];
        for (var j = 0u; j < 8u; j++) {
            sums[j] = fma(factor, weights[j], sums[j]);
        }
    }
    for (var j = 0u; j < min(8u, p.cols - eighth * 8u); j++) {
        y[p.y_at + head * p.cols + eighth * 8u + j] = sums[j];
    }
}
