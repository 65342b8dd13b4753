//! Cosines and sines of a step.

use crate::graph::RopeSpec;
use crate::sequence::Position;

/// `[n_tokens, rotary_dim / 2]` each.
pub(in crate::backend) struct RopeTable {
    pub(in crate::backend) cos: Vec<f32>,
    pub(in crate::backend) sin: Vec<f32>,
}

impl RopeTable {
    /// The angle is rounded to float32, as the reference implementations do; its sine and cosine are taken of that in
    /// float64, rounded once and multiplied by the attention factor.
    pub(in crate::backend) fn new(spec: &RopeSpec, positions: &[Position]) -> Self {
        let angles = positions.iter().flat_map(|position| {
            spec.inv_freq
                .iter()
                .zip(&spec.axes)
                .map(|(freq, &axis)| position[usize::from(axis)] as f32 * freq)
        });
        let factor = spec.attention_factor;
        let (sin, cos) = angles
            .map(|angle| f64::from(angle).sin_cos())
            .map(|(sin, cos)| (sin as f32 * factor, cos as f32 * factor))
            .unzip();
        RopeTable { cos, sin }
    }
}
