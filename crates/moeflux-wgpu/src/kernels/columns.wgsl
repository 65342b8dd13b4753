// One part of the columns of every group: the columns of x are groups of `group`; a part is `len` columns of each from
// `start` on, and goes to the columns of y from `to` on.

struct Params {
    x_at: u32,
    y_at: u32,
    n: u32,
    x_width: u32,
    y_width: u32,
    group: u32,
    start: u32,
    len: u32,
    to: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i >= p.n) {
        return;
    }
    let width = p.x_width / p.group * p.len;
    let row = i / width;
    let column = i % width;
    let source = column / p.len * p.group + p.start + column % p.len;
    y[p.y_at + row * p.y_width + p.to + column] = x[p.x_at + row * p.x_width + source];
}
