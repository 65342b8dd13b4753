//! Sampling: probabilities against an independent program's (`tools/reference/samplers.py`) and a plain computation in
//! float64, penalties by hand, seeds, bad values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::property;
use moeflux::sampling::{LogSoftmax, Sampler, SamplingError, SamplingOptions, TokenRoles, TokenSet};
use proptest::prelude::*;
use serde_json::Value;

/// Options that draw from the plain distribution.
fn options() -> SamplingOptions {
    SamplingOptions { temperature: 1.0, ..SamplingOptions::default() }
}

fn sampler(options: &SamplingOptions, vocab_size: usize) -> Sampler {
    Sampler::new(options.clone(), vocab_size).unwrap()
}

/// The settings of a case of `tests/data/samplers.json`.
fn case_options(case: &Value) -> SamplingOptions {
    let mut options = options();
    for (name, value) in case["options"].as_object().unwrap() {
        let number = || value.as_f64().unwrap() as f32;
        let count = || value.as_u64().unwrap() as usize;
        match name.as_str() {
            "temperature" => options.temperature = number(),
            "top_k" => options.top_k = count(),
            "top_p" => options.top_p = number(),
            "min_p" => options.min_p = number(),
            "typical_p" => options.typical_p = number(),
            "xtc_probability" => options.xtc_probability = number(),
            "xtc_threshold" => options.xtc_threshold = number(),
            "repetition_penalty" => options.repetition_penalty = number(),
            "presence_penalty" => options.presence_penalty = number(),
            "frequency_penalty" => options.frequency_penalty = number(),
            "penalty_window" => options.penalty_window = count(),
            "dry_multiplier" => options.dry_multiplier = number(),
            "dry_base" => options.dry_base = number(),
            "dry_allowed_length" => options.dry_allowed_length = count(),
            "logit_bias" => {
                let biases = value.as_object().unwrap().iter();
                options.logit_bias = biases
                    .map(|(token, bias)| (token.parse().unwrap(), bias.as_f64().unwrap() as f32))
                    .collect();
            }
            other => panic!("{other}"),
        }
    }
    // The default of the program that wrote the cases; exact in float32.
    if case["options"].get("xtc_threshold").is_none() {
        options.xtc_threshold = 0.125;
    }
    options
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn distributions_are_those_of_an_independent_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/samplers.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 150);
    for case in cases {
        let logits: Vec<f32> = numbers(&case["logits"]).into_iter().map(|logit| logit as f32).collect();
        let roles = TokenRoles {
            dry_breakers: BTreeSet::from_iter(ids(&case["dry_breakers"])),
            xtc_exempt: BTreeSet::from_iter(ids(&case["xtc_exempt"])),
        };
        let mut sampler = Sampler::with_roles(case_options(case), roles, logits.len()).unwrap();
        sampler.accept_prompt(&ids(&case["prompt"]));
        for token in ids(&case["output"]) {
            sampler.accept(token);
        }
        let mut allowed = TokenSet::full(logits.len());
        if !case["allowed"].is_null() {
            let named = ids(&case["allowed"]);
            (0..logits.len() as u32)
                .filter(|token| !named.contains(token))
                .for_each(|token| allowed.remove(token));
        }
        let model = LogSoftmax::new(&logits).unwrap();
        let mut found = vec![0.0; logits.len()];
        for (token, probability) in sampler.distribution(&model, Some(&allowed)).unwrap() {
            found[token as usize] = probability;
        }
        let expected = numbers(&case["probabilities"]);
        for (token, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = (found - expected).abs() < 2e-6 && (*found == 0.0) == (*expected == 0.0);
            assert!(same, "{}, token {token}: {found}, not {expected}", case["name"]);
        }
        let drawn = sampler.sample_among(&model, Some(&allowed)).unwrap();
        assert!(expected[drawn as usize] > 0.0, "{}: {drawn} was drawn", case["name"]);
    }
}

#[test]
fn xtc_decides_at_each_place_anew_and_leaves_the_draw_alone() {
    let logits = [2.0, 1.0, 0.5, -1.0];
    let with = |xtc_probability| SamplingOptions { xtc_probability, seed: 3, ..options() };
    let (mut never, mut some) = (sampler(&with(0.0), 4), sampler(&with(0.3), 4));
    let (model, places) = (LogSoftmax::new(&logits).unwrap(), 10_000);
    let mut excluded = 0;
    for _ in 0..places {
        let kept = some.distribution(&model, None).unwrap();
        let (without, with) = (never.sample(&logits).unwrap().token, some.sample(&logits).unwrap().token);
        if kept.len() == 4 {
            assert_eq!(with, without);
        } else {
            // With a threshold of 0.1 the tokens 0 to 2 are top choices.
            assert_eq!(kept.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 3]);
            excluded += 1;
        }
        never.accept(without);
        some.accept(without);
    }
    // Five standard deviations.
    assert!((f64::from(excluded) - 3000.0).abs() < 230.0, "{excluded} of {places}");
}

#[test]
fn token_sets_hold_what_they_should() {
    for size in [1, 31, 32, 33, 64, 100] {
        let mut set = TokenSet::full(size);
        assert!((0..size as u32).all(|token| set.contains(token)) && !set.contains(size as u32));
        assert!(!set.contains(u32::MAX));
        (0..size as u32).for_each(|token| set.remove(token));
        assert!(set.is_empty() && !set.contains(0));
    }
    // What is beyond a set is not allowed, however likely.
    let logits = [0.0, 1.0, 2.0, 3.0];
    let chosen = |set: &TokenSet| {
        let model = LogSoftmax::new(&logits).unwrap();
        sampler(&SamplingOptions::default(), 4).sample_among(&model, Some(set))
    };
    assert_eq!(chosen(&TokenSet::full(2)), Ok(1));
    assert_eq!(chosen(&TokenSet::from_words(vec![])), Err(SamplingError::NothingToChoose));
}

proptest! {
    #![proptest_config(property::config(1000))]

    /// The most likely tokens, against a full sort, ties included.
    #[test]
    fn top_logprobs_are_those_of_a_sort(
        logits in prop::collection::vec((-20_i32..20).prop_map(|value| value as f32 / 4.0), 1..200),
        n in 0_usize..25,
    ) {
        let model = LogSoftmax::new(&logits).unwrap();
        let scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        let expected = softmax(&scores);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(n);
        let top = model.top(n);
        prop_assert_eq!(top.iter().map(|top| top.token as usize).collect::<Vec<_>>(), order);
        for top in top {
            prop_assert!((f64::from(top.logprob) - expected[top.token as usize].ln()).abs() < 1e-5);
            prop_assert_eq!(top.logprob, model.of(top.token));
        }
    }
}

/// The probabilities of all tokens, each step written as it is defined, with a full sort.
fn probabilities(logits: &[f32], options: &SamplingOptions) -> Vec<f64> {
    let scores: Vec<f64> =
        logits.iter().map(|&logit| f64::from(logit) / f64::from(options.temperature)).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    if options.top_k > 0 && options.top_k < order.len() {
        let least = scores[order[options.top_k - 1]];
        order.retain(|&token| scores[token] >= least);
    }
    let weights = softmax(&order.iter().map(|&token| scores[token]).collect::<Vec<_>>());
    let mut before = 0.0;
    let kept = weights.iter().take_while(|&&weight| {
        let keep = before == 0.0 || options.top_p >= 1.0 || before < f64::from(options.top_p);
        before += weight;
        keep
    });
    order.truncate(kept.count());
    let weights = softmax(&order.iter().map(|&token| scores[token]).collect::<Vec<_>>());
    order.truncate(
        weights.iter().take_while(|&&weight| weight >= f64::from(options.min_p) * weights[0]).count(),
    );
    let weights = softmax(&order.iter().map(|&token| scores[token]).collect::<Vec<_>>());
    let mut result = vec![0.0; scores.len()];
    for (&token, weight) in order.iter().zip(weights) {
        result[token] = weight;
    }
    result
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// How often each token is drawn in `draws` positions.
fn frequencies(logits: &[f32], options: &SamplingOptions, draws: usize) -> Vec<usize> {
    let mut sampler = sampler(options, logits.len());
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        let token = sampler.sample(logits).unwrap().token;
        counts[token as usize] += 1;
        sampler.accept(token);
    }
    counts
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [1.0, 0.5, -0.3, 2.2, 0.0, 1.9, -2.0, 0.7, 0.71, -0.9];
    let cases = [
        options(),
        SamplingOptions { temperature: 0.6, ..options() },
        SamplingOptions { temperature: 1.7, ..options() },
        SamplingOptions { top_k: 4, ..options() },
        SamplingOptions { top_p: 0.8, ..options() },
        SamplingOptions { min_p: 0.2, ..options() },
        SamplingOptions { temperature: 1.3, top_k: 7, top_p: 0.9, min_p: 0.1, seed: 9, ..options() },
    ];
    let draws = 20_000;
    for options in cases {
        let expected = probabilities(&logits, &options);
        let counts = frequencies(&logits, &options, draws);
        let mut chi_squared = 0.0;
        for (count, probability) in counts.iter().zip(&expected) {
            if *probability == 0.0 {
                assert_eq!(*count, 0, "{options:?}");
            } else {
                let mean = probability * draws as f64;
                chi_squared += (*count as f64 - mean).powi(2) / mean;
            }
        }
        // The 0.999 quantile for 9 degrees of freedom is 27.9.
        assert!(chi_squared < 27.9, "chi² {chi_squared} for {options:?}: {counts:?}, expected {expected:?}");
    }
}

proptest! {
    #![proptest_config(property::config(300))]

    /// Every draw lands on a token that the plain computation keeps, and with many draws on each that is
    /// likely.
    #[test]
    fn truncation_keeps_what_the_plain_computation_keeps(
        logits in prop::collection::vec((-40_i32..40).prop_map(|eighths| eighths as f32 / 8.0), 1..400),
        top_k in 0_usize..50,
        top_p in prop_oneof![Just(1.0_f32), Just(0.0_f32), 0.0_f32..1.0],
        min_p in prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
        temperature in 0.2_f32..3.0,
        seed: u64,
    ) {
        let options = SamplingOptions { temperature, top_k, top_p, min_p, seed, ..options() };
        let expected = probabilities(&logits, &options);
        let counts = frequencies(&logits, &options, 200);
        for (token, (&count, &probability)) in counts.iter().zip(&expected).enumerate() {
            prop_assert!(probability > 0.0 || count == 0, "token {} is out, drawn {} times", token, count);
            prop_assert!(probability < 0.2 || count > 0, "token {} has {}, never drawn", token, probability);
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest(
        logits in prop::collection::vec((-5_i32..5).prop_map(|value| value as f32), 1..50),
    ) {
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let expected = logits.iter().position(|&logit| logit == largest).unwrap();
        let sampled = sampler(&SamplingOptions::default(), logits.len()).sample(&logits).unwrap();
        prop_assert_eq!(sampled.token as usize, expected);
        let scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        prop_assert!((f64::from(sampled.logprob) - softmax(&scores)[expected].ln()).abs() < 1e-5);
    }
}

#[test]
fn logprobs_are_those_of_the_model() {
    let logits = [0.0, 1.0, 2.0];
    let options = SamplingOptions {
        temperature: 0.1,
        top_k: 1,
        logit_bias: BTreeMap::from([(0, 50.0)]),
        ..SamplingOptions::default()
    };
    let sampled = sampler(&options, 3).sample(&logits).unwrap();
    assert_eq!(sampled.token, 0);
    let expected = softmax(&[0.0, 1.0, 2.0])[0].ln();
    assert!((f64::from(sampled.logprob) - expected).abs() < 1e-6);
}

/// The logits after penalties, read off greedily: token `i` wins from the moment its rival is at most that
/// logit.
fn penalised(options: &SamplingOptions, prompt: &[u32], output: &[u32], logits: &[f32], token: u32) -> f32 {
    let (mut low, mut high) = (-100.0_f32, 100.0_f32);
    let rival = logits.len();
    for _ in 0..60 {
        let middle = f32::midpoint(low, high);
        let mut with_rival: Vec<f32> = vec![f32::NEG_INFINITY; rival + 1];
        with_rival[token as usize] = logits[token as usize];
        with_rival[rival] = middle;
        let mut sampler = sampler(options, rival + 1);
        sampler.accept_prompt(prompt);
        for &token in output {
            sampler.accept(token);
        }
        if sampler.sample(&with_rival).unwrap().token == token {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[test]
fn penalties_have_the_values_of_their_formulas() {
    let logits = [2.0, -2.0, 2.0, -2.0, 3.0];
    let options = SamplingOptions {
        repetition_penalty: 1.25,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..SamplingOptions::default()
    };
    // Tokens 0 and 1 are in the prompt, 2 once and 3 three times in the output, 4 nowhere.
    let (prompt, output) = ([0, 1, 0], [2, 3, 3, 3]);
    let expected = [2.0 / 1.25, -2.0 * 1.25, 2.0 / 1.25 - 0.75, -2.0 * 1.25 - 1.25, 3.0];
    for (token, expected) in expected.into_iter().enumerate() {
        let found = penalised(&options, &prompt, &output, &logits, token as u32);
        assert!((found - expected).abs() < 1e-4, "token {token}: {found}, not {expected}");
    }
    // With a window of 3, only the last three tokens, all 3, are seen.
    let options = SamplingOptions { penalty_window: 3, ..options };
    for (token, expected) in [2.0, -2.0, 2.0, -2.0 * 1.25 - 1.25, 3.0].into_iter().enumerate() {
        let found = penalised(&options, &prompt, &output, &logits, token as u32);
        assert!((found - expected).abs() < 1e-4, "window, token {token}: {found}, not {expected}");
    }
    // With a window of 6, the first token of the prompt is out, but 0 comes again.
    let options = SamplingOptions { penalty_window: 6, ..options };
    assert!((penalised(&options, &prompt, &output, &logits, 0) - 1.6).abs() < 1e-4);
    assert!((penalised(&options, &prompt, &output, &logits, 1) + 2.5).abs() < 1e-4);
}

#[test]
fn logit_bias_comes_after_penalties_and_can_forbid() {
    let bias = |bias: f32| SamplingOptions {
        repetition_penalty: 2.0,
        logit_bias: BTreeMap::from([(0, bias)]),
        ..SamplingOptions::default()
    };
    assert!((penalised(&bias(3.0), &[0], &[], &[1.0, 0.0], 0) - 3.5).abs() < 1e-4);
    assert_eq!(sampler(&bias(f32::NEG_INFINITY), 2).sample(&[9.0, 1.0]).unwrap().token, 1);
}

#[test]
fn the_same_seed_gives_the_same_tokens_wherever_one_starts() {
    let logits: Vec<f32> = (0..100).map(|token| (token * 37 % 100) as f32 / 32.0).collect();
    let draw = |seed: u64, from: usize| -> Vec<u32> {
        let mut sampler = sampler(&SamplingOptions { seed, ..options() }, 100);
        // Tokens that were not sampled here (a resumed output) move the position on all the same.
        (0..from).for_each(|_| sampler.accept(0));
        (from..50)
            .map(|_| {
                let token = sampler.sample(&logits).unwrap().token;
                assert_eq!(sampler.sample(&logits).unwrap().token, token, "sampling alone changes nothing");
                sampler.accept(token);
                token
            })
            .collect()
    };
    assert_eq!(draw(7, 0), draw(7, 0));
    assert_eq!(draw(7, 0)[20..], draw(7, 20));
    assert_ne!(draw(7, 0), draw(8, 0));
    // Written down, so that a change of generator or order cannot go unseen.
    assert_eq!(draw(42, 0)[..8], RECORDED);
}

const RECORDED: [u32; 8] = [67, 94, 43, 62, 28, 16, 31, 81];

#[test]
fn invalid_options_are_errors_that_name_field_and_value() {
    let with = |change: fn(&mut SamplingOptions)| {
        let mut options = SamplingOptions::default();
        change(&mut options);
        options
    };
    let cases = [
        (with(|options| options.temperature = f32::NAN), "temperature", "NaN"),
        (with(|options| options.temperature = -0.5), "temperature", "-0.5"),
        (with(|options| options.temperature = f32::INFINITY), "temperature", "inf"),
        (with(|options| options.top_p = 1.5), "top_p", "1.5"),
        (with(|options| options.top_p = f32::NAN), "top_p", "NaN"),
        (with(|options| options.top_p = -1.0), "top_p", "-1"),
        (with(|options| options.min_p = 2.0), "min_p", "2"),
        (with(|options| options.min_p = f32::NAN), "min_p", "NaN"),
        (with(|options| options.repetition_penalty = 0.0), "repetition_penalty", "0"),
        (with(|options| options.repetition_penalty = -1.0), "repetition_penalty", "-1"),
        (with(|options| options.repetition_penalty = f32::NAN), "repetition_penalty", "NaN"),
        (with(|options| options.presence_penalty = f32::INFINITY), "presence_penalty", "inf"),
        (with(|options| options.frequency_penalty = f32::NAN), "frequency_penalty", "NaN"),
        (with(|options| options.typical_p = 0.0), "typical_p", "0"),
        (with(|options| options.typical_p = 1.5), "typical_p", "1.5"),
        (with(|options| options.xtc_probability = 1.5), "xtc_probability", "1.5"),
        (with(|options| options.xtc_threshold = f32::NAN), "xtc_threshold", "NaN"),
        (with(|options| options.dry_multiplier = -1.0), "dry_multiplier", "-1"),
        (with(|options| options.dry_base = 0.5), "dry_base", "0.5"),
        (with(|options| options.dry_allowed_length = 0), "dry_allowed_length", "0"),
        (
            with(|options| options.dry_sequence_breakers = vec![String::new()]),
            "dry_sequence_breakers",
            "\"\"",
        ),
        (with(|options| options.logit_bias = BTreeMap::from([(10, 1.0)])), "logit_bias", "token 10"),
        (with(|options| options.logit_bias = BTreeMap::from([(1, f32::NAN)])), "logit_bias", "NaN"),
        (with(|options| options.logit_bias = BTreeMap::from([(1, f32::INFINITY)])), "logit_bias", "inf"),
    ];
    for (options, name, value) in cases {
        let error = Sampler::new(options, 10).map(|_| ()).unwrap_err();
        let SamplingError::Invalid { field, found, .. } = &error else { panic!("{error}") };
        assert_eq!((*field, found.as_str()), (name, value), "{error}");
    }
}

#[test]
fn logits_that_cannot_be_chosen_by_are_errors() {
    for options in
        [SamplingOptions::default(), options(), SamplingOptions { top_k: 2, top_p: 0.5, ..options() }]
    {
        let mut sampler = sampler(&options, 3);
        assert!(matches!(
            sampler.sample(&[0.0, f32::NAN, 1.0]),
            Err(SamplingError::NotFinite { token: 1, value }) if value.is_nan()
        ));
        let infinite = Err(SamplingError::NotFinite { token: 2, value: f32::INFINITY });
        assert_eq!(sampler.sample(&[0.0, 0.0, f32::INFINITY]), infinite);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3]), Err(SamplingError::NothingToChoose));
        assert_eq!(sampler.sample(&[0.0; 4]), Err(SamplingError::LogitCount { expected: 3, found: 4 }));
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -1e30, f32::NEG_INFINITY]).unwrap().token, 1);
    }
    assert_eq!(Sampler::new(options(), 0).unwrap().sample(&[]), Err(SamplingError::NothingToChoose));
    let forbidden =
        SamplingOptions { logit_bias: (0..3).map(|token| (token, f32::NEG_INFINITY)).collect(), ..options() };
    assert_eq!(sampler(&forbidden, 3).sample(&[0.0; 3]), Err(SamplingError::NothingToChoose));
}

#[test]
fn extreme_temperatures_stay_numbers() {
    let cold = SamplingOptions { temperature: f32::MIN_POSITIVE, ..options() };
    assert_eq!(frequencies(&[1.0, 1.000_001, -3e38], &cold, 50), [0, 50, 0]);
    let hot = SamplingOptions { temperature: f32::MAX, ..options() };
    assert!(frequencies(&[3e38, 3e38, f32::NEG_INFINITY], &hot, 50)[..2].iter().all(|&count| count > 10));
}
