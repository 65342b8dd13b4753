//! Choice of experts.

use crate::math::{exp, sigmoid};

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
    let mut scores = vec![0.0; experts];
    let mut choice = vec![0.0; experts];
    let mut order: Vec<u32> = (0..experts as u32).collect();
    let chosen = indices.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
    for (logits, (indices, weights)) in logits.chunks_exact(experts).zip(chosen) {
        scores.copy_from_slice(logits);
        match routing.scores {
            Scores::Softmax => softmax(&mut scores),
            Scores::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            Scores::Logits => {}
        }
        choice.copy_from_slice(&scores);
        for (choice, bias) in choice.iter_mut().zip(correction_bias.unwrap_or_default()) {
            *choice += bias;
        }
        if let Some(groups) = &routing.groups {
            groups.exclude_others(&mut choice);
        }

        indices.copy_from_slice(largest(&choice, k, &mut order));
        for (weight, &expert) in weights.iter_mut().zip(&*indices) {
            *weight = scores[expert as usize];
        }
        match routing.weighting {
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
            *weight *= routing.scaling_factor;
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
        let mut order: Vec<u32> = (0..self.n_group as u32).collect();
        let best = largest(&scores, self.topk_group, &mut order);
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

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in &mut *x {
        *x = exp(*x - max);
        sum += *x;
    }
    for x in x {
        *x /= sum;
    }
}

/// Indices of the `k` largest values by falling value; of equal ones the lowest first, NaNs last. `order` is some
/// permutation of all indices.
fn largest<'o>(values: &[f32], k: usize, order: &'o mut [u32]) -> &'o [u32] {
    let falling = |&i: &u32, &j: &u32| {
        let (a, b) = (values[i as usize], values[j as usize]);
        let by_value = b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        by_value.then(i.cmp(&j))
    };
    if k < order.len() {
        order.select_nth_unstable_by(k, falling);
    }
    let first = &mut order[..k];
    first.sort_unstable_by(falling);
    first
}
