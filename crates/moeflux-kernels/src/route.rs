//! Choice of experts.

use std::sync::{Mutex, PoisonError};

use crate::instruction_set::multiversion;
use crate::math::{exp, sigmoid};
use crate::pool::ThreadPool;

/// How a router's logits become a choice of experts and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// What a logit is worth.
    pub scores: Scores,
    /// Groups of experts, of which only the best take part.
    pub groups: Option<ExpertGroups>,
    /// Experts for each token.
    pub num_experts_per_tok: usize,
    /// What the chosen scores become.
    pub weighting: Weighting,
    /// Multiplies the weights at the end.
    pub scaling_factor: f32,
}

/// What a logit is worth in the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Softmax over all experts.
    Softmax,
    /// Each logit's sigmoid.
    Sigmoid,
    /// The logit itself.
    Logits,
}

/// What the scores of the chosen experts become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighting {
    /// They stay as they are.
    AsScored,
    /// They are divided by their sum (plus 1e-20, as DeepSeek-V3 has it).
    SumToOne,
    /// Softmax over the chosen.
    Softmax,
}

/// Groups of consecutive experts, all of one size; experts outside the best groups are not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// How many there are; divides the number of experts.
    pub n_group: usize,
    /// How many of them take part.
    pub topk_group: usize,
    /// What ranks a group.
    pub score: GroupScore,
}

/// What ranks a group of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// Its largest score.
    Max,
    /// The sum of its two largest scores.
    TopTwo,
}

/// For each token the experts with the largest scores, by falling score, and their weights.
///
/// `logits` is `[n, experts]`, `indices` and `weights` are `[n, num_experts_per_tok]`. `correction_bias`, `[experts]`,
/// is added to the scores for the choice alone, not for the weights. Of equal scores and groups the lowest index comes
/// first. Sums over all experts go by index, sums over the chosen in their order.
pub fn route(
    pool: &ThreadPool,
    logits: &[f32],
    experts: usize,
    correction_bias: Option<&[f32]>,
    routing: &Routing,
    indices: &mut [u32],
    weights: &mut [f32],
) {
    let k = routing.num_experts_per_tok;
    assert!(0 < k && k <= experts && logits.len().is_multiple_of(experts));
    assert!(indices.len() == logits.len() / experts * k && weights.len() == indices.len());
    assert!(correction_bias.is_none_or(|bias| bias.len() == experts));
    let tokens_per_task = pool.units_per_task(logits.len() / experts, 32 * experts);
    // Each task locks what it alone writes.
    let outputs: Vec<_> = indices
        .chunks_mut(tokens_per_task * k)
        .zip(weights.chunks_mut(tokens_per_task * k))
        .map(Mutex::new)
        .collect();
    pool.for_each(outputs.len(), |task| {
        let mut outputs = outputs[task].lock().unwrap_or_else(PoisonError::into_inner);
        let (indices, weights) = &mut *outputs;
        let logits = logits[task * tokens_per_task * experts..].chunks_exact(experts);
        let (mut scores, mut choice) = (vec![0.0; experts], vec![0.0; experts]);
        let chosen = indices.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
        for (logits, (indices, weights)) in logits.zip(chosen) {
            scores.copy_from_slice(logits);
            routing.scores.of(&mut scores);
            choice.copy_from_slice(&scores);
            for (choice, bias) in choice.iter_mut().zip(correction_bias.unwrap_or_default()) {
                *choice += bias;
            }
            if let Some(groups) = &routing.groups {
                groups.exclude_others(&mut choice);
            }
            largest(&choice, indices);
            routing.weigh(&scores, indices, weights);
        }
    });
}

impl Routing {
    /// The weights of the chosen experts.
    fn weigh(&self, scores: &[f32], indices: &[u32], weights: &mut [f32]) {
        for (weight, &expert) in weights.iter_mut().zip(indices) {
            *weight = scores[expert as usize];
        }
        match self.weighting {
            Weighting::AsScored => {}
            Weighting::SumToOne => {
                let sum = weights.iter().sum::<f32>() + 1e-20;
                for weight in &mut *weights {
                    *weight /= sum;
                }
            }
            Weighting::Softmax => softmax(weights),
        }
        for weight in weights {
            *weight *= self.scaling_factor;
        }
    }
}

impl Scores {
    /// Logits to scores.
    fn of(self, logits: &mut [f32]) {
        match self {
            Scores::Softmax => softmax(logits),
            Scores::Sigmoid => sigmoids(logits),
            Scores::Logits => {}
        }
    }
}

impl ExpertGroups {
    /// Makes the scores of experts outside the best groups minus infinity.
    fn exclude_others(&self, choice: &mut [f32]) {
        assert!(0 < self.topk_group && self.topk_group <= self.n_group);
        assert!(choice.len().is_multiple_of(self.n_group));
        let size = choice.len() / self.n_group;
        let scores: Vec<f32> = choice.chunks_exact(size).map(|group| self.score.of(group)).collect();
        let mut best = vec![0; self.topk_group];
        largest(&scores, &mut best);
        for (group, choice) in (0..).zip(choice.chunks_exact_mut(size)) {
            if !best.contains(&group) {
                choice.fill(f32::NEG_INFINITY);
            }
        }
    }
}

impl GroupScore {
    fn of(self, group: &[f32]) -> f32 {
        let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for &score in group {
            if score > first {
                (first, second) = (score, first);
            } else if score > second {
                second = score;
            }
        }
        match self {
            GroupScore::Max => first,
            GroupScore::TopTwo => first + second,
        }
    }
}

multiversion! {
    fn softmax(x: &mut [f32]) {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in &mut *x {
            *x = exp(*x - max);
        }
        let sum: f32 = x.iter().sum();
        for x in x {
            *x /= sum;
        }
    }
}

multiversion! {
    fn sigmoids(x: &mut [f32]) {
        for x in x {
            *x = sigmoid(*x);
        }
    }
}

/// Fills `best` with the indices of the largest values by falling value; of equal ones the lowest first, NaNs last.
fn largest(values: &[f32], best: &mut [u32]) {
    let is_better = |a: f32, b: f32| a > b || (b.is_nan() && !a.is_nan());
    let mut found = 0;
    for (index, &value) in values.iter().enumerate() {
        let of = |place: u32| values[place as usize];
        if found == best.len() && !is_better(value, of(best[found - 1])) {
            continue;
        }
        // Later indices come after equal values.
        let mut place = found.min(best.len() - 1);
        found = best.len().min(found + 1);
        while place > 0 && is_better(value, of(best[place - 1])) {
            best[place] = best[place - 1];
            place -= 1;
        }
        best[place] = index as u32;
    }
}
