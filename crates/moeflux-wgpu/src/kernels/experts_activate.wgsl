// What experts make of their gates and ups, in place of the gates: rows of two times `width` values, those in `order`.

struct Params {
    gate_up_at: u32,
    order_at: u32,
    /// Values.
    n: u32,
    width: u32,
    alpha: f32,
    limit: f32,
}

@group(0) @binding(0) var<storage, read_write> gate_up: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i >= p.n) {
        return;
    }
    let gate = p.gate_up_at + order[p.order_at + i / p.width] * 2u * p.width + i % p.width;
    gate_up[gate] = activated(gate_up[gate], gate_up[gate + p.width]);
}
