// The weights of a unit of a row, in any encoding.

@group(0) @binding(0) var<storage, read> codes: array<u32>;

struct UnitOfRow {
    row: u32,
    unit: u32,
    scale: vec2<f32>,
}

fn unit_of_row(row: u32, unit: u32) -> UnitOfRow {
    return UnitOfRow(row, unit, scale_of(row, unit));
}

fn eight_of_unit(weights: UnitOfRow, eighth: u32) -> Eight {
    if (KIND == 3u && BITS == 4u) {
        let word = codes[p.codes_at + weights.row * CODE_WORDS + weights.unit * BITS + eighth];
        return eight_of_word(word, weights.scale);
    }
    if (KIND == 3u && BITS == 8u) {
        let first = p.codes_at + weights.row * CODE_WORDS + weights.unit * BITS + eighth * 2u;
        let shifts = vec4<u32>(0u, 8u, 16u, 24u);
        let a = vec4<f32>((vec4<u32>(codes[first]) >> shifts) & vec4<u32>(255u));
        let b = vec4<f32>((vec4<u32>(codes[first + 1u]) >> shifts) & vec4<u32>(255u));
        let scale = vec4<f32>(weights.scale.x);
        let bias = vec4<f32>(weights.scale.y);
        return Eight(fma(scale, a, bias), fma(scale, b, bias));
    }
    let w = eight_weights(weights.row, weights.unit, eighth, weights.scale);
    return Eight(vec4(w[0], w[1], w[2], w[3]), vec4(w[4], w[5], w[6], w[7]));
}
