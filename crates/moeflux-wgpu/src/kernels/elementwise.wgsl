// What is done to each value by itself, one entry point an operation.

struct Params {
    a_at: u32,
    b_at: u32,
    y_at: u32,
    n: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

/// y = a + b.
@compute @workgroup_size(LANES)
fn add(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i < p.n) {
        y[p.y_at + i] = a[p.a_at + i] + b[p.b_at + i];
    }
}

/// y = silu(a) · b.
@compute @workgroup_size(LANES)
fn swiglu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i < p.n) {
        y[p.y_at + i] = silu(a[p.a_at + i]) * b[p.b_at + i];
    }
}

/// y = a · sigmoid(b).
@compute @workgroup_size(LANES)
fn sigmoid_gate(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i < p.n) {
        y[p.y_at + i] = a[p.a_at + i] * sigmoid(b[p.b_at + i]);
    }
}
