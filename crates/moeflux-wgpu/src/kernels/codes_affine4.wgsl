// The weights of a unit of a row in affine codes of four bits, whose words come all at once.

@group(0) @binding(0) var<storage, read> codes: array<vec4<u32>>;

struct UnitOfRow {
    words: vec4<u32>,
    scale: vec2<f32>,
}

fn unit_of_row(row: u32, unit: u32) -> UnitOfRow {
    return UnitOfRow(codes[p.codes_at / 4u + row * (CODE_WORDS / 4u) + unit], scale_of(row, unit));
}

fn eight_of_unit(weights: UnitOfRow, eighth: u32) -> Eight {
    return eight_of_word(weights.words[eighth], weights.scale);
}
