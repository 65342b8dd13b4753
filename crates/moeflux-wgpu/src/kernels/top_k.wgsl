// The largest values of each row, by falling value, of equal ones the lowest index first: one workgroup takes CHUNK
// values of a row and leaves the K largest. Applied again to what it left, until one chunk is left.
//
// Values are sorted as pairs of an integer of the same order and an index (a bitonic sort), NaN below all.

struct Params {
    values_at: u32,
    indices_at: u32,
    top_values_at: u32,
    top_indices_at: u32,
    /// Values of a row.
    n: u32,
    /// Workgroups of a row.
    chunks: u32,
    /// Whether values come with indices; otherwise a value's place in its row is its index.
    has_indices: u32,
}

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> top_values: array<f32>;
@group(0) @binding(3) var<storage, read_write> top_indices: array<u32>;
var<immediate> p: Params;

const LANES: u32 = 256u;
/// The index of what is no value.
const NO_INDEX: u32 = 0xffffffffu;

var<workgroup> sort_keys: array<u32, CHUNK>;
var<workgroup> sort_indices: array<u32, CHUNK>;

fn swap_if(i: u32, j: u32, is_falling: bool) {
    let a = sort_keys[i];
    let b = sort_keys[j];
    let a_index = sort_indices[i];
    let b_index = sort_indices[j];
    if (comes_before(b, b_index, a, a_index) == is_falling) {
        sort_keys[i] = b;
        sort_keys[j] = a;
        sort_indices[i] = b_index;
        sort_indices[j] = a_index;
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = wg.x * CHUNK;
    for (var i = lane; i < CHUNK; i += LANES) {
        sort_keys[i] = 0u;
        sort_indices[i] = NO_INDEX;
        if (first + i < p.n) {
            let at = wg.y * p.n + first + i;
            sort_keys[i] = key_of(values[p.values_at + at]);
            sort_indices[i] = first + i;
            if (p.has_indices > 0u) {
                sort_indices[i] = indices[p.indices_at + at];
            }
        }
    }
    workgroupBarrier();
    for (var run = 2u; run <= CHUNK; run *= 2u) {
        for (var distance = run / 2u; distance > 0u; distance /= 2u) {
            for (var pair = lane; pair < CHUNK / 2u; pair += LANES) {
                let i = pair / distance * 2u * distance + pair % distance;
                swap_if(i, i + distance, (i & run) == 0u);
            }
            workgroupBarrier();
        }
    }
    for (var i = lane; i < K; i += LANES) {
        let at = (wg.y * p.chunks + wg.x) * K + i;
        top_values[p.top_values_at + at] = float_of(sort_keys[i]);
        top_indices[p.top_indices_at + at] = sort_indices[i];
    }
}
