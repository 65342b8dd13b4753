// Experts from the host's memory to where they are computed: a workgroup brings LANES · 4 vectors of four words of one of them,
// each invocation four, which are all on their way before the first one is waited for.

struct Params {
    source_at: u32,
    list_at: u32,
    gate_up_at: u32,
    gate_up_params_at: u32,
    down_at: u32,
    down_params_at: u32,
    gate_up_bias_at: u32,
    down_bias_at: u32,
    /// Whether they come to landings, those from `first` on, and not to places.
    is_landing: u32,
    first: u32,
    count: u32,
    /// Experts that are bound.
    first_expert: u32,
    experts: u32,
    /// Slots that are bound.
    first_slot: u32,
    slots: u32,
}

/// Experts one after the other, each QUADS vectors: pieces that begin with a vector, one for each of the targets.
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
/// Who has to come; see experts_slots.wgsl.
@group(0) @binding(1) var<storage, read> list: array<u32>;
@group(0) @binding(2) var<storage, read_write> gate_up: array<u32>;
@group(0) @binding(3) var<storage, read_write> gate_up_params: array<u32>;
@group(0) @binding(4) var<storage, read_write> down: array<u32>;
@group(0) @binding(5) var<storage, read_write> down_params: array<u32>;
@group(0) @binding(6) var<storage, read_write> gate_up_bias: array<u32>;
@group(0) @binding(7) var<storage, read_write> down_bias: array<u32>;
var<immediate> p: Params;

fn put(quad: u32, slot: u32, words: vec4<u32>) {
    if (quad < QUADS) {
        put_word(quad, 0u, slot, words.x);
        put_word(quad, 1u, slot, words.y);
        put_word(quad, 2u, slot, words.z);
        put_word(quad, 3u, slot, words.w);
    }
}

/// A word of a vector to its target, if it is not there to fill the piece's last vector.
fn put_word(quad: u32, within: u32, slot: u32, word: u32) {
    if (quad < END0) {
        let at = quad * 4u + within;
        if (at < LEN0) {
            gate_up[p.gate_up_at + slot * LEN0 + at] = word;
        }
    } else if (quad < END1) {
        let at = (quad - END0) * 4u + within;
        if (at < LEN1) {
            gate_up_params[p.gate_up_params_at + slot * LEN1 + at] = word;
        }
    } else if (quad < END2) {
        let at = (quad - END1) * 4u + within;
        if (at < LEN2) {
            down[p.down_at + slot * LEN2 + at] = word;
        }
    } else if (quad < END3) {
        let at = (quad - END2) * 4u + within;
        if (at < LEN3) {
            down_params[p.down_params_at + slot * LEN3 + at] = word;
        }
    } else if (quad < END4) {
        let at = (quad - END3) * 4u + within;
        if (at < LEN4) {
            gate_up_bias[p.gate_up_bias_at + slot * LEN4 + at] = word;
        }
    } else {
        let at = (quad - END4) * 4u + within;
        if (at < LEN5) {
            down_bias[p.down_bias_at + slot * LEN5 + at] = word;
        }
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let to_places = list[p.list_at];
    var entry = group.y;
    var end = to_places;
    if (p.is_landing != 0u) {
        entry += to_places + p.first;
        end = list[p.list_at + 1u];
    }
    if (group.y >= p.count || entry >= end) {
        return;
    }
    let expert = list[p.list_at + 2u + 2u * entry];
    let slot = list[p.list_at + 3u + 2u * entry];
    if (expert < p.first_expert || expert - p.first_expert >= p.experts) {
        return;
    }
    if (slot < p.first_slot || slot - p.first_slot >= p.slots) {
        return;
    }
    let from_at = p.source_at / 4u + (expert - p.first_expert) * QUADS;
    let to = slot - p.first_slot;
    let quad = group.x * LANES * 4u + lane;
    let last = QUADS - 1u;
    let a = source[from_at + min(quad, last)];
    let b = source[from_at + min(quad + LANES, last)];
    let c = source[from_at + min(quad + 2u * LANES, last)];
    let d = source[from_at + min(quad + 3u * LANES, last)];
    put(quad, to, a);
    put(quad + LANES, to, b);
    put(quad + 2u * LANES, to, c);
    put(quad + 3u * LANES, to, d);
}
