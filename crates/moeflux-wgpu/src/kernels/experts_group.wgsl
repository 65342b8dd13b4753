// Choices by expert, in tiles of TILE at most, by one workgroup. In which order a tile has its choices varies; none
// depends on another.

struct Params {
    ids_at: u32,
    slots_at: u32,
    tiles_at: u32,
    order_at: u32,
    n: u32,
    tiles: u32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
/// Where experts are, if that is not by their indices.
@group(0) @binding(1) var<storage, read> slots: array<u32>;
@group(0) @binding(2) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(3) var<storage, read_write> order: array<u32>;
var<immediate> p: Params;

/// Of each expert how many choices there are, later where the next one goes.
var<workgroup> counts: array<atomic<u32>, EXPERTS>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < EXPERTS; i += LANES) {
        atomicStore(&counts[i], 0u);
    }
    for (var i = lane; i < p.tiles; i += LANES) {
        tiles[p.tiles_at + i * 3u + 2u] = 0u;
    }
    storageBarrier();
    workgroupBarrier();
    for (var i = lane; i < p.n; i += LANES) {
        atomicAdd(&counts[ids[p.ids_at + i]], 1u);
    }
    workgroupBarrier();
    if (lane == 0u) {
        var first = 0u;
        var tile = p.tiles_at;
        for (var expert = 0u; expert < EXPERTS; expert++) {
            let count = atomicLoad(&counts[expert]);
            var matrix = expert;
            if (HAS_SLOTS && count > 0u) {
                matrix = slots[p.slots_at + expert];
            }
            for (var i = 0u; i < count; i += TILE) {
                tiles[tile] = matrix;
                tiles[tile + 1u] = first + i;
                tiles[tile + 2u] = min(TILE, count - i);
                tile += 3u;
            }
            atomicStore(&counts[expert], first);
            first += count;
        }
    }
    workgroupBarrier();
    for (var i = lane; i < p.n; i += LANES) {
        let place = atomicAdd(&counts[ids[p.ids_at + i]], 1u);
        order[p.order_at + place] = i;
    }
}
