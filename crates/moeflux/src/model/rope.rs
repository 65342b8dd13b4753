//! Rotary embeddings as configs describe them.

use std::f64::consts::PI;

use moeflux_checkpoint::{RopeParameters, Yarn};
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
        attention_factor: rope.yarn.as_ref().map_or(1.0, |yarn| attention_factor(yarn) as f32),
    }
}

/// What DeepSeek's models multiply the scale of the softmax with besides: the square of YaRN's magnitude with
/// `mscale_all_dim`; 1 without it.
pub(super) fn softmax_scale_factor(rope: &RopeParameters) -> f32 {
    let magnitude =
        rope.yarn.as_ref().and_then(|yarn| Some(magnitude(yarn.factor, yarn.mscale_all_dim?))).unwrap_or(1.0);
    (magnitude * magnitude) as f32
}

/// `theta^(-2j/d)`. YaRN (Peng et al. 2023) divides those that turn slowly by its factor, leaves those that turn fast,
/// and blends between the two where a context of the original length sees `beta_fast` to `beta_slow` turns.
fn inv_freq(rope: &RopeParameters) -> Vec<f32> {
    let RopeParameters { theta, rotary_dim, .. } = *rope;
    let period = |j: usize| (theta as f32).powf((2 * j) as f32 / rotary_dim as f32);
    let pairs = 0..rotary_dim / 2;
    let Some(yarn) = &rope.yarn else { return pairs.map(|j| 1.0 / period(j)).collect() };

    let original = yarn.original_max_position_embeddings as f64;
    let pair_of_turns =
        |turns: f64| rotary_dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair_of_turns(yarn.beta_fast), pair_of_turns(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0) as f32, high.min((rotary_dim - 1) as f64) as f32);
    let width = if low == high { 0.001 } else { high - low };
    pairs
        .map(|j| {
            let slow = ((j as f32 - low) / width).clamp(0.0, 1.0);
            let (stretched, original) = (1.0 / (yarn.factor as f32 * period(j)), 1.0 / period(j));
            let fast = 1.0 - slow;
            stretched * (1.0 - fast) + original * fast
        })
        .collect()
}

/// What the cosines and sines are multiplied with: as the config says, else the magnitude that the factor asks for.
fn attention_factor(yarn: &Yarn) -> f64 {
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
    use super::*;

    /// Pairs compared.
    const PAIRS: [usize; 8] = [0, 7, 10, 14, 18, 20, 23, 31];

    fn rope(rotary_dim: usize, theta: f64, yarn: Option<Yarn>) -> RopeParameters {
        RopeParameters { theta, rotary_dim, yarn, mrope_section: [0; 3] }
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
