// Scales and biases of a matrix's units of 32 columns. Needs `params`, an array of u32, with `params_at` among the immediates.

/// A float of 16 bits: binary16 if KIND or PARAMS is 1, bfloat16 if it is 2. No intermediate is subnormal.
fn float16(bits: u32, is_bfloat: bool) -> f32 {
    if (is_bfloat) {
        return bitcast<f32>(bits << 16u);
    }
    let magnitude = bits & 0x7fffu;
    var value = (magnitude << 13u) + 0x38000000u;
    if (magnitude < 0x400u) {
        value = bitcast<u32>(f32(magnitude) * 5.9604644775390625e-8);
    } else if (magnitude >= 0x7c00u) {
        value += 0x38000000u;
    }
    return bitcast<f32>(value | ((bits & 0x8000u) << 16u));
}

/// Scale and bias of a unit.
fn scale_of(row: u32, unit: u32) -> vec2<f32> {
    if (KIND == 3u) {
        let group = unit / GROUP_UNITS;
        if (PARAMS == 0u) {
            let at = p.params_at + row * PARAM_WORDS + group * 2u;
            return vec2(bitcast<f32>(params[at]), bitcast<f32>(params[at + 1u]));
        }
        let word = params[p.params_at + row * PARAM_WORDS + group];
        return vec2(float16(word & 0xffffu, PARAMS == 2u), float16(word >> 16u, PARAMS == 2u));
    }
    if (KIND == 4u) {
        let word = params[p.params_at + row * PARAM_WORDS + unit / 4u];
        let exponent = (word >> (unit % 4u * 8u)) & 0xffu;
        var bits = exponent << 23u;
        if (exponent == 0u) {
            bits = 0x00400000u;
        } else if (exponent == 255u) {
            bits = 0x7fc00000u;
        }
        return vec2(bitcast<f32>(bits), 0.0);
    }
    return vec2(1.0, 0.0);
}
