// What the experts gave, weighted and added by ascending index of expert, fused.

struct Params {
    x_at: u32,
    ids_at: u32,
    weights_at: u32,
    y_at: u32,
    hidden: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

/// The token's choices by ascending index of expert, all of a workgroup's values being one token's.
var<workgroup> by_expert: array<u32, K>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.y;
    let first = token * K;
    for (var j = lane; j < K; j += LANES) {
        let id = ids[p.ids_at + first + j];
        var place = 0u;
        for (var other = 0u; other < K; other++) {
            place += u32(ids[p.ids_at + first + other] < id);
        }
        by_expert[place] = first + j;
    }
    workgroupBarrier();
    let i = group.x * LANES + lane;
    if (i >= p.hidden) {
        return;
    }
    var sum = 0.0;
    for (var n = 0u; n < K; n++) {
        let choice = by_expert[n];
        sum = fma(weights[p.weights_at + choice], x[p.x_at + choice * p.hidden + i], sum);
    }
    y[p.y_at + token * p.hidden + i] = sum;
}
