// Floats as integers of the same order.

/// The integer of a float: 0 for NaN, one for both zeros.
fn key_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0u;
    }
    if (bits >= 0x80000000u) {
        return select(~bits, 0x80000000u, bits == 0x80000000u);
    }
    return bits | 0x80000000u;
}

/// The float of an integer.
fn float_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

/// Whether a comes before b: with a larger key, or with an equal one and a lower index.
fn comes_before(a: u32, a_index: u32, b: u32, b_index: u32) -> bool {
    return a > b || (a == b && a_index < b_index);
}
