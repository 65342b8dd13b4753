// Writes keys and values, [n, kv_heads, head_dim], of the positions from `first_position` on into their blocks: a block
// of keys is [kv_heads, head_dim, KV_BLOCK], one of values [kv_heads, KV_BLOCK, head_dim]; `blocks` says where the
// blocks of the sequence lie.

struct Params {
    k_at: u32,
    v_at: u32,
    keys_at: u32,
    values_at: u32,
    blocks_at: u32,
    n: u32,
    kv_heads: u32,
    head_dim: u32,
    first_position: u32,
    /// From the place of a block of keys to that of values.
    to_values: u32,
}

@group(0) @binding(0) var<storage, read> k: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read_write> keys: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read> blocks: array<u32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i >= p.n) {
        return;
    }
    let width = p.kv_heads * p.head_dim;
    let position = p.first_position + i / width;
    let head = i % width / p.head_dim;
    let channel = i % p.head_dim;
    let at = position % KV_BLOCK;
    let place = p.blocks_at + position / KV_BLOCK;
    let within = head * KV_BLOCK * p.head_dim;
    let keys_block = blocks[place] * width * KV_BLOCK + within;
    let values_block = blocks[place + p.to_values] * width * KV_BLOCK + within;
    keys[p.keys_at + keys_block + channel * KV_BLOCK + at] = k[p.k_at + i];
    values[p.values_at + values_block + at * p.head_dim + channel] = v[p.v_at + i];
}
