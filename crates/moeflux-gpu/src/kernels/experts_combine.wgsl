// What the experts gave, weighted and added by ascending index of expert, fused.

struct Params {
    x_at: u32,
    ids_at: u32,
    weights_at: u32,
    y_at: u32,
    n: u32,
    hidden: u32,
    k: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * GRID_ROW + group.x) * LANES + lane;
    if (i >= p.n) {
        return;
    }
    let first = i / p.hidden * p.k;
    var sum = 0.0;
    var above = 0u;
    for (var n = 0u; n < p.k; n++) {
        // Of the experts from `above` on the next one.
        var expert = 0xffffffffu;
        var choice = first;
        for (var j = first; j < first + p.k; j++) {
            let id = ids[p.ids_at + j];
            if (id >= above && id < expert) {
                expert = id;
                choice = j;
            }
        }
        sum = fma(weights[p.weights_at + choice], x[p.x_at + choice * p.hidden + i % p.hidden], sum);
        above = expert + 1u;
    }
    y[p.y_at + i] = sum;
}
