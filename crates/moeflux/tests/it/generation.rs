//! Generation's options on the demo: log-probabilities, lengths, several samples, going on, the reasoning budget.

use crate::common::{copy_with, data, root};
use moeflux::engine::{Outcome, PromptLogprob};
use moeflux::sampling::{Constraint, SamplingOptions};
use moeflux::text::{ChatRequest, Message};
use moeflux::{
    Engine, EngineOptions, Error, Event, GenerateRequest, Model, ModelOptions, Sequence, StopReason,
};
use serde_json::json;

fn engine(prefill_chunk: Option<usize>) -> Engine {
    let model = Model::open(root().join("models/demo"), &ModelOptions::default()).unwrap();
    Engine::new(model, &EngineOptions { threads: 1, prefill_chunk, ..EngineOptions::default() }).unwrap()
}

fn prompt(engine: &Engine, question: &str, think: bool) -> Vec<u32> {
    let tokenizer = engine.model().tokenizer();
    let prompt = tokenizer.render_chat(&ChatRequest {
        messages: &[Message::new("user", question)],
        add_generation_prompt: true,
        enable_thinking: Some(think),
        ..ChatRequest::default()
    });
    tokenizer.encode(&prompt.unwrap()).unwrap()
}

/// Everything that a generation told.
struct Told {
    tokens: Vec<u32>,
    logprobs: Vec<(f32, Vec<(u32, f32)>)>,
    prompt: Vec<PromptLogprob>,
    text: String,
    outcome: Outcome,
}

fn run_on(engine: &mut Engine, sequence: &mut Sequence, request: GenerateRequest) -> Result<Told, Error> {
    let (mut tokens, mut logprobs, mut prompt, mut text) = (vec![], vec![], vec![], String::new());
    for event in engine.generate(sequence, request)? {
        match event? {
            Event::Prefill { logprobs, .. } => prompt.extend(logprobs),
            Event::Token { id, text: piece, logprob, top_logprobs } => {
                tokens.push(id);
                logprobs.push((logprob, top_logprobs.iter().map(|top| (top.token, top.logprob)).collect()));
                text += &piece;
            }
            Event::Done(outcome) => {
                text += &outcome.text;
                return Ok(Told { tokens, logprobs, prompt, text, outcome });
            }
            _ => {}
        }
    }
    panic!("no end");
}

fn run(engine: &mut Engine, request: GenerateRequest) -> Result<Told, Error> {
    let mut sequence = engine.sequence();
    run_on(engine, &mut sequence, request)
}

/// A request that samples freely.
fn freely(prompt: Vec<u32>, max_tokens: usize) -> GenerateRequest {
    let sampling = SamplingOptions { temperature: 1.0, seed: 11, ..SamplingOptions::default() };
    GenerateRequest { prompt, sampling, max_tokens, ..GenerateRequest::default() }
}

/// Log-probabilities of a row of logits, in float64, and the tokens by likelihood.
fn log_softmax(logits: &[f32]) -> (Vec<f64>, Vec<u32>) {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    let logprobs: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - max) - sum.ln()).collect();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    (logprobs, order)
}

fn check_logprobs(logits: &[f32], token: u32, logprob: f32, top: &[(u32, f32)], n: usize) {
    let (expected, order) = log_softmax(logits);
    assert!((f64::from(logprob) - expected[token as usize]).abs() < 1e-4, "{logprob}");
    assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), order[..n]);
    for (token, logprob) in top {
        assert!((f64::from(*logprob) - expected[*token as usize]).abs() < 1e-4);
    }
}

#[test]
fn logprobs_are_of_the_model_whatever_is_sampled() {
    let mut engine = engine(None);
    let prompt = prompt(&engine, "What is 63 - 28?", false);
    let mut request = freely(prompt.clone(), 12);
    request.sampling.top_k = 3;
    request.sampling.repetition_penalty = 1.5;
    request.logprobs = Some(5);
    request.ignore_eos = true;
    let told = run(&mut engine, request).unwrap();
    assert_eq!(told.tokens.len(), 12);

    let mut sequence = engine.sequence();
    let all = [prompt.as_slice(), told.tokens.as_slice()].concat();
    let logits = engine.eval_all(&mut sequence, &all).unwrap();
    let rows: Vec<&[f32]> = logits.chunks_exact(engine.model().vocab_size()).collect();
    for (index, (&token, (logprob, top))) in told.tokens.iter().zip(&told.logprobs).enumerate() {
        check_logprobs(rows[prompt.len() - 1 + index], token, *logprob, top, 5);
    }
}

#[test]
fn prompt_logprobs_are_of_the_model_for_any_chunk() {
    let mut whole = engine(None);
    let prompt = prompt(&whole, "Name the opposite of empty.", false);
    let request = GenerateRequest { prompt_logprobs: Some(2), ..freely(prompt.clone(), 0) };
    let told = run(&mut whole, request.clone()).unwrap();
    assert_eq!((told.outcome.stop, told.outcome.completion_tokens), (StopReason::MaxTokens, 0));
    assert_eq!(told.prompt.iter().map(|told| told.token).collect::<Vec<_>>(), prompt);
    assert_eq!((told.prompt[0].logprob, told.prompt[0].top_logprobs.len()), (None, 0));
    let mut sequence = whole.sequence();
    let logits = whole.eval_all(&mut sequence, &prompt).unwrap();
    for (told, logits) in told.prompt[1..].iter().zip(logits.chunks_exact(whole.model().vocab_size())) {
        let top: Vec<(u32, f32)> = told.top_logprobs.iter().map(|top| (top.token, top.logprob)).collect();
        check_logprobs(logits, told.token, told.logprob.unwrap(), &top, 2);
    }
    for chunk in [1, 3, prompt.len() - 1, prompt.len()] {
        let again = run(&mut engine(Some(chunk)), request.clone()).unwrap();
        assert!(again.prompt == told.prompt, "chunks of {chunk}");
    }
    // With a completion, and on a sequence that has tokens already.
    let mut sequence = whole.sequence();
    whole.eval(&mut sequence, &prompt[..4]).unwrap();
    let rest = GenerateRequest { prompt: prompt[4..].to_vec(), max_tokens: 3, ..request };
    let again = run_on(&mut whole, &mut sequence, rest).unwrap();
    assert_eq!(again.prompt[0].logprob, None);
    assert_eq!(again.prompt[1..], told.prompt[5..]);
    assert_eq!(again.tokens.len(), 3);
}

#[test]
fn lengths_are_kept() {
    let mut engine = engine(None);
    let prompt = prompt(&engine, "What is 63 - 28?", false);
    let greedily =
        |max_tokens| GenerateRequest { prompt: prompt.clone(), max_tokens, ..GenerateRequest::default() };
    let plain = run(&mut engine, greedily(100)).unwrap();
    assert_eq!(plain.text, "63 - 28 = 35.");
    let length = plain.outcome.completion_tokens;

    for max_tokens in [0, 1, 4] {
        let mut sequence = engine.sequence();
        let told = run_on(&mut engine, &mut sequence, greedily(max_tokens)).unwrap();
        assert_eq!(
            (told.tokens.as_slice(), told.outcome.stop),
            (&plain.tokens[..max_tokens], StopReason::MaxTokens)
        );
        // The last token is not read: it has no successor.
        assert_eq!(sequence.len(), prompt.len() + max_tokens.saturating_sub(1));
    }

    // It ends no sooner, not even at a stop string.
    for min_tokens in [length + 20, length, length - 1, 3] {
        let stop = vec!["2".to_owned()];
        let request = GenerateRequest { min_tokens, stop, ..greedily(100) };
        let told = run(&mut engine, request).unwrap();
        let eos = engine.model().tokenizer().eos_ids();
        assert!(told.tokens.iter().all(|token| !eos.contains(token)));
        assert!(told.outcome.completion_tokens > min_tokens, "{}: {:?}", told.text, told.outcome.stop);
    }
    let stopped = run(&mut engine, GenerateRequest { stop: vec!["- 2".into()], ..greedily(100) }).unwrap();
    assert_eq!((stopped.text.as_str(), stopped.outcome.stop), ("63 ", StopReason::StopString("- 2".into())));

    let told = run(&mut engine, GenerateRequest { ignore_eos: true, ..greedily(length + 30) }).unwrap();
    assert_eq!((told.outcome.completion_tokens, told.outcome.stop), (length + 30, StopReason::MaxTokens));
}

#[test]
fn samples_of_one_prompt_are_those_of_their_seeds() {
    let mut engine = engine(None);
    let prompt = prompt(&engine, "Tell me a story.", false);
    let mut request = freely(prompt.clone(), 24);
    request.sampling.presence_penalty = 0.5;
    request.sampling.repetition_penalty = 1.1;
    let (mut tokens, mut texts) = (vec![Vec::new(); 4], vec![String::new(); 4]);
    let sequence = engine.sequence();
    for event in engine.generate_samples(&sequence, request.clone(), 4).unwrap() {
        match event.unwrap() {
            (index, Event::Token { id, text, .. }) => {
                tokens[index].push(id);
                texts[index] += &text;
            }
            (index, Event::Done(outcome)) => texts[index] += &outcome.text,
            _ => {}
        }
    }
    assert!(sequence.is_empty(), "samples read copies");
    for (index, tokens) in (0..).zip(tokens) {
        let mut alone = request.clone();
        alone.sampling.seed += index;
        assert_eq!(tokens, run(&mut engine, alone).unwrap().tokens, "sample {index}");
    }
    texts.dedup();
    assert_eq!(texts.len(), 4);
}

/// A generation that was cut and goes on gives the tokens of one that was not.
#[test]
fn what_goes_on_repeats_what_was_not_cut() {
    let mut engine = engine(None);
    let schema = json!({
        "type": "array", "items": { "type": "string", "maxLength": 20 }, "minItems": 3, "maxItems": 5,
    });
    for (think, constraint) in [(false, None), (true, Some(Constraint::JsonSchema(schema)))] {
        let prompt = prompt(&engine, "Tell me a story.", think);
        let mut request = freely(prompt.clone(), 40);
        request.sampling = SamplingOptions {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            penalty_window: 12,
            dry_multiplier: 0.8,
            xtc_probability: 0.5,
            typical_p: 0.95,
            ..request.sampling
        };
        request.constraint = constraint;
        request.reasoning_budget = think.then_some(6);
        let whole = run(&mut engine, request.clone()).unwrap();
        assert!(whole.tokens.len() > 15, "{}", whole.text);
        for cut in [1, 5, 8, 14] {
            let mut sequence = engine.sequence();
            let first =
                run_on(&mut engine, &mut sequence, GenerateRequest { max_tokens: cut, ..request.clone() })
                    .unwrap();
            assert_eq!(first.tokens, whole.tokens[..cut]);
            // On the same sequence only the last token is new; on another one, all are.
            let mut goes_on = request.clone();
            goes_on.max_tokens -= cut;
            goes_on.continued = cut;
            goes_on.prompt = vec![first.tokens[cut - 1]];
            let here = run_on(&mut engine, &mut sequence, goes_on.clone()).unwrap();
            goes_on.prompt = [prompt.as_slice(), first.tokens.as_slice()].concat();
            let anew = run(&mut engine, goes_on).unwrap();
            assert_eq!(here.tokens, whole.tokens[cut..], "cut after {cut}");
            assert_eq!(anew.tokens, whole.tokens[cut..], "cut after {cut}");
            assert_eq!(here.outcome.stop, whole.outcome.stop);
        }
    }
}

#[test]
fn thoughts_end_with_their_budget() {
    let mut engine = engine(None);
    let close = engine.model().tokenizer().id("</think>").unwrap();
    let prompt = prompt(&engine, "What is 63 - 28?", true);
    let greedily = |reasoning_budget| GenerateRequest {
        prompt: prompt.clone(),
        max_tokens: 100,
        reasoning_budget,
        ..GenerateRequest::default()
    };
    let free = run(&mut engine, greedily(None)).unwrap();
    let thoughts = free.tokens.iter().position(|&token| token == close).unwrap();
    assert!(thoughts > 3);
    for budget in [0, 1, 3] {
        let told = run(&mut engine, greedily(Some(budget))).unwrap();
        assert_eq!(told.tokens[..budget], free.tokens[..budget]);
        assert_eq!(told.tokens[budget], close, "{}", told.text);
        // It goes on after that, and the token's probability is the model's.
        assert!(told.tokens.len() > budget + 1);
        assert!(told.logprobs[budget].0 < -0.1 && told.logprobs[budget].0.is_finite());
    }
    for budget in [thoughts, 1000] {
        assert_eq!(run(&mut engine, greedily(Some(budget))).unwrap().tokens, free.tokens);
    }

    let folder = copy_with(&data("mixtral/hf"), &json!({}));
    let path = folder.path().join("tokenizer.json");
    let tokenizer = std::fs::read_to_string(&path).unwrap().replace("think>", "muse>");
    std::fs::write(path, tokenizer).unwrap();
    let model = Model::open(folder.path(), &ModelOptions::default()).unwrap();
    let mut other = Engine::new(model, &EngineOptions::default()).unwrap();
    let request =
        GenerateRequest { prompt: vec![1], reasoning_budget: Some(3), ..GenerateRequest::default() };
    let error = run(&mut other, request).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Option { option: "reasoning_budget", .. }), "{error}");
}

#[test]
fn thoughts_in_a_channel_end_with_their_budget() {
    let folder = copy_with(&data("gpt_oss/hf"), &json!({}));
    let path = folder.path().join("tokenizer.json");
    let markers = [
        ("<think>", "<|channel|>"),
        ("<|video_pad|>", "analysis"),
        ("</think>", "<|message|>"),
        ("<|image_pad|>", "<|end|>"),
    ];
    let tokenizer = std::fs::read_to_string(&path).unwrap();
    let tokenizer = markers.iter().fold(tokenizer, |text, (from, to)| text.replace(from, to));
    std::fs::write(path, tokenizer).unwrap();
    let model = Model::open(folder.path(), &ModelOptions::default()).unwrap();
    let [channel, analysis, message, end] =
        ["<|channel|>", "analysis", "<|message|>", "<|end|>"].map(|text| model.tokenizer().id(text).unwrap());
    let mut engine = Engine::new(model, &EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap();
    let mut told = |prompt: &[u32], reasoning_budget| {
        let prompt = prompt.to_vec();
        let request = GenerateRequest {
            max_tokens: 8,
            ignore_eos: true,
            reasoning_budget,
            prompt,
            ..Default::default()
        };
        run(&mut engine, request).unwrap().tokens
    };
    let open = [1, channel, analysis, message];
    let free = told(&open, None);
    assert!(!free.contains(&end));
    for budget in [0, 1, 3] {
        let tokens = told(&open, Some(budget));
        assert_eq!((&tokens[..budget], tokens[budget]), (&free[..budget], end));
    }
    // Another channel is no thinking block.
    let answer = [1, channel, 5, message];
    assert_eq!(told(&answer, Some(0)), told(&answer, None));
}

#[test]
fn options_that_cannot_be_are_errors_that_name_them() {
    let mut engine = engine(None);
    let prompt = prompt(&engine, "Hello", false);
    let with = |change: fn(&mut GenerateRequest)| {
        let mut request = freely(prompt.clone(), 5);
        change(&mut request);
        request
    };
    for (request, name, value) in [
        (with(|request| request.logprobs = Some(21)), "logprobs", "21"),
        (with(|request| request.prompt_logprobs = Some(100)), "prompt_logprobs", "100"),
        (with(|request| request.min_tokens = 6), "min_tokens", "6 with max_tokens 5"),
        (with(|request| request.continued = 9999), "continued", "9999"),
    ] {
        let error = run(&mut engine, request).map(|_| ()).unwrap_err();
        let Error::Option { option, found, .. } = &error else { panic!("{error}") };
        assert_eq!((*option, found.as_str()), (name, value), "{error}");
    }
}
