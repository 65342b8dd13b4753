// Writes latents, [n, rank], and rotary keys, [n, rope_dim], of the positions from `first_position` on into their
// blocks, [rank + rope_dim, KV_BLOCK]; `blocks` says where the blocks of the sequence lie.

struct Params {
    latent_at: u32,
    k_rope_at: u32,
    cache_at: u32,
    blocks_at: u32,
    n: u32,
    rank: u32,
    rope_dim: u32,
    first_position: u32,
}

@group(0) @binding(0) var<storage, read> latent: array<f32>;
@group(0) @binding(1) var<storage, read> k_rope: array<f32>;
@group(0) @binding(2) var<storage, read_write> cache: array<f32>;
@group(0) @binding(3) var<storage, read> blocks: array<u32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    if (i >= p.n) {
        return;
    }
    let width = p.rank + p.rope_dim;
    let token = i / width;
    let channel = i % width;
    var value = 0.0;
    if (channel < p.rank) {
        value = latent[p.latent_at + token * p.rank + channel];
    } else {
        value = k_rope[p.k_rope_at + token * p.rope_dim + channel - p.rank];
    }
    let position = p.first_position + token;
    let block = blocks[p.blocks_at + position / KV_BLOCK] * width;
    cache[p.cache_at + (block + channel) * KV_BLOCK + position % KV_BLOCK] = value;
}
