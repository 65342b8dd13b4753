// y = W·x for T rows of x, one or two, and LANES/CHAINS rows of W: an invocation has one chain of a row. For the order of
// sums see product.wgsl.

/// Rows of W.
const SLOTS: u32 = LANES / CHAINS;
const OUTPUTS: u32 = T * SLOTS;
/// Vectors of a group of x, and one so that invocations read different banks.
const STRIDE: u32 = 17u;
/// Vectors of x that a workgroup has at once.
const VECTORS: u32 = T * CHAINS * 16u;

/// Of each chain the group at hand, [T, CHAINS, STRIDE].
var<workgroup> columns: array<vec4<f32>, T * CHAINS * STRIDE>;
var<workgroup> sums_of_chains: array<f32, OUTPUTS * (CHAINS + 1u)>;

fn add_eight(w: Eight, a: vec4<f32>, b: vec4<f32>, before: f32) -> f32 {
    var sum = fma(w.a.x, a.x, before);
    sum = fma(w.a.y, a.y, sum);
    sum = fma(w.a.z, a.z, sum);
    sum = fma(w.a.w, a.w, sum);
    sum = fma(w.b.x, b.x, sum);
    sum = fma(w.b.y, b.y, sum);
    sum = fma(w.b.z, b.z, sum);
    return fma(w.b.w, b.w, sum);
}

/// An eighth of a group, for each row of x.
fn add_eighth(w: Eight, at: u32, before: vec2<f32>) -> vec2<f32> {
    var sums = before;
    sums.x = add_eight(w, columns[at], columns[at + 1u], sums.x);
    if (T > 1u) {
        let second = at + CHAINS * STRIDE;
        sums.y = add_eight(w, columns[second], columns[second + 1u], sums.y);
    }
    return sums;
}

fn add_unit(weights: UnitOfRow, at: u32, before: vec2<f32>) -> vec2<f32> {
    var sums = add_eighth(eight_of_unit(weights, 0u), at, before);
    sums = add_eighth(eight_of_unit(weights, 1u), at + 2u, sums);
    sums = add_eighth(eight_of_unit(weights, 2u), at + 4u, sums);
    return add_eighth(eight_of_unit(weights, 3u), at + 6u, sums);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group);
    if (tile.count == 0u) {
        return;
    }
    let chain = lane % CHAINS;
    let slot = lane / CHAINS;
    let row = w_row(tile, group.x * SLOTS + slot);
    let at = chain * STRIDE;
    var sums = vec2<f32>(0.0);
    for (var base = 0u; base < GROUPS; base += CHAINS) {
        // Weights are asked for before x is waited for.
        let unit = (base + chain) * 2u;
        let first = unit_of_row(row, min(unit, UNITS - 1u));
        let second = unit_of_row(row, min(unit + 1u, UNITS - 1u));
        for (var j = 0u; j < (VECTORS + LANES - 1u) / LANES; j++) {
            let i = lane + j * LANES;
            if (i < VECTORS) {
                let c = i / 16u;
                let column = (base + c % CHAINS) * 64u + i % 16u * 4u;
                columns[c * STRIDE + i % 16u] = four(x_start(tile, c / CHAINS), column);
            }
        }
        workgroupBarrier();
        if (unit < UNITS) {
            sums = add_unit(first, at, sums);
        }
        if (unit + 1u < UNITS) {
            sums = add_unit(second, at + 8u, sums);
        }
        workgroupBarrier();
    }
    sums_of_chains[slot * (CHAINS + 1u) + chain] = sums.x;
    if (T > 1u) {
        sums_of_chains[(SLOTS + slot) * (CHAINS + 1u) + chain] = sums.y;
    }
    workgroupBarrier();
    for (var output = lane; output < OUTPUTS; output += LANES) {
        var sum = 0.0;
        for (var c = 0u; c < CHAINS; c++) {
            sum += sums_of_chains[output * (CHAINS + 1u) + c];
        }
        write_sum(tile, output / SLOTS, group.x * SLOTS + output % SLOTS, sum);
    }
}
