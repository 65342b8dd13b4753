// Weights of a matrix, eight columns at a time; a unit is 32 columns, whose codes are BITS words. Needs `codes`, an array of
// u32, with `codes_at` among the immediates, and scales.wgsl.

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
