// Each token's experts: one workgroup a token, invocation l has experts l, l + LANES, …
//
// An expert's place is the number of those that come before it: with a larger choice, or with an equal one and a lower
// index. Choices are compared as integers of the same order, NaN below all. Sums over all experts: each lane in order,
// then the lanes as a tree; sums over the chosen go by their places.

struct Params {
    logits_at: u32,
    bias_at: u32,
    ids_at: u32,
    weights_at: u32,
    tokens: u32,
    scaling_factor: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
var<immediate> p: Params;

const MINUS_INFINITY_KEY: u32 = 0x007fffffu;
const GROUP_SIZE: u32 = EXPERTS / GROUPS;

/// What a logit is worth: by SCORES.
const SOFTMAX: u32 = 0u;
const SIGMOID: u32 = 1u;
/// What the chosen scores become: by WEIGHTING.
const SUM_TO_ONE: u32 = 1u;
const SOFTMAX_OF_CHOSEN: u32 = 2u;
/// What ranks a group: by GROUP_SCORE.
const MAX: u32 = 0u;

var<workgroup> scores: array<f32, EXPERTS>;
/// Of the experts' choices, four a vector; zeros past the last.
var<workgroup> keys: array<vec4<u32>, (EXPERTS + 3u) / 4u>;
var<workgroup> lanes: array<f32, LANES>;
var<workgroup> group_keys: array<u32, GROUPS>;
var<workgroup> chosen: array<f32, K>;

fn softmax(lane: u32) {
    var largest = -3.4028235e38;
    for (var e = lane; e < EXPERTS; e += LANES) {
        largest = max(largest, scores[e]);
    }
    lanes[lane] = largest;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            lanes[lane] = max(lanes[lane], lanes[lane + width]);
        }
        workgroupBarrier();
    }
    largest = lanes[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var e = lane; e < EXPERTS; e += LANES) {
        let weight = exponential(scores[e] - largest);
        scores[e] = weight;
        sum += weight;
    }
    lanes[lane] = sum;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            lanes[lane] += lanes[lane + width];
        }
        workgroupBarrier();
    }
    for (var e = lane; e < EXPERTS; e += LANES) {
        scores[e] /= lanes[0];
    }
}

/// The rank of a group: its largest score, or the sum of its two largest.
fn group_key(index: u32) -> u32 {
    var first = MINUS_INFINITY_KEY;
    var second = MINUS_INFINITY_KEY;
    for (var e = index * GROUP_SIZE; e < (index + 1u) * GROUP_SIZE; e++) {
        let key = keys[e / 4u][e % 4u];
        if (key > first) {
            second = first;
            first = key;
        } else if (key > second) {
            second = key;
        }
    }
    if (GROUP_SCORE == MAX) {
        return first;
    }
    return key_of(float_of(first) + float_of(second));
}

fn exclude_other_groups(lane: u32) {
    for (var g = lane; g < GROUPS; g += LANES) {
        group_keys[g] = group_key(g);
    }
    workgroupBarrier();
    for (var e = lane; e < EXPERTS; e += LANES) {
        let mine = e / GROUP_SIZE;
        var place = 0u;
        for (var g = 0u; g < GROUPS; g++) {
            place += u32(comes_before(group_keys[g], g, group_keys[mine], mine));
        }
        if (place >= GROUPS_CHOSEN) {
            keys[e / 4u][e % 4u] = MINUS_INFINITY_KEY;
        }
    }
    workgroupBarrier();
}

/// How many experts come before one. Those of a lower index also do with an equal choice: no key is the largest integer.
fn place_of(e: u32) -> u32 {
    let mine = vec4<u32>(keys[e / 4u][e % 4u]);
    var places = vec4<u32>(0u);
    for (var i = 0u; i < (EXPERTS + 3u) / 4u; i++) {
        let others = i * 4u + vec4<u32>(0u, 1u, 2u, 3u);
        let is_lower = select(vec4<u32>(0u), vec4<u32>(1u), others < vec4<u32>(e));
        places += select(vec4<u32>(0u), vec4<u32>(1u), keys[i] + is_lower > mine);
    }
    return places.x + places.y + places.z + places.w;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.y * GRID_ROW + group.x;
    if (token >= p.tokens) {
        return;
    }
    for (var e = lane; e < EXPERTS; e += LANES) {
        let logit = logits[p.logits_at + token * EXPERTS + e];
        if (SCORES == SIGMOID) {
            scores[e] = sigmoid(logit);
        } else {
            scores[e] = logit;
        }
    }
    if (SCORES == SOFTMAX) {
        softmax(lane);
    }
    for (var e = lane; e < EXPERTS; e += LANES) {
        var score = scores[e];
        if (HAS_BIAS) {
            score += bias[p.bias_at + e];
        }
        keys[e / 4u][e % 4u] = key_of(score);
    }
    for (var e = EXPERTS + lane; e < (EXPERTS + 3u) / 4u * 4u; e += LANES) {
        keys[e / 4u][e % 4u] = 0u;
    }
    workgroupBarrier();
    if (GROUPS > 1u) {
        exclude_other_groups(lane);
    }
    for (var e = lane; e < EXPERTS; e += LANES) {
        let place = place_of(e);
        if (place < K) {
            ids[p.ids_at + token * K + place] = e;
            chosen[place] = scores[e];
        }
    }
    workgroupBarrier();
    for (var place = lane; place < K; place += LANES) {
        weights[p.weights_at + token * K + place] = weight_of(chosen[place]) * p.scaling_factor;
    }
}

/// What a chosen score becomes.
fn weight_of(score: f32) -> f32 {
    if (WEIGHTING == SUM_TO_ONE) {
        var sum = 0.0;
        for (var i = 0u; i < K; i++) {
            sum += chosen[i];
        }
        return score / (sum + 1e-20);
    }
    if (WEIGHTING == SOFTMAX_OF_CHOSEN) {
        var largest = chosen[0];
        for (var i = 1u; i < K; i++) {
            largest = max(largest, chosen[i]);
        }
        var sum = 0.0;
        for (var i = 0u; i < K; i++) {
            sum += exponential(chosen[i] - largest);
        }
        return exponential(score - largest) / sum;
    }
    return score;
}
