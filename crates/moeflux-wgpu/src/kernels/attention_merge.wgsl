// Merges what attention gave block by block, in order: one workgroup a row (a query of one head). A row sees the blocks
// of its window; the parts of others are not written.

struct Params {
    parts_at: u32,
    sinks_at: u32,
    y_at: u32,
    rows: u32,
    /// Of a token.
    heads: u32,
    first_position: u32,
    window: u32,
    first_block: u32,
    split: u32,
}

@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read> sinks: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

const LANES: u32 = 128u;
const PART: u32 = VALUE_DIM + 2u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wg.y * GRID_ROW + wg.x;
    if (row >= p.rows) {
        return;
    }
    let position = p.first_position + row / p.heads;
    let first = (max(position + 1u, p.window) - p.window) / KV_BLOCK - p.first_block;
    let last = position / KV_BLOCK - p.first_block;
    for (var channel = lane; channel < VALUE_DIM; channel += LANES) {
        var sum = 0.0;
        var softmax = Softmax(NOTHING, 0.0);
        if (HAS_SINKS) {
            softmax = Softmax(sinks[p.sinks_at + row % p.heads], 1.0);
        }
        for (var block = first; block <= last; block++) {
            let at = p.parts_at + (row * p.split + block) * PART;
            let part = Softmax(parts[at + VALUE_DIM], parts[at + VALUE_DIM + 1u]);
            let factors = merge(softmax, part);
            sum = merged_sum(sum, parts[at + channel], factors);
            softmax = merged_softmax(softmax, part, factors);
        }
        y[p.y_at + row * VALUE_DIM + channel] = sum / softmax.sum;
    }
}
