// y = x · 1/sqrt(mean(x²) + eps) · weight over rows of `dim` values, one workgroup a row; an invocation keeps what it has of
// one, columns lane, lane + LANES, …, EACH at most. If HAS_SUM, x = a + b is computed and written first, with the same bits as
// by an operation of its own.

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
    var values: array<f32, EACH>;
    for (var j = 0u; j < EACH; j++) {
        let i = lane + j * LANES;
        values[j] = 0.0;
        if (i < p.dim) {
            values[j] = a[p.a_at + first + i];
            if (HAS_SUM) {
                values[j] += b[p.b_at + first + i];
            }
        }
    }
    var squares = 0.0;
    for (var j = 0u; j < EACH; j++) {
        squares = fma(values[j], values[j], squares);
    }
    let inverse = 1.0 / sqrt(sum_of_lanes(squares, lane) / f32(p.dim) + p.eps);
    for (var j = 0u; j < EACH; j++) {
        let i = lane + j * LANES;
        if (i < p.dim) {
            if (HAS_SUM) {
                x[p.x_at + first + i] = values[j];
            }
            y[p.y_at + first + i] = values[j] * inverse * weight[p.weight_at + i];
        }
    }
}
