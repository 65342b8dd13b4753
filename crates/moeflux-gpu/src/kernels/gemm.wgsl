// y = W·x for tiles of T rows of x and BN rows of W; an invocation has TM rows of x, four or eight, and four of W. For the order
// of sums see product.wgsl: chain by chain, each in registers that are then added to the sums.
//
// Registers have names instead of indices, so that no compiler puts them elsewhere.

/// Invocations side by side along W.
const ACROSS: u32 = BN / 4u;

/// A unit of the tile's columns, four of them a vector, [8, T] and [8, BN], each of the eight with one vector more so that
/// invocations write to different banks.
const X_STRIDE: u32 = T + 1u;
const W_STRIDE: u32 = BN + 1u;
var<workgroup> xs: array<vec4<f32>, 8u * X_STRIDE>;
var<workgroup> ws: array<vec4<f32>, 8u * W_STRIDE>;

/// Four columns of four rows of W, the other way round.
struct Four {
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
    w: vec4<f32>,
}

fn four_rows(at: u32) -> Four {
    let a = ws[at];
    let b = ws[at + ACROSS];
    let c = ws[at + 2u * ACROSS];
    let d = ws[at + 3u * ACROSS];
    return Four(
        vec4(a.x, b.x, c.x, d.x),
        vec4(a.y, b.y, c.y, d.y),
        vec4(a.z, b.z, c.z, d.z),
        vec4(a.w, b.w, c.w, d.w),
    );
}

/// Four columns of a row of x.
fn add_four(rows: Four, at: u32, before: vec4<f32>) -> vec4<f32> {
    let x4 = xs[at];
    var sum = fma(rows.x, vec4<f32>(x4.x), before);
    sum = fma(rows.y, vec4<f32>(x4.y), sum);
    sum = fma(rows.z, vec4<f32>(x4.z), sum);
    return fma(rows.w, vec4<f32>(x4.w), sum);
}

fn write_four(tile: Tile, t: u32, row: u32, sums: vec4<f32>) {
    write_sum(tile, t, row, sums.x);
    write_sum(tile, t, row + ACROSS, sums.y);
    write_sum(tile, t, row + 2u * ACROSS, sums.z);
    write_sum(tile, t, row + 3u * ACROSS, sums.w);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group, lane);
    if (tile.count == 0u) {
        return;
    }
    workgroupBarrier();
    let n = lane % ACROSS;
    let m = lane / ACROSS * TM;
    let first = group.x * BN;
    var sum0 = vec4<f32>(0.0);
    var sum1 = vec4<f32>(0.0);
    var sum2 = vec4<f32>(0.0);
    var sum3 = vec4<f32>(0.0);
    var sum4 = vec4<f32>(0.0);
    var sum5 = vec4<f32>(0.0);
    var sum6 = vec4<f32>(0.0);
    var sum7 = vec4<f32>(0.0);
    for (var chain = 0u; chain < min(CHAINS, GROUPS); chain++) {
        var part0 = vec4<f32>(0.0);
        var part1 = vec4<f32>(0.0);
        var part2 = vec4<f32>(0.0);
        var part3 = vec4<f32>(0.0);
        var part4 = vec4<f32>(0.0);
        var part5 = vec4<f32>(0.0);
        var part6 = vec4<f32>(0.0);
        var part7 = vec4<f32>(0.0);
        for (var g = chain; g < GROUPS; g += CHAINS) {
            for (var unit = g * 2u; unit < min(g * 2u + 2u, UNITS); unit++) {
                for (var i = lane; i < T * 8u; i += LANES) {
                    xs[i % 8u * X_STRIDE + i / 8u] = four(i / 8u, tile.count, unit * 32u + i % 8u * 4u);
                }
                for (var i = lane; i < BN * 4u; i += LANES) {
                    let row = min(first + i / 4u, p.bound_rows - 1u);
                    let weights = unit_of_row((tile.matrix - p.first_matrix) * p.rows + row, unit);
                    let eight = eight_of_unit(weights, i % 4u);
                    ws[i % 4u * 2u * W_STRIDE + i / 4u] = eight.a;
                    ws[(i % 4u * 2u + 1u) * W_STRIDE + i / 4u] = eight.b;
                }
                workgroupBarrier();
                for (var k = 0u; k < 8u; k++) {
                    let rows = four_rows(k * W_STRIDE + n);
                    let at = k * X_STRIDE + m;
                    part0 = add_four(rows, at, part0);
                    part1 = add_four(rows, at + 1u, part1);
                    part2 = add_four(rows, at + 2u, part2);
                    part3 = add_four(rows, at + 3u, part3);
                    if (TM > 4u) {
                        part4 = add_four(rows, at + 4u, part4);
                        part5 = add_four(rows, at + 5u, part5);
                        part6 = add_four(rows, at + 6u, part6);
                        part7 = add_four(rows, at + 7u, part7);
                    }
                }
                workgroupBarrier();
            }
        }
        sum0 += part0;
        sum1 += part1;
        sum2 += part2;
        sum3 += part3;
        sum4 += part4;
        sum5 += part5;
        sum6 += part6;
        sum7 += part7;
    }
    write_four(tile, m, first + n, sum0);
    write_four(tile, m + 1u, first + n, sum1);
    write_four(tile, m + 2u, first + n, sum2);
    write_four(tile, m + 3u, first + n, sum3);
    if (TM > 4u) {
        write_four(tile, m + 4u, first + n, sum4);
        write_four(tile, m + 5u, first + n, sum5);
        write_four(tile, m + 6u, first + n, sum6);
        write_four(tile, m + 7u, first + n, sum7);
    }
}
