// Rotary position embedding: pair i of each head turns by the angle whose cosine and sine are cos[t][i] and sin[t][i].
// One invocation a pair, or a channel that is copied.

struct Params {
    x_at: u32,
    cos_at: u32,
    sin_at: u32,
    y_at: u32,
    /// Pairs and copied channels of all heads of all tokens.
    n: u32,
    heads: u32,
    head_dim: u32,
    pairs: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> cos_table: array<f32>;
@group(0) @binding(2) var<storage, read> sin_table: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = element(group, lane);
    if (index >= p.n) {
        return;
    }
    let per_head = p.head_dim - p.pairs;
    let head = index / per_head;
    let i = index % per_head;
    let first = head * p.head_dim;
    if (i >= p.pairs) {
        let channel = first + p.pairs + i;
        y[p.y_at + channel] = x[p.x_at + channel];
        return;
    }
    var a_at = first + i;
    var b_at = a_at + p.pairs;
    if (IS_INTERLEAVED) {
        a_at = first + 2u * i;
        b_at = a_at + 1u;
    }
    let angle = head / p.heads * p.pairs + i;
    let c = cos_table[p.cos_at + angle];
    let s = sin_table[p.sin_at + angle];
    let a = x[p.x_at + a_at];
    let b = x[p.x_at + b_at];
    y[p.y_at + a_at] = fma(a, c, -(b * s));
    y[p.y_at + b_at] = fma(b, c, a * s);
}
