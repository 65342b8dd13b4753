// Eight weights at a time, in registers.

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

/// 2^23, 2^19, 2^15 and 2^11: as floats their bits from 0, 4, 8 and 12 on are those of an integer added to them.
const MAGIC: vec4<u32> = vec4<u32>(0x4b000000u, 0x49000000u, 0x47000000u, 0x45000000u);
const MAGIC_VALUES: vec4<f32> = vec4<f32>(8388608.0, 524288.0, 32768.0, 2048.0);
const NIBBLES: vec4<u32> = vec4<u32>(0xfu, 0xf0u, 0xf00u, 0xf000u);

/// Those of a word of affine codes of four bits.
fn eight_of_word(word: u32, scale_and_bias: vec2<f32>) -> Eight {
    let a = bitcast<vec4<f32>>((vec4<u32>(word) & NIBBLES) | MAGIC) - MAGIC_VALUES;
    let b = bitcast<vec4<f32>>((vec4<u32>(word >> 16u) & NIBBLES) | MAGIC) - MAGIC_VALUES;
    let scale = vec4<f32>(scale_and_bias.x);
    let bias = vec4<f32>(scale_and_bias.y);
    return Eight(fma(scale, a, bias), fma(scale, b, bias));
}
