//! Every other kernel against its formula in f64, and its limits.

use crate::formulas::{self, DeltaInputs, sigmoid};
use crate::support::{Random, assert_close, f64s};
use moeflux_kernels::{
    DeltaShape, ExpertGroups, GatedDeltaArgs, GroupScore, HeadOrder, RopeArgs, RopeLayout, Routing, Scores,
    ThreadPool, Weighting, add, add_to_rows, columns, conv1d_silu, decay_beta, gated_delta, gated_rms_norm,
    l2_norm, rms_norm, rope, route, scale_by_sigmoid, sigmoid_gate, swiglu,
};

fn pool() -> ThreadPool {
    ThreadPool::new(2).unwrap()
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[test]
fn norms() {
    let mut random = Random(1);
    for (rows, dim) in [(1, 1), (3, 16), (7, 129), (300, 256), (1, 5000)] {
        let (x, gate) = (random.floats(rows * dim, 3.0), random.floats(rows * dim, 8.0));
        let weight = random.floats(dim, 2.0);
        let mut y = vec![f32::NAN; rows * dim];
        let expected = |f: &dyn Fn(f64, f64, usize) -> f64| -> Vec<f64> {
            (0..rows * dim)
                .map(|i| {
                    let row = &x[i / dim * dim..][..dim];
                    let squares = row.iter().map(|&x| f64::from(x).powi(2)).sum();
                    f(f64::from(x[i]), squares, i)
                })
                .collect()
        };
        let rms = |x: f64, squares: f64, i: usize| {
            x / (squares / dim as f64 + 1e-6).sqrt() * f64::from(weight[i % dim])
        };
        rms_norm(&pool(), &x, &weight, 1e-6, &mut y);
        assert_close(&y, &expected(&rms), 2e-6);
        gated_rms_norm(&pool(), &x, &gate, &weight, 1e-6, &mut y);
        let gated = |x, squares, i| {
            let gate = f64::from(gate[i]);
            rms(x, squares, i) * gate * sigmoid(gate)
        };
        assert_close(&y, &expected(&gated), 2e-6);
        l2_norm(&pool(), &x, dim, 1e-6, 0.25, &mut y);
        assert_close(&y, &expected(&|x, squares, _| x / (squares + 1e-6).sqrt() * 0.25), 2e-6);
    }
}

#[test]
fn norms_of_zeros_are_zeros() {
    let (x, weight) = ([0.0; 32], [1.0; 16]);
    let mut y = [f32::NAN; 32];
    rms_norm(&pool(), &x, &weight, 1e-6, &mut y);
    assert_eq!(y, [0.0; 32]);
    y.fill(f32::NAN);
    gated_rms_norm(&pool(), &x, &[1.0; 32], &weight, 1e-6, &mut y);
    assert_eq!(y, [0.0; 32]);
    y.fill(f32::NAN);
    l2_norm(&pool(), &x, 16, 1e-6, 1.0, &mut y);
    assert_eq!(y, [0.0; 32]);
}

#[test]
fn elementwise() {
    let mut random = Random(2);
    for n in [1, 16, 1001] {
        let (a, b) = (random.floats(n, 30.0), random.floats(n, 30.0));
        let mut y = vec![f32::NAN; n];
        let expected = |f: fn(f64, f64) -> f64| -> Vec<f64> {
            a.iter().zip(&b).map(|(&a, &b)| f(f64::from(a), f64::from(b))).collect()
        };
        add(&pool(), &a, &b, &mut y);
        assert_close(&y, &expected(|a, b| a + b), 1e-7);
        swiglu(&pool(), &a, &b, &mut y);
        assert_close(&y, &expected(|a, b| a * sigmoid(a) * b), 1e-6);
        sigmoid_gate(&pool(), &a, &b, &mut y);
        assert_close(&y, &expected(|a, b| a * sigmoid(b)), 1e-6);
    }
    let (x, s) = (random.floats(15, 2.0), random.floats(3, 2.0));
    let mut y = [0.0; 15];
    scale_by_sigmoid(&pool(), &x, &s, &mut y);
    let expected: Vec<f64> = (0..15).map(|i| f64::from(x[i]) * sigmoid(f64::from(s[i / 5]))).collect();
    assert_close(&y, &expected, 1e-6);
}

#[test]
fn parts_are_copied() {
    let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let mut y = [0.0; 6];
    columns(&pool(), &x, 8, 8, &[5..7], &mut y);
    assert_eq!(y, [5., 6., 13., 14., 21., 22.]);
    let mut y = [0.0; 12];
    columns(&pool(), &x, 12, 6, &[3..6], &mut y);
    assert_eq!(y, [3., 4., 5., 9., 10., 11., 15., 16., 17., 21., 22., 23.]);
    let mut y = [0.0; 18];
    columns(&pool(), &x, 8, 4, &[1..2, 2..4], &mut y);
    assert_eq!(y, [1., 5., 2., 3., 6., 7., 9., 13., 10., 11., 14., 15., 17., 21., 18., 19., 22., 23.]);
}

#[test]
fn rows_get_their_bias() {
    let mut y = [0., 1., 2., 3., 4., 5.];
    add_to_rows(&[10., 20., 30.], &mut y);
    assert_eq!(y, [10., 21., 32., 13., 24., 35.]);
    add_to_rows(&[], &mut []);
}

#[test]
fn rope_turns_pairs() {
    let (n, heads, head_dim, rotary) = (3, 2, 10, 6);
    let mut random = Random(3);
    let x = random.floats(n * heads * head_dim, 1.0);
    let angles = random.floats(n * rotary / 2, 3.0);
    let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
    for (layout, pairs) in [
        (RopeLayout::HalfSplit, [(0, 3), (1, 4), (2, 5)]),
        (RopeLayout::Interleaved, [(0, 1), (2, 3), (4, 5)]),
    ] {
        let mut expected = f64s(&x);
        for t in 0..n {
            for head in 0..heads {
                for (i, (a, b)) in pairs.into_iter().enumerate() {
                    let at = (t * heads + head) * head_dim;
                    let (xa, xb) = (f64::from(x[at + a]), f64::from(x[at + b]));
                    let angle = f64::from(angles[t * 3 + i]);
                    expected[at + a] = xa * angle.cos() - xb * angle.sin();
                    expected[at + b] = xb * angle.cos() + xa * angle.sin();
                }
            }
        }
        let mut y = vec![f32::NAN; x.len()];
        let (x, rotary_dim, cos, sin) = (x.as_slice(), rotary, cos.as_slice(), sin.as_slice());
        rope(&pool(), &RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin }, &mut y);
        assert_close(&y, &expected, 1e-6);
    }
}

#[test]
fn convolution_reaches_back_into_the_state() {
    let mut random = Random(5);
    for (channels, kernel, n) in [(1, 1, 1), (5, 4, 1), (3, 4, 2), (700, 4, 40), (17, 2, 3), (4, 4, 0)] {
        let x = random.floats(n * channels, 2.0);
        let weight = random.floats(channels * kernel, 1.0);
        let state = random.floats((kernel - 1) * channels, 2.0);
        let (mut new_state, mut y) = (vec![f32::NAN; state.len()], vec![f32::NAN; x.len()]);
        conv1d_silu(&pool(), &x, &weight, kernel, &state, &mut new_state, &mut y);
        assert_close(&y, &formulas::convolution(&x, &weight, kernel, &state), 2e-6);
        assert_eq!(new_state, [state, x].concat()[n * channels..]);
    }
}

#[test]
fn decay_and_beta_and_their_limits() {
    let mut random = Random(6);
    let (n, heads) = (9, 4);
    let (a, b) = (random.floats(n * heads, 30.0), random.floats(n * heads, 30.0));
    let (a_log, dt_bias) = (random.floats(heads, 3.0), random.floats(heads, 3.0));
    let (mut decay, mut beta) = (vec![0.0; n * heads], vec![0.0; n * heads]);
    decay_beta(&pool(), &a, &b, &a_log, &dt_bias, &mut decay, &mut beta);
    for i in 0..n * heads {
        let (a_log, dt_bias) = (f64::from(a_log[i % heads]), f64::from(dt_bias[i % heads]));
        let expected = (-a_log.exp() * softplus(f64::from(a[i]) + dt_bias)).exp();
        assert_close(&decay[i..=i], &[expected], 1e-5);
        assert_close(&beta[i..=i], &[sigmoid(f64::from(b[i]))], 1e-6);
    }

    let a = [f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY];
    let (mut decay, mut beta) = ([f32::NAN; 4], [f32::NAN; 4]);
    decay_beta(&pool(), &a, &a, &[0.0], &[0.0], &mut decay, &mut beta);
    assert_eq!(decay, [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(beta, [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn delta_rule_follows_its_recurrence() {
    let mut random = Random(7);
    for (key_heads, value_heads, key_dim, value_dim, n) in [
        (1, 1, 1, 1, 3),
        (2, 4, 16, 32, 20),
        (2, 2, 24, 5, 7),
        (2, 6, 128, 128, 9),
        (2, 4, 128, 128, 1),
        (1, 2, 8, 64, 0),
    ] {
        let order = if n % 2 == 0 { HeadOrder::Grouped } else { HeadOrder::Tiled };
        let shape = DeltaShape { key_heads, value_heads, key_dim, value_dim, order };
        // Keys of about unit length, as after their norm: then the state stays bounded.
        let unit = 1.0 / (key_dim as f32).sqrt();
        let (q, k) =
            (random.floats(n * key_heads * key_dim, unit), random.floats(n * key_heads * key_dim, unit));
        let v = random.floats(n * value_heads * value_dim, 1.0);
        let decay: Vec<f32> = random.floats(n * value_heads, 0.5).iter().map(|x| x + 0.5).collect();
        let beta: Vec<f32> = random.floats(n * value_heads, 0.5).iter().map(|x| x + 0.5).collect();
        let state = random.floats(value_heads * key_dim * value_dim, 1.0);
        let (mut new_state, mut y) = (vec![f32::NAN; state.len()], vec![f32::NAN; v.len()]);
        let inputs = DeltaInputs { q, k, v, decay, beta, state };
        let DeltaInputs { q, k, v, decay, beta, state } = &inputs;
        let args = GatedDeltaArgs { q: &q[..], k, v, decay, beta, shape: &shape, state };
        gated_delta(&pool(), &args, &mut new_state, &mut y);
        let (expected, s) = formulas::delta_rule(&inputs, &shape);
        assert_close(&y, &expected, 5e-6);
        assert_close(&new_state, &s, 5e-6);
    }
}

/// What [`route`] should do, in f64 and by sorting: (expert, weight) of each choice.
fn route_oracle(logits: &[f32], bias: Option<&[f32]>, routing: &Routing) -> Vec<(u32, f64)> {
    let softmax = |x: &[f64]| -> Vec<f64> {
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        x.iter().map(|x| x.exp() / sum).collect()
    };
    let logits = f64s(logits);
    let scores = match routing.scores {
        Scores::Softmax => softmax(&logits),
        Scores::Sigmoid => logits.iter().copied().map(sigmoid).collect(),
        Scores::Logits => logits,
    };
    let mut choice: Vec<(usize, f64)> = scores
        .iter()
        .enumerate()
        .map(|(e, score)| (e, score + bias.map_or(0.0, |bias| f64::from(bias[e]))))
        .collect();
    if let Some(groups) = routing.groups {
        let size = scores.len() / groups.n_group;
        let mut ranked: Vec<(usize, f64)> = choice
            .chunks(size)
            .map(|group| {
                let mut group: Vec<f64> = group.iter().map(|(_, score)| *score).collect();
                group.sort_by(|a, b| b.total_cmp(a));
                group.iter().take(if groups.score == GroupScore::Max { 1 } else { 2 }).sum()
            })
            .enumerate()
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        choice.retain(|(e, _)| ranked[..groups.topk_group].iter().any(|(group, _)| *group == e / size));
    }
    choice.sort_by(|a, b| b.1.total_cmp(&a.1));
    choice.truncate(routing.num_experts_per_tok);
    let chosen: Vec<f64> = choice.iter().map(|(e, _)| scores[*e]).collect();
    let sum: f64 = chosen.iter().sum();
    let weights = match routing.weighting {
        Weighting::AsScored => chosen,
        Weighting::SumToOne => chosen.iter().map(|x| x / sum).collect(),
        Weighting::Softmax => softmax(&chosen),
    };
    let factor = f64::from(routing.scaling_factor);
    choice.iter().zip(weights).map(|((e, _), weight)| (*e as u32, weight * factor)).collect()
}

#[test]
fn routers_follow_their_formulas() {
    let mut random = Random(8);
    let (n, experts, k) = (20, 32, 5);
    let logits = random.floats(n * experts, 6.0);
    let bias = random.floats(experts, 0.5);
    let groups = |n_group, topk_group, score| Some(ExpertGroups { n_group, topk_group, score });
    for scores in [Scores::Softmax, Scores::Sigmoid, Scores::Logits] {
        for weighting in [Weighting::AsScored, Weighting::SumToOne, Weighting::Softmax] {
            for groups in [None, groups(8, 3, GroupScore::TopTwo), groups(4, 2, GroupScore::Max)] {
                for bias in [None, Some(&bias[..])] {
                    // A sum of logits may be near 0, where weights have no bounds.
                    if (scores, weighting) == (Scores::Logits, Weighting::SumToOne) {
                        continue;
                    }
                    let scaling_factor = 2.5;
                    let routing =
                        Routing { scores, groups, num_experts_per_tok: k, weighting, scaling_factor };
                    let (mut indices, mut weights) = (vec![0; n * k], vec![0.0; n * k]);
                    route(&pool(), &logits, experts, bias, &routing, &mut indices, &mut weights);
                    for (t, logits) in logits.chunks(experts).enumerate() {
                        let expected = route_oracle(logits, bias, &routing);
                        for (slot, (expert, weight)) in expected.into_iter().enumerate() {
                            assert_eq!(indices[t * k + slot], expert, "{routing:?}, token {t}");
                            let found = f64::from(weights[t * k + slot]);
                            assert!((found - weight).abs() < 2e-6 * weight.abs().max(1.0), "{routing:?}");
                        }
                    }
                }
            }
        }
    }
}

const TOP_THREE: Routing = Routing {
    scores: Scores::Softmax,
    groups: None,
    num_experts_per_tok: 3,
    weighting: Weighting::SumToOne,
    scaling_factor: 1.0,
};

#[test]
fn router_ties_and_limits() {
    let (mut indices, mut weights) = ([9; 3], [0.0; 3]);
    let mut run = |logits: &[f32], bias: Option<&[f32]>, routing: &Routing| {
        route(&pool(), logits, logits.len(), bias, routing, &mut indices, &mut weights);
        (indices, weights)
    };
    let (indices, weights) = run(&[1.0, 2.0, 1.0, 2.0, 1.0], None, &TOP_THREE);
    assert_eq!(indices, [1, 3, 0]);
    assert!(weights[0] == weights[1] && weights[1] > weights[2]);
    assert_eq!(run(&[3e38, -3e38, f32::NEG_INFINITY, 0.0], None, &TOP_THREE), ([0, 1, 2], [1.0, 0.0, 0.0]));
    let (indices, weights) = run(&[f32::NAN; 4], None, &TOP_THREE);
    assert_eq!(indices, [0, 1, 2]);
    assert!(weights.iter().all(|weight| weight.is_nan()));

    // All experts; a NaN comes last.
    let sigmoid = Routing { scores: Scores::Sigmoid, weighting: Weighting::AsScored, ..TOP_THREE };
    assert_eq!(run(&[f32::NAN, 0.0, 1.0], None, &sigmoid).0, [2, 1, 0]);
    // Nothing but zeros still has a sum to be divided by.
    let zeros = Routing { weighting: Weighting::SumToOne, ..sigmoid };
    assert_eq!(run(&[f32::NEG_INFINITY; 4], None, &zeros), ([0, 1, 2], [0.0; 3]));

    // Equal groups: the first two. Excluded experts rank below any kept one, whatever its bias makes of it.
    let groups = ExpertGroups { n_group: 3, topk_group: 2, score: GroupScore::TopTwo };
    let grouped = Routing { groups: Some(groups), ..sigmoid };
    assert_eq!(run(&[0.0; 6], None, &grouped), ([0, 1, 2], [0.5; 3]));
    assert_eq!(run(&[0.0; 6], Some(&[-9.0, -9.0, -2.0, -2.0, 1.0, -3.0]), &grouped).0, [4, 2, 3]);
    // A group of the two best experts beats one of the best alone, unless the best is all that counts.
    let logits = [3.0, -8.0, 2.0, 2.0, -9.0, -9.0];
    let one = |score| Routing {
        groups: Some(ExpertGroups { n_group: 3, topk_group: 1, score }),
        num_experts_per_tok: 2,
        ..sigmoid
    };
    let (mut indices, mut weights) = ([9; 2], [0.0; 2]);
    route(&pool(), &logits, 6, None, &one(GroupScore::TopTwo), &mut indices, &mut weights);
    assert_eq!(indices, [2, 3]);
    route(&pool(), &logits, 6, None, &one(GroupScore::Max), &mut indices, &mut weights);
    assert_eq!(indices, [0, 1]);
}
