//! Choice of experts.

use moeflux_kernels::{GroupScore, Routing, Scores, Weighting};

use crate::{Encoder, Program, View};

use super::{GRID_ROW, MATH, ORDER, grid};

static ROUTE: Program =
    Program { name: "route", entry: "main", source: &[include_str!("route.wgsl"), ORDER, MATH] };

/// For each token the experts with the largest scores, by falling score, and their weights.
///
/// `logits` is `[n, experts]`, `ids` (u32) and `weights` are `[n, num_experts_per_tok]`. `correction_bias`,
/// `[experts]`, is added to the scores for the choice alone. Of equal scores and groups the lowest index comes first.
pub fn route(
    enc: &mut Encoder<'_>,
    logits: &View,
    experts: usize,
    correction_bias: Option<&View>,
    routing: &Routing,
    ids: &View,
    weights: &View,
) {
    let k = routing.num_experts_per_tok;
    let n = logits.len() / experts;
    assert!(0 < k && k <= experts && logits.len() == n * experts);
    assert!(ids.len() == n * k && weights.len() == n * k);
    assert!(correction_bias.is_none_or(|bias| bias.len() == experts));
    let (groups, chosen, score) = match routing.groups {
        Some(groups) => (groups.n_group, groups.topk_group, groups.score),
        None => (1, 1, GroupScore::Max),
    };
    assert!(0 < chosen && chosen <= groups && experts.is_multiple_of(groups));
    let lanes = experts.next_power_of_two().clamp(32, 256);
    let scores = match routing.scores {
        Scores::Softmax => 0,
        Scores::Sigmoid => 1,
        Scores::Logits => 2,
    };
    let weighting = match routing.weighting {
        Weighting::AsScored => 0,
        Weighting::SumToOne => 1,
        Weighting::Softmax => 2,
    };
    let constants = [
        ("LANES", lanes as u32),
        ("GRID_ROW", GRID_ROW),
        ("EXPERTS", experts as u32),
        ("K", k as u32),
        ("GROUPS", groups as u32),
        ("GROUPS_CHOSEN", chosen as u32),
        ("GROUP_SCORE", u32::from(score == GroupScore::TopTwo)),
        ("SCORES", scores),
        ("WEIGHTING", weighting),
        ("HAS_BIAS", u32::from(correction_bias.is_some())),
    ];
    let none = enc.no_view();
    let views = [logits, correction_bias.unwrap_or(&none), ids, weights];
    enc.dispatch(&ROUTE, &constants, &views, &[n as u32, routing.scaling_factor.to_bits()], grid(n));
}
