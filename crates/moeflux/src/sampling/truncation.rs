//! Which tokens remain to be drawn from: top-k, top-p, min-p, typical, XTC.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// A token that can be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: u32,
    pub(super) logit: f32,
    /// Probability relative to the most likely token's, `exp((logit - max) / temperature)`.
    pub(super) weight: f64,
}

/// Fills `candidates` with the `k` most likely tokens and those that tie with the last of them (transformers'
/// `TopKLogitsWarper`), the most likely first. Weights are not set yet.
pub(super) fn top_k(logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    // One pass over the vocabulary: whatever is below the k-th of the tokens so far is out at once.
    let mut least = f32::NEG_INFINITY;
    let mut room = 2 * k;
    for (token, logit) in logits.iter().enumerate() {
        if *logit >= least {
            candidates.push(candidate((token, logit)));
            if candidates.len() > room {
                least = keep_top_k(candidates, k);
                room = 2 * candidates.len();
            }
        }
    }
    keep_top_k(candidates, k);
    candidates.sort_unstable_by(by_likelihood);
}

/// Fills `candidates` with the tokens that have at least the weight `least`, and any at all, in their order; the weights
/// of candidates are not set yet.
pub(super) fn not_below(least: f32, weights: &[f32], logits: &[f32], candidates: &mut Vec<Candidate>) {
    candidates.clear();
    let tokens = logits.iter().enumerate().zip(weights);
    let kept = tokens.filter(|&(_, &weight)| weight >= least && weight > 0.0);
    candidates.extend(kept.map(|(token, _)| candidate(token)));
}

fn candidate((token, &logit): (usize, &f32)) -> Candidate {
    Candidate { token: token as u32, logit, weight: 0.0 }
}

/// Keeps the `k` most likely and their ties, in no order; gives the least logit kept.
fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) -> f32 {
    if k >= candidates.len() {
        return f32::NEG_INFINITY;
    }
    let (_, &mut Candidate { logit: least, .. }, _) = candidates.select_nth_unstable_by(k - 1, by_likelihood);
    candidates.retain(|candidate| candidate.logit >= least);
    least
}

/// Keeps each candidate whose more likely ones together have less than probability `p` (transformers'
/// `TopPLogitsWarper`), the most likely first; `total` is what has probability 1. At least one remains.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32, total: f64) {
    if p >= 1.0 {
        return;
    }
    let mass = f64::from(p) * total;
    // Sorting stops where the mass is reached: a handful of tokens usually, out of a vocabulary of 250,000.
    let mut before = 0.0;
    let mut sorted = 0;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let block = rest.len().min(FIRST_BLOCK.max(sorted * 7));
        if block < rest.len() {
            rest.select_nth_unstable_by(block - 1, by_likelihood);
        }
        rest[..block].sort_unstable_by(by_likelihood);
        for (index, candidate) in rest[..block].iter().enumerate() {
            if before >= mass && sorted + index > 0 {
                candidates.truncate(sorted + index);
                return;
            }
            before += candidate.weight;
        }
        sorted += block;
    }
}

/// Keeps the candidates with at least `p` times the probability of the most likely one (transformers'
/// `MinPLogitsWarper`; arXiv:2407.01082).
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p > 0.0 {
        candidates.retain(|candidate| candidate.weight >= f64::from(p));
    }
}

/// Keeps the candidates whose information content `-ln(probability)` is nearest to the entropy, until they have
/// probability `p` together, and those as near as the last of them (transformers' `TypicalLogitsWarper`;
/// arXiv:2202.00666).
pub(super) fn typical(candidates: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    candidates.retain(|candidate| candidate.weight > 0.0);
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let information = |candidate: &Candidate| total.ln() - candidate.weight.ln();
    let entropy: f64 =
        candidates.iter().map(|candidate| candidate.weight / total * information(candidate)).sum();
    let distance = |candidate: &Candidate| (information(candidate) - entropy).abs();
    let mut nearest: Vec<(f64, f64)> =
        candidates.iter().map(|candidate| (distance(candidate), candidate.weight / total)).collect();
    nearest.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut mass = 0.0;
    let last = nearest.iter().find(|(_, probability)| {
        mass += probability;
        mass >= f64::from(p)
    });
    if let Some(&(limit, _)) = last.or(nearest.last()) {
        candidates.retain(|candidate| distance(candidate) <= limit);
    }
}

/// Of the candidates with probability `threshold` or more, keeps only the least likely (of equals, the highest id); does
/// nothing if that would take away an exempt token. Exclude top choices, as its author defined it for
/// text-generation-webui (its pull request 6335).
pub(super) fn exclude_top_choices(candidates: &mut Vec<Candidate>, threshold: f32, exempt: &BTreeSet<u32>) {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let is_top = |candidate: &Candidate| candidate.weight / total >= f64::from(threshold);
    let Some(least) =
        candidates.iter().filter(|candidate| is_top(candidate)).max_by(|a, b| by_likelihood(a, b)).copied()
    else {
        return;
    };
    let goes = |candidate: &Candidate| is_top(candidate) && candidate.token != least.token;
    if !candidates.iter().any(|candidate| goes(candidate) && exempt.contains(&candidate.token)) {
        candidates.retain(|candidate| !goes(candidate));
    }
}

/// How many candidates [`top_p`] sorts first.
const FIRST_BLOCK: usize = 128;

/// The more likely candidate first; of equals, the lower token.
fn by_likelihood(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}
