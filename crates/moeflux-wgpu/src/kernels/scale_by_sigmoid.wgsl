// Row t of x times sigmoid(score[t]).

struct Params {
    x_at: u32,
    score_at: u32,
    y_at: u32,
    n: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> score: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i < p.n) {
        y[p.y_at + i] = x[p.x_at + i] * sigmoid(score[p.score_at + i / p.width]);
    }
}
