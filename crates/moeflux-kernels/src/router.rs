//! Choice of experts.

use crate::math::exp;

/// Softmax over all experts, then the `k` largest, in descending order of weight; of equal ones the lowest index
/// first. `logits` is `[n, experts]`, `indices` and `weights` are `[n, k]`. With `renormalize` the weights of a token
/// are divided by their sum. Sums go by index, that of the chosen in their order.
pub fn softmax_top_k(
    logits: &[f32],
    experts: usize,
    k: usize,
    renormalize: bool,
    indices: &mut [u32],
    weights: &mut [f32],
) {
    assert!(0 < k && k <= experts && logits.len().is_multiple_of(experts));
    assert!(indices.len() == logits.len() / experts * k && weights.len() == indices.len());
    let mut probabilities = vec![0.0; experts];
    let chosen = indices.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
    for (logits, (indices, weights)) in logits.chunks_exact(experts).zip(chosen) {
        softmax(logits, &mut probabilities);
        for (index, weight) in indices.iter_mut().zip(weights.iter_mut()) {
            let best = largest(&probabilities);
            *index = best as u32;
            *weight = std::mem::replace(&mut probabilities[best], TAKEN);
        }
        if renormalize {
            let sum: f32 = weights.iter().sum();
            for weight in weights {
                *weight /= sum;
            }
        }
    }
}

fn softmax(x: &[f32], y: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (y, x) in y.iter_mut().zip(x) {
        *y = exp(x - max);
        sum += *y;
    }
    for y in y {
        *y /= sum;
    }
}

/// Less than any probability.
const TAKEN: f32 = -1.0;

/// Index of the first largest value that is not taken. NaNs are never larger, but chosen if nothing else is left.
fn largest(probabilities: &[f32]) -> usize {
    let mut best = None;
    for (i, &p) in probabilities.iter().enumerate() {
        if p != TAKEN && best.is_none_or(|best: usize| p > probabilities[best]) {
            best = Some(i);
        }
    }
    best.unwrap_or(0)
}
