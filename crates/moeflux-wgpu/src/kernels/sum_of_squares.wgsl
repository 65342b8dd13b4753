// The sum of squares of a row of `dim` values by one workgroup: lane l takes columns l, l + LANES, … in order; the lanes
// are then added as a tree: lane l takes lane l + LANES/2, then l + LANES/4, and so on. LANES depends on `dim` alone.

var<workgroup> sums: array<f32, LANES>;

/// What the lanes have, added as a tree.
fn sum_of_lanes(mine: f32, lane: u32) -> f32 {
    var sum = mine;
    sums[lane] = sum;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            sum += sums[lane + width];
            sums[lane] = sum;
        }
        workgroupBarrier();
    }
    return sums[0];
}

fn sum_of_squares(first: u32, dim: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < dim; i += LANES) {
        let value = x[first + i];
        sum = fma(value, value, sum);
    }
    return sum_of_lanes(sum, lane);
}
