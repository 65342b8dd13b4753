// Eight weights at a time, in registers.

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

/// 2^23 as a float: its lowest bits are those of an integer added to it.
const MAGIC: u32 = 0x4b000000u;

/// Those of a word of affine codes of four bits.
fn eight_of_word(word: u32, scale_and_bias: vec2<f32>) -> Eight {
    let low = (vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    let high = (vec4<u32>(word) >> vec4<u32>(16u, 20u, 24u, 28u)) & vec4<u32>(15u);
    let a = bitcast<vec4<f32>>(low | vec4<u32>(MAGIC)) - vec4<f32>(8388608.0);
    let b = bitcast<vec4<f32>>(high | vec4<u32>(MAGIC)) - vec4<f32>(8388608.0);
    let scale = vec4<f32>(scale_and_bias.x);
    let bias = vec4<f32>(scale_and_bias.y);
    return Eight(fma(scale, a, bias), fma(scale, b, bias));
}
