// y = W·x for tiles of T rows of x and BN rows of W; an invocation has TM rows of x and TN of W, four or eight of each. For
// the order of sums see product.wgsl: chain by chain, each in registers that are then added to the sums.
//
// A unit of the tiles' columns is in a workgroup's memory, the next one is on its way to registers meanwhile. Registers have
// names instead of indices, so that no compiler puts them elsewhere.

/// Invocations side by side along W.
const ACROSS: u32 = BN / TN;

/// A unit of the tiles' columns, [32, T] and [32, BN], four rows a vector, and a vector more so that invocations write to
/// different banks.
const X_STRIDE: u32 = T / 4u + 1u;
const W_STRIDE: u32 = BN / 4u + 1u;
var<workgroup> xs: array<vec4<f32>, 32u * X_STRIDE>;
var<workgroup> ws: array<vec4<f32>, 32u * W_STRIDE>;

/// Where an invocation's second four rows are, if it has them, in vectors.
const X_SECOND: u32 = select(0u, T / 8u, TM > 4u);
const W_SECOND: u32 = select(0u, BN / 8u, TN > 4u);

/// Vectors of x and units of W that an invocation brings, four at most.
const X_EACH: u32 = (T * 8u + LANES - 1u) / LANES;
const W_EACH: u32 = (BN + LANES - 1u) / LANES;

/// What is on its way.
struct Coming {
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
    w0: UnitOfRow,
    w1: UnitOfRow,
    w2: UnitOfRow,
    w3: UnitOfRow,
}

/// The rows that an invocation brings: where those of x begin, and which of W they are.
struct Sources {
    x: vec4<u32>,
    w: vec4<u32>,
}

/// The row of x of the tile that vector `i` of a unit belongs to: eight rows and four vectors of each follow each other.
fn vector_row(i: u32) -> u32 {
    return i / 32u % (T / 8u) * 8u + i % 8u;
}

/// And the columns of the unit that it holds, in vectors.
fn vector_column(i: u32) -> u32 {
    return i / 8u % 4u + i / (T * 4u) * 4u;
}

fn sources(tile: Tile, first: u32, lane: u32) -> Sources {
    return Sources(
        vec4(
            x_start(tile, vector_row(lane)),
            x_start(tile, vector_row(lane + LANES)),
            x_start(tile, vector_row(lane + 2u * LANES)),
            x_start(tile, vector_row(lane + 3u * LANES)),
        ),
        vec4(
            w_row(tile, first + lane),
            w_row(tile, first + lane + LANES),
            w_row(tile, first + lane + 2u * LANES),
            w_row(tile, first + lane + 3u * LANES),
        ),
    );
}

fn bring(source: Sources, lane: u32, unit: u32) -> Coming {
    var coming: Coming;
    coming.x0 = four(source.x.x, unit * 32u + vector_column(lane) * 4u);
    if (X_EACH > 1u) {
        coming.x1 = four(source.x.y, unit * 32u + vector_column(lane + LANES) * 4u);
    }
    if (X_EACH > 2u) {
        coming.x2 = four(source.x.z, unit * 32u + vector_column(lane + 2u * LANES) * 4u);
        coming.x3 = four(source.x.w, unit * 32u + vector_column(lane + 3u * LANES) * 4u);
    }
    coming.w0 = unit_of_row(source.w.x, unit);
    if (W_EACH > 1u) {
        coming.w1 = unit_of_row(source.w.y, unit);
    }
    if (W_EACH > 2u) {
        coming.w2 = unit_of_row(source.w.z, unit);
        coming.w3 = unit_of_row(source.w.w, unit);
    }
    return coming;
}

fn put_x(i: u32, values: vec4<f32>) {
    if (i < T * 8u) {
        let row = vector_row(i);
        let at = vector_column(i) * 4u * X_STRIDE + row / 4u;
        xs[at][row % 4u] = values.x;
        xs[at + X_STRIDE][row % 4u] = values.y;
        xs[at + 2u * X_STRIDE][row % 4u] = values.z;
        xs[at + 3u * X_STRIDE][row % 4u] = values.w;
    }
}

fn put_eight(row: u32, eighth: u32, eight: Eight) {
    let at = eighth * 8u * W_STRIDE + row / 4u;
    ws[at][row % 4u] = eight.a.x;
    ws[at + W_STRIDE][row % 4u] = eight.a.y;
    ws[at + 2u * W_STRIDE][row % 4u] = eight.a.z;
    ws[at + 3u * W_STRIDE][row % 4u] = eight.a.w;
    ws[at + 4u * W_STRIDE][row % 4u] = eight.b.x;
    ws[at + 5u * W_STRIDE][row % 4u] = eight.b.y;
    ws[at + 6u * W_STRIDE][row % 4u] = eight.b.z;
    ws[at + 7u * W_STRIDE][row % 4u] = eight.b.w;
}

fn put_w(row: u32, unit: UnitOfRow) {
    if (row < BN) {
        put_eight(row, 0u, eight_of_unit(unit, 0u));
        put_eight(row, 1u, eight_of_unit(unit, 1u));
        put_eight(row, 2u, eight_of_unit(unit, 2u));
        put_eight(row, 3u, eight_of_unit(unit, 3u));
    }
}

fn put(coming: Coming, lane: u32) {
    put_x(lane, coming.x0);
    if (X_EACH > 1u) {
        put_x(lane + LANES, coming.x1);
    }
    if (X_EACH > 2u) {
        put_x(lane + 2u * LANES, coming.x2);
        put_x(lane + 3u * LANES, coming.x3);
    }
    put_w(lane, coming.w0);
    if (W_EACH > 1u) {
        put_w(lane + LANES, coming.w1);
    }
    if (W_EACH > 2u) {
        put_w(lane + 2u * LANES, coming.w2);
        put_w(lane + 3u * LANES, coming.w3);
    }
}

/// A column of an invocation's rows of W, or its sums with one row of x.
struct Two {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn add_column(w: Two, x: f32, before: Two) -> Two {
    return Two(fma(w.a, vec4<f32>(x), before.a), fma(w.b, vec4<f32>(x), before.b));
}

fn plus(sums: Two, part: Two) -> Two {
    return Two(sums.a + part.a, sums.b + part.b);
}

fn write_row(tile: Tile, t: u32, row: u32, sums: Two) {
    write_four(tile, t, row, sums.a);
    if (TN > 4u) {
        write_four(tile, t, row + BN / 2u, sums.b);
    }
}

fn write_four(tile: Tile, t: u32, row: u32, sums: vec4<f32>) {
    write_sum(tile, t, row, sums.x);
    write_sum(tile, t, row + 1u, sums.y);
    write_sum(tile, t, row + 2u, sums.z);
    write_sum(tile, t, row + 3u, sums.w);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group);
    if (tile.count == 0u) {
        return;
    }
    let n = lane % ACROSS;
    let m = lane / ACROSS;
    let first = group.x * BN;
    let source = sources(tile, first, lane);
    let none = Two(vec4<f32>(0.0), vec4<f32>(0.0));
    var sum0 = none;
    var sum1 = none;
    var sum2 = none;
    var sum3 = none;
    var sum4 = none;
    var sum5 = none;
    var sum6 = none;
    var sum7 = none;
    var part0 = none;
    var part1 = none;
    var part2 = none;
    var part3 = none;
    var part4 = none;
    var part5 = none;
    var part6 = none;
    var part7 = none;
    var coming = bring(source, lane, 0u);
    for (var unit = 0u; unit < UNITS;) {
        put(coming, lane);
        workgroupBarrier();
        // After a group of two units the chain's next one; after its last one the next chain's first.
        var next = unit + 1u;
        var is_chains_end = false;
        if (next % 2u == 0u || next >= UNITS) {
            next = unit / 2u + CHAINS;
            if (next >= GROUPS) {
                is_chains_end = true;
                next = unit / 2u % CHAINS + 1u;
                if (next >= CHAINS) {
                    next = GROUPS;
                }
            }
            next *= 2u;
        }
        if (next < UNITS) {
            coming = bring(source, lane, next);
        }
        for (var k = 0u; k < 32u; k++) {
            let w = Two(ws[k * W_STRIDE + n], ws[k * W_STRIDE + W_SECOND + n]);
            let x = Two(xs[k * X_STRIDE + m], xs[k * X_STRIDE + X_SECOND + m]);
            part0 = add_column(w, x.a.x, part0);
            part1 = add_column(w, x.a.y, part1);
            part2 = add_column(w, x.a.z, part2);
            part3 = add_column(w, x.a.w, part3);
            if (TM > 4u) {
                part4 = add_column(w, x.b.x, part4);
                part5 = add_column(w, x.b.y, part5);
                part6 = add_column(w, x.b.z, part6);
                part7 = add_column(w, x.b.w, part7);
            }
        }
        if (is_chains_end) {
            sum0 = plus(sum0, part0);
            sum1 = plus(sum1, part1);
            sum2 = plus(sum2, part2);
            sum3 = plus(sum3, part3);
            part0 = none;
            part1 = none;
            part2 = none;
            part3 = none;
            if (TM > 4u) {
                sum4 = plus(sum4, part4);
                sum5 = plus(sum5, part5);
                sum6 = plus(sum6, part6);
                sum7 = plus(sum7, part7);
                part4 = none;
                part5 = none;
                part6 = none;
                part7 = none;
            }
        }
        unit = next;
        workgroupBarrier();
    }
    let t = m * 4u;
    let row = first + n * 4u;
    write_row(tile, t, row, sum0);
    write_row(tile, t + 1u, row, sum1);
    write_row(tile, t + 2u, row, sum2);
    write_row(tile, t + 3u, row, sum3);
    if (TM > 4u) {
        write_row(tile, t + T / 2u, row, sum4);
        write_row(tile, t + T / 2u + 1u, row, sum5);
        write_row(tile, t + T / 2u + 2u, row, sum6);
        write_row(tile, t + T / 2u + 3u, row, sum7);
    }
}
