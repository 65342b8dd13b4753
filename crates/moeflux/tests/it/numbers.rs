//! Fast numbers beside exact ones: what rounding activations costs, and that every instruction set rounds
//! alike. The choice of instruction set is the process's, so the tests take turns.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::common::{Reference, argmax, data, root};
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};
use moeflux_kernels::{InstructionSet, set_instruction_set};
use twox_hash::XxHash3_64;

static TURN: Mutex<()> = Mutex::new(());

fn engine(folder: &std::path::Path, precision: Precision) -> Engine {
    let model = Model::open(folder, &ModelOptions::default()).unwrap();
    Engine::new(model, &EngineOptions { precision, ..EngineOptions::default() }).unwrap()
}

/// Logits of all tokens, `[n, vocab_size]`, in windows of so many tokens.
fn logits(engine: &mut Engine, tokens: &[u32], window: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    for tokens in tokens.chunks(window) {
        let mut sequence = engine.sequence();
        logits.extend(engine.eval_all(&mut sequence, tokens).unwrap());
    }
    logits
}

/// Every checkpoint with a reference: its name, folder and reference.
fn cases() -> Vec<(String, PathBuf, PathBuf)> {
    let entries = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries(data(""))
        .filter(|family| family.is_dir())
        .flat_map(entries)
        .filter_map(|folder| {
            let name = folder.file_name()?.to_str()?.to_owned();
            let reference = folder.with_file_name(format!("ref_{name}.safetensors"));
            let family = folder.parent()?.file_name()?.to_str()?.to_owned();
            reference.exists().then_some((format!("{family}/{name}"), folder, reference))
        })
        .collect();
    cases.sort();
    cases
}

/// The prompts of a reference.
fn prompts(reference: &std::path::Path) -> Vec<Vec<u32>> {
    let reference = Reference::open(reference);
    (0..5).map(|prompt| reference.ints(&format!("p{prompt}.ids")).to_vec()).collect()
}

/// Where the best token leads by so much, it must nearly always stay the best.
const MARGINS: [f32; 4] = [0.1, 0.25, 0.5, 1.0];

/// Weights of most references are noise, which spreads an error instead of damping it, so that little becomes much: a
/// trained model loses less.
#[test]
fn clear_choices_stay() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cases = cases();
    assert!(cases.len() >= 20, "{cases:?}");
    println!("{:<28} {:>6}  agree of those that lead by {MARGINS:?}", "case", "tokens");
    let (mut totals, mut failures) = ([(0, 0); MARGINS.len()], Vec::new());
    for (name, folder, reference) in cases {
        let (mut exact, mut fast) = (engine(&folder, Precision::Exact), engine(&folder, Precision::Fast));
        let vocab_size = exact.model().vocab_size();
        let (mut tokens, mut counts) = (0, [(0, 0); MARGINS.len()]);
        for prompt in prompts(&reference) {
            let (exact, fast) = (logits(&mut exact, &prompt, 4096), logits(&mut fast, &prompt, 4096));
            tokens += prompt.len();
            for (exact, fast) in exact.chunks(vocab_size).zip(fast.chunks(vocab_size)) {
                let mut sorted = exact.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                for (margin, (agree, clear)) in MARGINS.iter().zip(&mut counts) {
                    if sorted[0] - sorted[1] > *margin {
                        *clear += 1;
                        *agree += usize::from(argmax(exact) == argmax(fast));
                    }
                }
            }
        }
        print!("{name:<28} {tokens:>6} ");
        for ((agree, clear), (all_agree, all_clear)) in counts.iter().zip(&mut totals) {
            print!(" {agree}/{clear}");
            *all_agree += agree;
            *all_clear += clear;
        }
        println!();
        let (agree, clear) = counts[0];
        if agree * 100 < clear * 99 {
            failures.push(format!("{name}: {agree} of {clear}"));
        }
    }
    println!("all: {totals:?}");
    assert!(failures.is_empty(), "{failures:?}");
    let (agree, clear) = totals[0];
    assert!(clear > 1000 && agree * 1000 >= clear * 998, "{agree} of {clear}");
}

#[test]
fn every_instruction_set_gives_the_same_logits() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = String::new();
    for (name, folder, reference) in cases() {
        let prompt = &prompts(&reference)[1];
        let mut engine = engine(&folder, Precision::Fast);
        let outputs: Vec<_> = InstructionSet::available()
            .map(|set| {
                set_instruction_set(set);
                let logits = logits(&mut engine, &prompt[..prompt.len().min(24)], 4096);
                (set, logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>())
            })
            .collect();
        for (set, output) in &outputs {
            assert!(*output == outputs[0].1, "{name}: {set:?} changes the logits");
        }
        let bytes: Vec<u8> = outputs[0].1.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        writeln!(found, "{name} {:016x}", XxHash3_64::oneshot(&bytes)).unwrap();
    }
    // Other processors have other instruction sets: what all of them give is kept.
    let kept = std::fs::read_to_string(data("fast_logits.xxh3")).unwrap();
    assert!(found == kept, "these logits are not those of other processors:\n{found}");
    set_instruction_set(InstructionSet::Amx);
}

#[test]
fn the_demo_loses_little() {
    const WINDOW: usize = 512;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = root().join("models/demo");
    let (mut exact, mut fast) = (engine(&folder, Precision::Exact), engine(&folder, Precision::Fast));
    let text = std::fs::read_to_string(data("heldout.txt")).unwrap();
    let tokens = exact.model().tokenizer().encode(&text).unwrap();
    let vocab_size = exact.model().vocab_size();
    // A part of the text: exact numbers take their time.
    let tokens = &tokens[..tokens.len().min(8192)];
    let (exact, fast) = (logits(&mut exact, tokens, WINDOW), logits(&mut fast, tokens, WINDOW));

    let (mut exact_nll, mut fast_nll, mut divergence, mut scored) = (0.0, 0.0, 0.0, 0);
    let (mut clear, mut agree) = (0, 0);
    let rows = exact.chunks(vocab_size).zip(fast.chunks(vocab_size)).enumerate();
    for (t, (exact, fast)) in rows {
        let (p, q) = (log_softmax(exact), log_softmax(fast));
        let best = argmax(exact) as usize;
        if exact.iter().enumerate().all(|(token, logit)| token == best || exact[best] - logit > MARGINS[0]) {
            clear += 1;
            agree += usize::from(argmax(fast) as usize == best);
        }
        divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        // The first token of a window is not foretold in it.
        if (t + 1) % WINDOW != 0 && t + 1 < tokens.len() {
            exact_nll -= p[tokens[t + 1] as usize];
            fast_nll -= q[tokens[t + 1] as usize];
            scored += 1;
        }
    }
    let (exact_nll, fast_nll) = (exact_nll / f64::from(scored), fast_nll / f64::from(scored));
    let divergence = divergence / tokens.len() as f64;
    let ratio = (fast_nll - exact_nll).exp();
    println!(
        "{scored} tokens: perplexity {:.5} exact, {:.5} fast; mean KL {divergence:.2e}",
        exact_nll.exp(),
        fast_nll.exp()
    );
    println!("{agree} of {clear} clear choices agree");
    assert!(scored > 500 && agree * 1000 >= clear * 999, "{scored} tokens, {agree} of {clear}");
    assert!((ratio - 1.0).abs() < 0.003, "perplexity changes by a factor of {ratio}");
    assert!(divergence < 1e-3, "{divergence}");
    assert!(divergence > 0.0, "fast numbers are the exact ones");
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f64::NEG_INFINITY, |max, &logit| max.max(f64::from(logit)));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - max - sum.ln()).collect()
}
