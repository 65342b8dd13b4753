// The gated delta rule, token by token: for a head with state S of [key_dim, value_dim],
// S ← decay·S, change = beta·(v - Sᵀk), S ← S + k ⊗ change, y = Sᵀq.
//
// A workgroup has CHANNELS channels of one head's values; each of PARTS invocations of a channel keeps KEYS channels of
// the key in registers. y is had in one pass with what is recalled: Sᵀq = (decay·S)ᵀq + (k·q)·change, so a token costs
// one barrier. A sum over the key goes by index within a part; the parts are then added by index.
//
// Inputs of TOKENS tokens are in a workgroup's memory while the next ones are on their way to registers, and their outputs
// are added up at the end, a token for each part.

struct Params {
    q_at: u32,
    k_at: u32,
    v_at: u32,
    decay_at: u32,
    beta_at: u32,
    state_at: u32,
    new_state_at: u32,
    y_at: u32,
    tokens: u32,
    key_heads: u32,
    value_heads: u32,
    key_dim: u32,
    value_dim: u32,
    /// States kept: one, after the last token, or one after each.
    states: u32,
    /// Value heads that follow each other with one key head; 0 if key heads take turns.
    grouped: u32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> decay: array<f32>;
@group(0) @binding(4) var<storage, read> beta: array<f32>;
@group(0) @binding(5) var<storage, read> state: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_state: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

const LANES: u32 = CHANNELS * PARTS;
const TOKENS: u32 = PARTS;
/// Vectors of a part's channels of a key, and of all tokens' keys, and how many of those an invocation brings.
const QUADS: u32 = (KEYS + 3u) / 4u;
const VECTORS: u32 = TOKENS * PARTS * QUADS;
const EACH: u32 = (VECTORS + LANES - 1u) / LANES;

/// [TOKENS, PARTS, QUADS].
var<workgroup> keys: array<vec4<f32>, VECTORS>;
var<workgroup> queries: array<vec4<f32>, VECTORS>;
/// v, decay and beta, [TOKENS, CHANNELS].
var<workgroup> gates: array<vec4<f32>, LANES>;
/// What the parts add to Sᵀk, of two tokens in turn, so that one may be read while the next is written.
var<workgroup> recalled: array<f32, 2u * LANES>;
/// What they add to (decay·S)ᵀq, [TOKENS, PARTS, CHANNELS], and to k·q, [TOKENS, PARTS].
var<workgroup> answered: array<f32, TOKENS * LANES>;
var<workgroup> products: array<f32, TOKENS * PARTS>;

/// Where a workgroup's heads are, and an invocation in it.
struct Place {
    head: u32,
    key_head: u32,
    lane: u32,
    part: u32,
    /// Of the head's values, and whether there is such a channel.
    channel: u32,
    is_channel: bool,
}

/// What an invocation brings of some tokens.
struct Coming {
    k: array<vec4<f32>, EACH>,
    q: array<vec4<f32>, EACH>,
    gate: vec4<f32>,
}

/// Four channels of a key, or as many as are left and zeros.
fn four_of_k(at: u32, left: u32) -> vec4<f32> {
    let i = p.k_at + at;
    if (left >= 4u) {
        return vec4(k[i], k[i + 1u], k[i + 2u], k[i + 3u]);
    }
    var four = vec4<f32>(0.0);
    for (var c = 0u; c < left; c++) {
        four[c] = k[i + c];
    }
    return four;
}

fn four_of_q(at: u32, left: u32) -> vec4<f32> {
    let i = p.q_at + at;
    if (left >= 4u) {
        return vec4(q[i], q[i + 1u], q[i + 2u], q[i + 3u]);
    }
    var four = vec4<f32>(0.0);
    for (var c = 0u; c < left; c++) {
        four[c] = q[i + c];
    }
    return four;
}

/// Of the tokens from `first` on; those past the end are the last one again.
fn bring(place: Place, first: u32) -> Coming {
    let last = p.tokens - 1u;
    var coming: Coming;
    for (var j = 0u; j < EACH; j++) {
        let i = place.lane + j * LANES;
        let t = min(first + i / (PARTS * QUADS), last);
        let within = i % QUADS * 4u;
        let key = i / QUADS % PARTS * KEYS + within;
        // Of the part, and of the key.
        let left = min(KEYS - within, max(p.key_dim, key) - key);
        let at = (t * p.key_heads + place.key_head) * p.key_dim + key;
        coming.k[j] = four_of_k(at, left);
        coming.q[j] = four_of_q(at, left);
    }
    let gate = min(first + place.part, last) * p.value_heads + place.head;
    coming.gate = vec4(0.0, decay[p.decay_at + gate], beta[p.beta_at + gate], 0.0);
    if (place.is_channel) {
        coming.gate.x = v[p.v_at + gate * p.value_dim + place.channel];
    }
    return coming;
}

fn put(place: Place, coming: Coming) {
    for (var j = 0u; j < EACH; j++) {
        let i = place.lane + j * LANES;
        if (i < VECTORS) {
            keys[i] = coming.k[j];
            queries[i] = coming.q[j];
        }
    }
    gates[place.lane] = coming.gate;
}

/// Adds the products of four channels to a sum, by index.
fn add_four(a: vec4<f32>, b: vec4<f32>, before: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, before))));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var place: Place;
    place.head = group.y;
    place.key_head = place.head % p.key_heads;
    if (p.grouped > 0u) {
        place.key_head = place.head / p.grouped;
    }
    place.lane = lane;
    place.part = lane / CHANNELS;
    place.channel = group.x * CHANNELS + lane % CHANNELS;
    place.is_channel = place.channel < p.value_dim;
    let part = place.part;
    let of_channel = lane % CHANNELS;
    let first_key = part * KEYS;
    let key_count = min(KEYS, max(p.key_dim, first_key) - first_key);
    let state_len = p.value_heads * p.key_dim * p.value_dim;
    let state_first = (place.head * p.key_dim + first_key) * p.value_dim + place.channel;

    var s: array<vec4<f32>, QUADS>;
    for (var j = 0u; j < QUADS; j++) {
        s[j] = vec4<f32>(0.0);
        for (var c = 0u; c < 4u; c++) {
            if (j * 4u + c < key_count && place.is_channel) {
                s[j][c] = state[p.state_at + state_first + (j * 4u + c) * p.value_dim];
            }
        }
    }
    var coming = bring(place, 0u);
    for (var first = 0u; first < p.tokens; first += TOKENS) {
        // Nobody reads what was there any more: its last token's barrier is behind everyone.
        put(place, coming);
        workgroupBarrier();
        if (first + TOKENS < p.tokens) {
            coming = bring(place, first + TOKENS);
        }
        if (lane < TOKENS * PARTS) {
            var product = 0.0;
            for (var j = 0u; j < QUADS; j++) {
                product = add_four(keys[lane * QUADS + j], queries[lane * QUADS + j], product);
            }
            products[lane] = product;
        }
        // The change by the token that this part writes the output of.
        var own_change = 0.0;
        for (var token = 0u; token < min(TOKENS, p.tokens - first); token++) {
            let gate = gates[token * CHANNELS + of_channel];
            let vectors = (token * PARTS + part) * QUADS;
            var of_key: array<vec4<f32>, QUADS>;
            var recall = 0.0;
            var answer = 0.0;
            for (var j = 0u; j < QUADS; j++) {
                of_key[j] = keys[vectors + j];
                s[j] *= gate.y;
                recall = add_four(s[j], of_key[j], recall);
                answer = add_four(s[j], queries[vectors + j], answer);
            }
            let turn = (token & 1u) * LANES;
            recalled[turn + lane] = recall;
            answered[token * LANES + lane] = answer;
            workgroupBarrier();
            recall = recalled[turn + of_channel];
            for (var other = 1u; other < PARTS; other++) {
                recall += recalled[turn + other * CHANNELS + of_channel];
            }
            let change = gate.z * (gate.x - recall);
            for (var j = 0u; j < QUADS; j++) {
                s[j] = fma(of_key[j], vec4<f32>(change), s[j]);
            }
            if (token == part) {
                own_change = change;
            }
            let t = first + token;
            if (place.is_channel && (p.states > 1u || t + 1u == p.tokens)) {
                let kept = p.new_state_at + (t + p.states - p.tokens) * state_len + state_first;
                for (var j = 0u; j < QUADS; j++) {
                    for (var c = 0u; c < 4u; c++) {
                        if (j * 4u + c < key_count) {
                            new_state[kept + (j * 4u + c) * p.value_dim] = s[j][c];
                        }
                    }
                }
            }
        }
        let t = first + part;
        if (t < p.tokens && place.is_channel) {
            var answer = answered[part * LANES + of_channel];
            var product = products[part * PARTS];
            for (var other = 1u; other < PARTS; other++) {
                answer += answered[part * LANES + other * CHANNELS + of_channel];
                product += products[part * PARTS + other];
            }
            y[p.y_at + (t * p.value_heads + place.head) * p.value_dim + place.channel] =
                fma(product, own_change, answer);
        }
    }
}
