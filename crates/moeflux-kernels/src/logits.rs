//! Passes over a vocabulary's logits.

use crate::instruction_set::multiversion;
use crate::math::exp;

/// Logits looked at together.
const LANES: usize = 32;

multiversion! {
    /// The largest logit, minus infinity of none; or the index of the first that is NaN or plus infinity.
    pub fn largest_logit(logits: &[f32]) -> Result<f32, usize> {
        let mut max = [f32::NEG_INFINITY; LANES];
        let mut is_bad = [false; LANES];
        let (chunks, tail) = logits.as_chunks::<LANES>();
        for chunk in chunks {
            for l in 0..LANES {
                max[l] = if chunk[l] > max[l] { chunk[l] } else { max[l] };
                is_bad[l] |= chunk[l].is_nan() || chunk[l] == f32::INFINITY;
            }
        }
        for (l, &logit) in tail.iter().enumerate() {
            max[l] = if logit > max[l] { logit } else { max[l] };
            is_bad[l] |= logit.is_nan() || logit == f32::INFINITY;
        }
        if is_bad.contains(&true) {
            let first = logits.iter().position(|&logit| logit.is_nan() || logit == f32::INFINITY);
            return Err(first.unwrap_or(0));
        }
        Ok(max.into_iter().fold(f32::NEG_INFINITY, f32::max))
    }
}

multiversion! {
    /// The index of the first logit equal to `logit`.
    pub fn first_logit(logits: &[f32], logit: f32) -> Option<usize> {
        let (chunks, tail) = logits.as_chunks::<LANES>();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut is_here = false;
            for l in 0..LANES {
                is_here |= chunk[l] == logit;
            }
            if is_here {
                return chunk.iter().position(|&other| other == logit).map(|l| index * LANES + l);
            }
        }
        tail.iter().position(|&other| other == logit).map(|l| chunks.len() * LANES + l)
    }
}

multiversion! {
    /// `Σ exp(logit - max)`, in float64: logit `i` goes to lane `i mod 32`, each lane adds by index, and the lanes are
    /// then added in order.
    pub fn sum_of_exp(logits: &[f32], max: f32) -> f64 {
        let mut sums = [0.0f64; LANES];
        let (chunks, tail) = logits.as_chunks::<LANES>();
        for chunk in chunks {
            let mut weights = [0.0f32; LANES];
            for l in 0..LANES {
                weights[l] = exp(chunk[l] - max);
            }
            for l in 0..LANES {
                sums[l] += f64::from(weights[l]);
            }
        }
        for (sum, &logit) in sums.iter_mut().zip(tail) {
            *sum += f64::from(exp(logit - max));
        }
        sums.into_iter().sum()
    }
}

/// Logits whose weights [`weigh_logits`] sums.
pub const WEIGHED: usize = 1024;

multiversion! {
    /// `weights[i] = exp((logits[i] - max) / temperature)`, and in `sums[j]` the sum of the `j`-th [`WEIGHED`] of them: weight
    /// `i` goes to lane `i mod 32`, in float64, and the lanes are added in order.
    ///
    /// # Panics
    ///
    /// If there are not as many weights as logits and a sum for each [`WEIGHED`] of them, the last of which may be fewer.
    pub fn weigh_logits(logits: &[f32], max: f32, temperature: f32, weights: &mut [f32], sums: &mut [f64]) {
        assert_eq!((logits.len(), logits.len().div_ceil(WEIGHED)), (weights.len(), sums.len()));
        let parts = logits.chunks(WEIGHED).zip(weights.chunks_mut(WEIGHED));
        for ((logits, weights), sum) in parts.zip(sums) {
            let mut lanes = [0.0f64; LANES];
            for (logits, weights) in logits.chunks(LANES).zip(weights.chunks_mut(LANES)) {
                for (weight, &logit) in weights.iter_mut().zip(logits) {
                    *weight = exp((logit - max) / temperature);
                }
                for (lane, &weight) in lanes.iter_mut().zip(&*weights) {
                    *lane += f64::from(weight);
                }
            }
            *sum = lanes.into_iter().sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 * 0.03 - 20.0).collect()
    }

    #[test]
    fn the_largest_and_its_first_place() {
        for n in [1, 31, 32, 33, 1000, 5003] {
            let logits = logits(n);
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest_logit(&logits), Ok(max));
            assert_eq!(first_logit(&logits, max), logits.iter().position(|&logit| logit == max));
            assert_eq!(first_logit(&logits, 77.0), None);
        }
        assert_eq!(largest_logit(&[]), Ok(f32::NEG_INFINITY));
        assert_eq!(largest_logit(&[f32::NEG_INFINITY; 50]), Ok(f32::NEG_INFINITY));
    }

    #[test]
    fn what_is_no_number_is_found() {
        for (place, bad) in [(0, f32::NAN), (40, f32::INFINITY), (99, -f32::NAN)] {
            let mut logits = logits(100);
            logits[place] = bad;
            assert_eq!(largest_logit(&logits), Err(place));
            logits[99] = f32::NAN;
            assert_eq!(largest_logit(&logits), Err(place));
        }
    }

    #[test]
    fn weights_and_their_sums() {
        for n in [1, 32, 100, 1024, 5003] {
            let logits = logits(n);
            let (mut weights, mut sums) = (vec![0.0; n], vec![0.0; n.div_ceil(WEIGHED)]);
            weigh_logits(&logits, 10.0, 2.0, &mut weights, &mut sums);
            for (i, (&weight, &logit)) in weights.iter().zip(&logits).enumerate() {
                let expected = (f64::from(logit - 10.0) * 0.5).exp();
                assert!((f64::from(weight) / expected - 1.0).abs() < 1e-6, "{i} of {n}");
            }
            for (sum, weights) in sums.iter().zip(weights.chunks(WEIGHED)) {
                let expected: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
                assert!((sum / expected - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn sums_of_exponentials() {
        for n in [1, 32, 100, 5003] {
            let logits = logits(n);
            let expected: f64 = logits.iter().map(|&x| f64::from(x - 10.0).exp()).sum();
            assert!((sum_of_exp(&logits, 10.0) / expected - 1.0).abs() < 1e-6);
        }
    }
}
