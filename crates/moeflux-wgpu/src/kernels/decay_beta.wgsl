// decay = exp(-exp(a_log) · softplus(a + dt_bias)), beta = sigmoid(b).

struct Params {
    a_at: u32,
    b_at: u32,
    a_log_at: u32,
    dt_bias_at: u32,
    decay_at: u32,
    beta_at: u32,
    n: u32,
    heads: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> a_log: array<f32>;
@group(0) @binding(3) var<storage, read> dt_bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> decay: array<f32>;
@group(0) @binding(5) var<storage, read_write> beta: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i >= p.n) {
        return;
    }
    let head = i % p.heads;
    let rate = exponential(a_log[p.a_log_at + head]);
    decay[p.decay_at + i] = exponential(-rate * softplus(a[p.a_at + i] + dt_bias[p.dt_bias_at + head]));
    beta[p.beta_at + i] = sigmoid(b[p.b_at + i]);
}
