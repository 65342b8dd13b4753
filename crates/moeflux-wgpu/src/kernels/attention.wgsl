// Attention of rows (a query of one head) to the blocks of the past, of KV_BLOCK absolute positions each.
//
// A workgroup has ROWS rows of one group of heads, which attend to the same keys and values. Of a group and a block keys
// are [KEY_DIM, KV_BLOCK]; value channel c at position i is at c·VALUE_CHANNEL + i·VALUE_POSITION.
//
// The order of sums, which depends on absolute positions and shapes alone; products are fused with their additions:
// - a score: channels by index within each of four quarters, then the quarters by index;
// - the weights of a block: as a tree over positions, i taking i + 32, then i + 16, and so on;
// - a block's weighted values: positions by index within each of POSITION_PARTS parts, then the parts by index;
// - blocks are merged by index, whether one workgroup sees all of them (`whole`) or each is a workgroup of its own
//   (`split`, then attention_merge.wgsl).

struct Params {
    q_at: u32,
    q_rope_at: u32,
    keys_at: u32,
    values_at: u32,
    blocks_at: u32,
    sinks_at: u32,
    y_at: u32,
    tokens: u32,
    groups: u32,
    /// Of a group.
    heads: u32,
    first_position: u32,
    /// Positions that a query sees, its own included.
    window: u32,
    scale: f32,
    /// Of split blocks: the first, and how many there are.
    first_block: u32,
    split: u32,
    /// From the place of a block of keys to that of values.
    to_values: u32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> q_rope: array<f32>;
@group(0) @binding(2) var<storage, read> keys: array<f32>;
@group(0) @binding(3) var<storage, read> values: array<f32>;
@group(0) @binding(4) var<storage, read> blocks: array<u32>;
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

const LANES: u32 = 256u;
const ROPE_DIM: u32 = KEY_DIM - Q_DIM;
const QUARTER: u32 = (KEY_DIM + 3u) / 4u;
/// Positions of a part of a block, when values are summed.
const POSITIONS: u32 = KV_BLOCK / POSITION_PARTS;
/// Invocations of a part.
const CHANNEL_LANES: u32 = LANES / POSITION_PARTS;
/// Value channels of an invocation.
const CHANNELS: u32 = (VALUE_DIM + CHANNEL_LANES - 1u) / CHANNEL_LANES;

var<workgroup> queries: array<f32, ROWS * KEY_DIM>;
/// Sums of quarters, [ROWS, 4, KV_BLOCK]; trees, [ROWS, KV_BLOCK]; sums of parts, [ROWS, LANES].
var<workgroup> partial: array<f32, ROWS * LANES>;
var<workgroup> weights: array<f32, ROWS * KV_BLOCK>;
/// What a block gave: each row's largest score and sum of weights, and this invocation's channels of the values.
var<workgroup> block_softmax: array<Softmax, ROWS>;
var<private> block_values: array<array<f32, CHANNELS>, ROWS>;

/// The rows of a workgroup, and what they see.
struct Tile {
    group: u32,
    first_row: u32,
    last_row: u32,
    /// Positions of the first and of the last query.
    first_position: u32,
    last_position: u32,
}

fn tile_of(wg: vec3<u32>) -> Tile {
    let first_row = wg.x * ROWS;
    let last_row = min(first_row + ROWS, p.tokens * p.heads) - 1u;
    return Tile(
        wg.y,
        first_row,
        last_row,
        p.first_position + first_row / p.heads,
        p.first_position + last_row / p.heads,
    );
}

fn first_seen(position: u32) -> u32 {
    return max(position + 1u, p.window) - p.window;
}

/// Where queries and results have a row, in rows.
fn place_of(tile: Tile, row: u32) -> u32 {
    return (row / p.heads * p.groups + tile.group) * p.heads + row % p.heads;
}

fn load_queries(tile: Tile, lane: u32) {
    for (var i = lane; i < ROWS * KEY_DIM; i += LANES) {
        let row = place_of(tile, min(tile.first_row + i / KEY_DIM, tile.last_row));
        let channel = i % KEY_DIM;
        if (channel < Q_DIM) {
            queries[i] = q[p.q_at + row * Q_DIM + channel];
        } else {
            queries[i] = q_rope[p.q_rope_at + row * ROPE_DIM + channel - Q_DIM];
        }
    }
    workgroupBarrier();
}

/// Attends to one block, which some row sees; leaves what it gave in `block_softmax` and `block_values`.
fn attend_block(tile: Tile, block: u32, lane: u32) {
    let keys_block = blocks[p.blocks_at + block] * p.groups + tile.group;
    let values_block = blocks[p.blocks_at + p.to_values + block] * p.groups + tile.group;
    score(p.keys_at + keys_block * KEY_DIM * KV_BLOCK, lane);
    weigh(tile, block * KV_BLOCK, lane);
    sum_values(tile, block * KV_BLOCK, p.values_at + values_block * VALUE_BLOCK, lane);
}

/// Each quarter of every row's scores.
fn score(keys_at: u32, lane: u32) {
    let position = lane % KV_BLOCK;
    let quarter = lane / KV_BLOCK;
    var sums: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        sums[r] = 0.0;
    }
    for (var c = quarter * QUARTER; c < min((quarter + 1u) * QUARTER, KEY_DIM); c++) {
        let key = keys[keys_at + c * KV_BLOCK + position];
        for (var r = 0u; r < ROWS; r++) {
            sums[r] = fma(queries[r * KEY_DIM + c], key, sums[r]);
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        partial[r * LANES + lane] = sums[r];
    }
    workgroupBarrier();
}

/// Scores to weights relative to the row's largest of the block, zero where the row sees nothing.
fn weigh(tile: Tile, start: u32, lane: u32) {
    for (var i = lane; i < ROWS * KV_BLOCK; i += LANES) {
        let r = i / KV_BLOCK;
        let at = r * LANES + i % KV_BLOCK;
        let scaled = p.scale * (partial[at] + partial[at + KV_BLOCK] + partial[at + 2u * KV_BLOCK]
            + partial[at + 3u * KV_BLOCK]);
        weights[i] = select(NOTHING, scaled, sees(tile, r, start + i % KV_BLOCK));
    }
    workgroupBarrier();
    for (var i = lane; i < ROWS * KV_BLOCK; i += LANES) {
        partial[i] = weights[i];
    }
    workgroupBarrier();
    for (var width = KV_BLOCK / 2u; width > 0u; width /= 2u) {
        for (var i = lane; i < ROWS * width; i += LANES) {
            let at = i / width * KV_BLOCK + i % width;
            partial[at] = max(partial[at], partial[at + width]);
        }
        workgroupBarrier();
    }
    if (lane < ROWS) {
        block_softmax[lane].largest = partial[lane * KV_BLOCK];
    }
    workgroupBarrier();
    for (var i = lane; i < ROWS * KV_BLOCK; i += LANES) {
        let r = i / KV_BLOCK;
        let weight = exponential(weights[i] - block_softmax[r].largest);
        weights[i] = select(0.0, weight, sees(tile, r, start + i % KV_BLOCK));
        partial[i] = weights[i];
    }
    workgroupBarrier();
    for (var width = KV_BLOCK / 2u; width > 0u; width /= 2u) {
        for (var i = lane; i < ROWS * width; i += LANES) {
            let at = i / width * KV_BLOCK + i % width;
            partial[at] += partial[at + width];
        }
        workgroupBarrier();
    }
    if (lane < ROWS) {
        block_softmax[lane].sum = partial[lane * KV_BLOCK];
    }
    workgroupBarrier();
}

fn sees(tile: Tile, r: u32, position: u32) -> bool {
    let own = p.first_position + min(tile.first_row + r, tile.last_row) / p.heads;
    return first_seen(own) <= position && position <= own;
}

/// The weighted values. Positions that no row of the tile sees may hold anything.
fn sum_values(tile: Tile, start: u32, values_at: u32, lane: u32) {
    let part = lane / CHANNEL_LANES;
    let first = max(part * POSITIONS, max(first_seen(tile.first_position), start) - start);
    let end = min((part + 1u) * POSITIONS, min(tile.last_position - start, KV_BLOCK - 1u) + 1u);
    for (var c = 0u; c < CHANNELS; c++) {
        let channel = lane % CHANNEL_LANES + c * CHANNEL_LANES;
        for (var r = 0u; r < ROWS; r++) {
            block_values[r][c] = 0.0;
        }
        if (channel < VALUE_DIM) {
            for (var i = first; i < end; i++) {
                let value = values[values_at + channel * VALUE_CHANNEL + i * VALUE_POSITION];
                for (var r = 0u; r < ROWS; r++) {
                    block_values[r][c] = fma(weights[r * KV_BLOCK + i], value, block_values[r][c]);
                }
            }
        }
    }
    if (POSITION_PARTS > 1u) {
        // An invocation has one channel here.
        for (var r = 0u; r < ROWS; r++) {
            partial[r * LANES + lane] = block_values[r][0];
        }
        workgroupBarrier();
        for (var r = 0u; r < ROWS; r++) {
            let at = r * LANES + lane % CHANNEL_LANES;
            block_values[r][0] = partial[at];
            for (var other = 1u; other < POSITION_PARTS; other++) {
                block_values[r][0] += partial[at + other * CHANNEL_LANES];
            }
        }
    }
}

/// Softmax over all blocks: y is [tokens, groups, heads, VALUE_DIM].
@compute @workgroup_size(LANES)
fn whole(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(wg);
    load_queries(tile, lane);
    var merged: array<array<f32, CHANNELS>, ROWS>;
    var softmax: array<Softmax, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        softmax[r] = Softmax(NOTHING, 0.0);
        if (HAS_SINKS) {
            let head = tile.group * p.heads + (tile.first_row + r) % p.heads;
            softmax[r] = Softmax(sinks[p.sinks_at + head], 1.0);
        }
        for (var c = 0u; c < CHANNELS; c++) {
            merged[r][c] = 0.0;
        }
    }
    let last_block = tile.last_position / KV_BLOCK;
    for (var block = first_seen(tile.first_position) / KV_BLOCK; block <= last_block; block++) {
        attend_block(tile, block, lane);
        for (var r = 0u; r < ROWS; r++) {
            let factors = merge(softmax[r], block_softmax[r]);
            for (var c = 0u; c < CHANNELS; c++) {
                merged[r][c] = merged_sum(merged[r][c], block_values[r][c], factors);
            }
            softmax[r] = merged_softmax(softmax[r], block_softmax[r], factors);
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < ROWS; r++) {
        let row = tile.first_row + r;
        for (var c = 0u; c < CHANNELS; c++) {
            let channel = lane + c * CHANNEL_LANES;
            if (row <= tile.last_row && lane < CHANNEL_LANES && channel < VALUE_DIM) {
                y[p.y_at + place_of(tile, row) * VALUE_DIM + channel] = merged[r][c] / softmax[r].sum;
            }
        }
    }
}

/// What each block gives: y is [tokens, groups, heads, split, VALUE_DIM + 2], the values, the largest score, the sum of
/// weights.
@compute @workgroup_size(LANES)
fn split(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(wg);
    let block = p.first_block + wg.z;
    if (block < first_seen(tile.first_position) / KV_BLOCK || tile.last_position / KV_BLOCK < block) {
        return;
    }
    load_queries(tile, lane);
    attend_block(tile, block, lane);
    for (var r = 0u; r < ROWS; r++) {
        let row = tile.first_row + r;
        if (row > tile.last_row) {
            break;
        }
        let at = p.y_at + (place_of(tile, row) * p.split + wg.z) * (VALUE_DIM + 2u);
        for (var c = 0u; c < CHANNELS; c++) {
            let channel = lane + c * CHANNEL_LANES;
            if (lane < CHANNEL_LANES && channel < VALUE_DIM) {
                y[at + channel] = block_values[r][c];
            }
        }
        if (lane == 0u) {
            y[at + VALUE_DIM] = block_softmax[r].largest;
            y[at + VALUE_DIM + 1u] = block_softmax[r].sum;
        }
    }
}
