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
    let w = eight_weights(weights.row, weights.unit, eighth, weights.scale);
    return Eight(vec4(w[0], w[1], w[2], w[3]), vec4(w[4], w[5], w[6], w[7]));
}
