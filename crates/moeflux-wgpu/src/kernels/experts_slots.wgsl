// Where each expert that a step chose is to be computed, by one workgroup: in the place that it has on the device; else in one
// that another gives way from, in the order in which places do; else in a landing, the first of which is slot PLACES. Of those
// without a place, the lower index goes first.

struct Params {
    ids_at: u32,
    places_at: u32,
    slots_at: u32,
    list_at: u32,
    chosen_at: u32,
    /// Choices.
    n: u32,
    /// Places that may be taken from those who are not chosen: the first so many.
    offered: u32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
/// Places and who is in them, [PLACES, 2].
@group(0) @binding(1) var<storage, read> places: array<u32>;
/// Of each choice, or of each expert that was chosen.
@group(0) @binding(2) var<storage, read_write> slots: array<u32>;
/// Who has to come: how many to places, how many in all, and of each the expert and its slot, those to places first.
@group(0) @binding(3) var<storage, read_write> list: array<u32>;
/// Experts that were chosen, a bit each.
@group(0) @binding(4) var<storage, read_write> chosen_bits: array<u32>;
var<immediate> p: Params;

const NOBODY: u32 = 0xffffffffu;
const WORDS: u32 = (EXPERTS + 31u) / 32u;
const PLACE_WORDS: u32 = PLACES / 32u + 1u;

var<workgroup> chosen: array<atomic<u32>, WORDS>;
var<workgroup> missing: array<atomic<u32>, WORDS>;
/// Places that give way.
var<workgroup> yielding: array<atomic<u32>, PLACE_WORDS>;
/// Those, in their order.
var<workgroup> way: array<u32, PLACES + 1u>;
var<workgroup> slot_of: array<u32, EXPERTS>;

fn is_chosen(expert: u32) -> bool {
    return (atomicLoad(&chosen[expert / 32u]) & (1u << (expert % 32u))) != 0u;
}

/// Bits of a word below the one of `i`.
fn below(word: u32, i: u32) -> u32 {
    return countOneBits(word & ((1u << (i % 32u)) - 1u));
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < WORDS; i += LANES) {
        atomicStore(&chosen[i], 0u);
    }
    for (var i = lane; i < PLACE_WORDS; i += LANES) {
        atomicStore(&yielding[i], 0u);
    }
    for (var i = lane; i < EXPERTS; i += LANES) {
        slot_of[i] = NOBODY;
    }
    workgroupBarrier();
    for (var i = lane; i < p.n; i += LANES) {
        let expert = ids[p.ids_at + i];
        atomicOr(&chosen[expert / 32u], 1u << (expert % 32u));
    }
    workgroupBarrier();
    for (var i = lane; i < WORDS; i += LANES) {
        let bits = atomicLoad(&chosen[i]);
        chosen_bits[p.chosen_at + i] = bits;
        atomicStore(&missing[i], bits);
    }
    workgroupBarrier();
    for (var i = lane; i < PLACES; i += LANES) {
        let place = places[p.places_at + 2u * i];
        let expert = places[p.places_at + 2u * i + 1u];
        var yields = true;
        if (expert != NOBODY) {
            yields = !is_chosen(expert);
            slot_of[expert] = place;
            atomicAnd(&missing[expert / 32u], ~(1u << (expert % 32u)));
        }
        if (yields && i < p.offered) {
            atomicOr(&yielding[i / 32u], 1u << (i % 32u));
        }
    }
    workgroupBarrier();
    var ways = 0u;
    for (var word = 0u; word < PLACE_WORDS; word++) {
        let bits = atomicLoad(&yielding[word]);
        for (var i = word * 32u + lane; i < min(word * 32u + 32u, PLACES); i += LANES) {
            if ((bits & (1u << (i % 32u))) != 0u) {
                way[ways + below(bits, i)] = places[p.places_at + 2u * i];
            }
        }
        ways += countOneBits(bits);
    }
    workgroupBarrier();
    var count = 0u;
    for (var word = 0u; word < WORDS; word++) {
        let bits = atomicLoad(&missing[word]);
        for (var i = word * 32u + lane; i < min(word * 32u + 32u, EXPERTS); i += LANES) {
            if ((bits & (1u << (i % 32u))) != 0u) {
                let rank = count + below(bits, i);
                var slot = PLACES + rank - ways;
                if (rank < ways) {
                    slot = way[rank];
                }
                slot_of[i] = slot;
                list[p.list_at + 2u + 2u * rank] = i;
                list[p.list_at + 3u + 2u * rank] = slot;
            }
        }
        count += countOneBits(bits);
    }
    if (lane == 0u) {
        list[p.list_at] = min(count, ways);
        list[p.list_at + 1u] = count;
    }
    workgroupBarrier();
    if (IS_EACH) {
        for (var i = lane; i < p.n; i += LANES) {
            slots[p.slots_at + i] = slot_of[ids[p.ids_at + i]];
        }
    } else {
        for (var i = lane; i < EXPERTS; i += LANES) {
            slots[p.slots_at + i] = slot_of[i];
        }
    }
}
