//! Rotary embeddings as configs describe them.

use std::f64::consts::PI;

use moeflux_checkpoint::{Llama3, Longrope, RopeParameters, RopeScaling, Yarn};
use moeflux_kernels::RopeLayout;

use crate::graph::RopeSpec;

/// The rotary embedding of a config. With M-RoPE the axes of time, height and width take turns over the frequencies as
/// far as each one's section reaches; what is left turns with time.
pub(super) fn rope_spec(rope: &RopeParameters, layout: RopeLayout) -> RopeSpec {
    let pairs = rope.rotary_dim / 2;
    let reach = |axis: usize| 3 * rope.mrope_section[axis];
    RopeSpec {
        rotary_dim: rope.rotary_dim,
        inv_freq: inv_freq(rope),
        layout,
        axes: (0..pairs)
            .map(|j| match j % 3 {
                axis @ (1 | 2) if j < reach(axis) => axis as u8,
                _ => 0,
            })
            .collect(),
        attention_factor: match &rope.scaling {
            RopeScaling::Yarn(yarn) => yarn_attention_factor(yarn) as f32,
            RopeScaling::Longrope(longrope) => longrope_attention_factor(longrope) as f32,
            _ => 1.0,
        },
    }
}

/// What DeepSeek's models multiply the scale of the softmax with besides: the square of YaRN's magnitude with
/// `mscale_all_dim`; 1 without it.
pub(super) fn softmax_scale_factor(rope: &RopeParameters) -> f32 {
    let RopeScaling::Yarn(yarn) = &rope.scaling else { return 1.0 };
    let magnitude = yarn.mscale_all_dim.map_or(1.0, |all_dim| magnitude(yarn.factor, all_dim));
    (magnitude * magnitude) as f32
}

/// `theta^(-2j/d)`, changed as the config's scaling says. Of scalings that depend on the length of a sequence, those for
/// sequences up to the original context, where the model's context ends.
fn inv_freq(rope: &RopeParameters) -> Vec<f32> {
    let RopeParameters { theta, rotary_dim, .. } = *rope;
    let period = |j: usize| (theta as f32).powf((2 * j) as f32 / rotary_dim as f32);
    let pairs = 0..rotary_dim / 2;
    match &rope.scaling {
        RopeScaling::Linear { factor } => pairs.map(|j| 1.0 / period(j) / *factor as f32).collect(),
        RopeScaling::Yarn(yarn) => yarn_inv_freq(yarn, theta, rotary_dim),
        RopeScaling::Longrope(Longrope { short_factor, .. }) => {
            pairs.map(|j| 1.0 / (short_factor[j] as f32 * period(j))).collect()
        }
        RopeScaling::Llama3(llama3) => pairs.map(|j| llama3_inv_freq(llama3, 1.0 / period(j))).collect(),
        RopeScaling::Factors(factors) => pairs.map(|j| 1.0 / period(j) / factors[j]).collect(),
        _ => pairs.map(|j| 1.0 / period(j)).collect(),
    }
}

/// YaRN (Peng et al. 2023) divides the frequencies that turn slowly by its factor, leaves those that turn fast, and blends
/// between the two where a context of the original length sees `beta_fast` to `beta_slow` turns.
fn yarn_inv_freq(yarn: &Yarn, theta: f64, rotary_dim: usize) -> Vec<f32> {
    let period = |j: usize| (theta as f32).powf((2 * j) as f32 / rotary_dim as f32);
    let original = yarn.original_max_position_embeddings as f64;
    let pair_of_turns =
        |turns: f64| rotary_dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair_of_turns(yarn.beta_fast), pair_of_turns(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0) as f32, high.min((rotary_dim - 1) as f64) as f32);
    let width = if low == high { 0.001 } else { high - low };
    (0..rotary_dim / 2)
        .map(|j| {
            let slow = ((j as f32 - low) / width).clamp(0.0, 1.0);
            let (stretched, original) = (1.0 / (yarn.factor as f32 * period(j)), 1.0 / period(j));
            let fast = 1.0 - slow;
            stretched * (1.0 - fast) + original * fast
        })
        .collect()
}

/// Llama 3.1 divides frequencies that turn less than `low_freq_factor` times in the original context by its factor, leaves
/// those that turn more than `high_freq_factor` times, and blends between the two.
fn llama3_inv_freq(llama3: &Llama3, inv_freq: f32) -> f32 {
    let original = llama3.original_max_position_embeddings as f64;
    let (low, high) = (llama3.low_freq_factor, llama3.high_freq_factor);
    let factor = llama3.factor as f32;
    let wavelength = (2.0 * PI) as f32 / inv_freq;
    if wavelength > (original / low) as f32 {
        return inv_freq / factor;
    }
    if wavelength < (original / high) as f32 {
        return inv_freq;
    }
    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
}

/// As the config says, else what the paper of LongRoPE has for its factor.
fn longrope_attention_factor(longrope: &Longrope) -> f64 {
    let Longrope { factor, original_max_position_embeddings: original, .. } = *longrope;
    longrope.attention_factor.unwrap_or_else(|| {
        if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() }
    })
}

/// What the cosines and sines are multiplied with: as the config says, else the magnitude that the factor asks for.
fn yarn_attention_factor(yarn: &Yarn) -> f64 {
    yarn.attention_factor.unwrap_or_else(|| match (yarn.mscale, yarn.mscale_all_dim) {
        (Some(mscale), Some(all_dim)) => magnitude(yarn.factor, mscale) / magnitude(yarn.factor, all_dim),
        _ => magnitude(yarn.factor, 1.0),
    })
}

/// `0.1·mscale·ln(factor) + 1`.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use moeflux_checkpoint::{OpenOptions, config};
    use serde_json::Value;

    /// Pairs compared.
    const PAIRS: [usize; 8] = [0, 7, 10, 14, 18, 20, 23, 31];

    fn rope(rotary_dim: usize, theta: f64, yarn: Option<Yarn>) -> RopeParameters {
        let scaling = yarn.map_or(RopeScaling::None, RopeScaling::Yarn);
        RopeParameters { theta, rotary_dim, scaling, mrope_section: [0; 3] }
    }

    fn yarn(factor: f64, original_max_position_embeddings: usize) -> Yarn {
        Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: None,
            mscale_all_dim: None,
            attention_factor: None,
            truncate: true,
        }
    }

    /// Frequencies and attention factors that transformers 5.23 computes.
    #[test]
    fn yarn_is_that_of_transformers() {
        let cases = [
            (
                rope(
                    64,
                    1e4,
                    Some(Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.707), ..yarn(40.0, 4096) }),
                ),
                1.085_726_4,
                [
                    1.0,
                    0.133_352_15,
                    0.056_234_13,
                    0.012_447_956,
                    0.002_249_365,
                    0.000_790_569_4,
                    3.333_803_4e-5,
                    3.333_803_5e-6,
                ],
            ),
            (
                rope(64, 150_000.0, Some(Yarn { truncate: false, ..yarn(32.0, 4096) })),
                1.346_573_6,
                [
                    1.0,
                    0.073_744_565,
                    0.019_335,
                    0.002_093_793,
                    3.830_881e-5,
                    1.818_833_7e-5,
                    5.950_239_5e-6,
                    3.023_511_4e-7,
                ],
            ),
            (
                rope(
                    64,
                    5e4,
                    Some(Yarn {
                        beta_fast: 1.0,
                        mscale: Some(1.0),
                        mscale_all_dim: Some(1.0),
                        ..yarn(64.0, 4096)
                    }),
                ),
                1.0,
                [
                    1.0,
                    0.093_777_86,
                    0.034_007_28,
                    0.008_794_286,
                    0.002_274_204,
                    1.807_023_4e-5,
                    6.552_927e-6,
                    4.382_206_4e-7,
                ],
            ),
        ];
        for (rope, factor, frequencies) in cases {
            let spec = rope_spec(&rope, RopeLayout::HalfSplit);
            assert!((spec.attention_factor - factor).abs() < 1e-6, "{rope:?}: {}", spec.attention_factor);
            for (j, expected) in PAIRS.into_iter().zip(frequencies) {
                let found: f32 = spec.inv_freq[j];
                assert!((found - expected).abs() <= 1e-6 * expected, "{rope:?}: {j}: {found}");
            }
        }
        let given = rope(16, 1e4, Some(Yarn { attention_factor: Some(1.25), ..yarn(2.0, 128) }));
        let spec = rope_spec(&given, RopeLayout::HalfSplit);
        assert_eq!(spec.attention_factor.to_bits(), 1.25f32.to_bits());
        assert!((spec.inv_freq[1] - 0.263_523_13).abs() < 1e-6);
    }

    /// Every type and spelling, against `tests/data/rope_vectors.json`.
    #[test]
    fn frequencies_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/rope_vectors.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
        for case in vectors["cases"].as_array().expect("cases") {
            let config = case["config"].to_string();
            let parsed = config::parse(Path::new("config.json"), config.as_bytes(), &OpenOptions::default());
            let parsed = parsed.unwrap_or_else(|error| panic!("{config}: {error}"));
            let number = |value: &Value| value.as_f64().expect("a number") as f32;
            let compare = |rope: &RopeParameters, expected: &Value, factor: &Value| {
                let spec = rope_spec(rope, RopeLayout::HalfSplit);
                let expected: Vec<f32> = expected.as_array().expect("numbers").iter().map(number).collect();
                assert_eq!(spec.inv_freq.len(), expected.len(), "{config}");
                for (j, (found, expected)) in spec.inv_freq.iter().zip(&expected).enumerate() {
                    assert!(
                        (found - expected).abs() <= 2e-6 * expected,
                        "{config}: {j}: {found}, {expected}"
                    );
                }
                let factor = number(factor);
                assert!((spec.attention_factor - factor).abs() <= 1e-6 * factor, "{config}");
            };
            compare(parsed.model.rope(), &case["inv_freq"], &case["attention_factor"]);
            let sliding = parsed.model.sliding_rope();
            assert_eq!(sliding.is_some(), case.get("sliding_inv_freq").is_some(), "{config}");
            if let Some(rope) = sliding {
                compare(rope, &case["sliding_inv_freq"], &case["sliding_attention_factor"]);
            }
            // Where frequencies change with the length, the context ends before they do.
            if case.get("long").is_some() {
                let context = parsed.model.max_position_embeddings();
                assert!(
                    context as u64 <= case["config"]["max_position_embeddings"].as_u64().expect("a number")
                );
                assert_ne!(case["long_inv_freq"], case["inv_freq"], "{config}");
            }
        }
    }

    #[test]
    fn softmax_scales_of_deepseek() {
        let with = |mscale_all_dim| rope(64, 1e4, Some(Yarn { mscale_all_dim, ..yarn(40.0, 4096) }));
        assert!((softmax_scale_factor(&with(Some(1.0))) - 1.873_85).abs() < 1e-5);
        for rope in [with(None), rope(64, 1e4, None)] {
            assert_eq!(softmax_scale_factor(&rope).to_bits(), 1f32.to_bits());
        }
    }

    #[test]
    fn axes_take_turns() {
        let mut rope = rope(16, 1e7, None);
        assert_eq!(rope_spec(&rope, RopeLayout::HalfSplit).axes, [0; 8]);
        rope.mrope_section = [4, 3, 1];
        assert_eq!(rope_spec(&rope, RopeLayout::HalfSplit).axes, [0, 1, 2, 0, 1, 0, 0, 1]);
    }
}
