// The gated delta rule, token by token: for a head with state S of [key_dim, value_dim],
// S ← decay·S, change = beta·(v - Sᵀk), S ← S + k ⊗ change, y = Sᵀq.
//
// A workgroup has CHANNELS channels of one head's values; each of PARTS invocations of a channel keeps KEYS channels of
// the key in registers. y is had in one pass with what is recalled: Sᵀq = (decay·S)ᵀq + (k·q)·change, so a token costs
// one barrier. A sum over the key goes by index within a part; the parts are then added by index.

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

/// What the parts add to Sᵀk, Sᵀq and k·q; of two tokens in turn, so that one may be read while the next is written.
var<workgroup> sums: array<vec3<f32>, 2u * LANES>;

/// What an invocation reads of a token.
struct Token {
    k: array<f32, KEYS>,
    q: array<f32, KEYS>,
    v: f32,
    decay: f32,
    beta: f32,
}

fn token_of(t: u32, head: u32, key_head: u32, first_key: u32, keys: u32, channel: u32) -> Token {
    let key_first = (t * p.key_heads + key_head) * p.key_dim + first_key;
    let gate = t * p.value_heads + head;
    var token: Token;
    for (var i = 0u; i < KEYS; i++) {
        token.k[i] = 0.0;
        token.q[i] = 0.0;
        if (i < keys) {
            token.k[i] = k[p.k_at + key_first + i];
            token.q[i] = q[p.q_at + key_first + i];
        }
    }
    token.v = 0.0;
    if (channel < p.value_dim) {
        token.v = v[p.v_at + gate * p.value_dim + channel];
    }
    token.decay = decay[p.decay_at + gate];
    token.beta = beta[p.beta_at + gate];
    return token;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    var key_head = head % p.key_heads;
    if (p.grouped > 0u) {
        key_head = head / p.grouped;
    }
    let part = lane / CHANNELS;
    let channel = group.x * CHANNELS + lane % CHANNELS;
    let is_channel = channel < p.value_dim;
    let first_key = part * KEYS;
    let keys = min(KEYS, max(p.key_dim, first_key) - first_key);
    let state_len = p.value_heads * p.key_dim * p.value_dim;
    let state_first = (head * p.key_dim + first_key) * p.value_dim + channel;

    var s: array<f32, KEYS>;
    for (var i = 0u; i < KEYS; i++) {
        s[i] = 0.0;
        if (i < keys && is_channel) {
            s[i] = state[p.state_at + state_first + i * p.value_dim];
        }
    }
    var now = token_of(0u, head, key_head, first_key, keys, channel);
    for (var t = 0u; t < p.tokens; t++) {
        let gate = t * p.value_heads + head;
        var sum = vec3<f32>(0.0);
        for (var i = 0u; i < KEYS; i++) {
            s[i] *= now.decay;
            sum = fma(vec3<f32>(s[i], s[i], now.k[i]), vec3<f32>(now.k[i], now.q[i], now.q[i]), sum);
        }
        let buffer = (t & 1u) * LANES;
        sums[buffer + lane] = sum;
        // The next token's values come while this one's are added.
        var next = now;
        if (t + 1u < p.tokens) {
            next = token_of(t + 1u, head, key_head, first_key, keys, channel);
        }
        workgroupBarrier();
        sum = sums[buffer + lane % CHANNELS];
        for (var other = 1u; other < PARTS; other++) {
            sum += sums[buffer + other * CHANNELS + lane % CHANNELS];
        }
        let change = now.beta * (now.v - sum.x);
        for (var i = 0u; i < KEYS; i++) {
            s[i] = fma(now.k[i], change, s[i]);
        }
        if (part == 0u && is_channel) {
            y[p.y_at + gate * p.value_dim + channel] = fma(sum.z, change, sum.y);
        }
        if (is_channel && (p.states > 1u || t + 1u == p.tokens)) {
            let kept_state = (t + p.states - p.tokens) * state_len;
            for (var i = 0u; i < keys; i++) {
                new_state[p.new_state_at + kept_state + state_first + i * p.value_dim] = s[i];
            }
        }
        now = next;
    }
}
