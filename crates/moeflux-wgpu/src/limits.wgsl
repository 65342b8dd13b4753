// Reads everything once: an invocation EACH vectors, a workgroup's next to each other. What is read decides what is
// written, so that no compiler leaves it out.

struct Params {
    from_at: u32,
    to_at: u32,
    groups: u32,
    row: u32,
}

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> target_words: array<u32>;
var<immediate> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = wg.y * p.row + wg.x;
    if (group >= p.groups) {
        return;
    }
    var all = vec4<u32>(0u);
    for (var i = 0u; i < EACH; i++) {
        all |= source[p.from_at / 4u + (group * EACH + i) * LANES + lane];
    }
    if ((all.x | all.y | all.z | all.w) != 0u) {
        target_words[p.to_at + group] = 1u;
    }
}
