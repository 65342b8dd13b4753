// Weights of a matrix, eight columns at a time; a unit is 32 columns, whose codes are BITS words. Needs `codes` and
// `params`, arrays of u32, with `codes_at` and `params_at` among the immediates.

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

/// 1 sign, 2 exponent and 1 significand bits.
fn e2m1(code: u32) -> f32 {
    let magnitude = code & 7u;
    var value = bitcast<f32>((magnitude << 22u) + (126u << 23u));
    if (magnitude < 2u) {
        value = f32(magnitude) * 0.5;
    }
    return select(value, -value, code >= 8u);
}

/// Columns 8·part to 8·part + 7 of a unit, with what `scale_of` gave.
fn eight_weights(row: u32, unit: u32, part: u32, scale: vec2<f32>) -> array<f32, 8> {
    let first = p.codes_at + row * CODE_WORDS + unit * BITS;
    var values: array<f32, 8>;
    if (KIND == 0u) {
        for (var i = 0u; i < 8u; i++) {
            values[i] = bitcast<f32>(codes[first + part * 8u + i]);
        }
    } else if (KIND == 1u || KIND == 2u) {
        for (var i = 0u; i < 4u; i++) {
            let word = codes[first + part * 4u + i];
            values[2u * i] = float16(word & 0xffffu, KIND == 2u);
            values[2u * i + 1u] = float16(word >> 16u, KIND == 2u);
        }
    } else if (BITS == 4u) {
        let word = codes[first + part];
        for (var i = 0u; i < 8u; i++) {
            let code = (word >> (4u * i)) & 15u;
            if (KIND == 4u) {
                values[i] = scale.x * e2m1(code);
            } else {
                values[i] = fma(scale.x, f32(code), scale.y);
            }
        }
    } else {
        for (var i = 0u; i < 8u; i++) {
            let bit = (part * 8u + i) * BITS;
            let shift = bit % 32u;
            var code = codes[first + bit / 32u] >> shift;
            if (shift + BITS > 32u) {
                code |= codes[first + bit / 32u + 1u] << (32u - shift);
            }
            values[i] = fma(scale.x, f32(code & (0xffffffffu >> (32u - BITS))), scale.y);
        }
    }
    return values;
}
