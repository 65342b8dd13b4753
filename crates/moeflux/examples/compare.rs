//! Compares two ways of computing the same: exact and fast numbers, token by token of a text.
//!
//! `cargo run --release -p moeflux --example compare [MODEL] [TEXT]`

#![allow(clippy::print_stdout)] // what an example is for

use std::error::Error;
use std::path::Path;

use moeflux::sampling::LogSoftmax;
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "models/demo".to_owned());
    let text =
        args.next().unwrap_or_else(|| "Once upon a time there was a fox who lived in a wood.".to_owned());

    let open = |precision| -> Result<Engine, Box<dyn Error>> {
        let model = Model::open(Path::new(&folder), &ModelOptions::default())?;
        Ok(Engine::new(model, &EngineOptions { precision, ..EngineOptions::default() })?)
    };
    let (mut exact, mut fast) = (open(Precision::Exact)?, open(Precision::Fast)?);
    let tokens = exact.model().tokenizer().encode(&text)?;
    let vocab_size = exact.model().vocab_size();
    let (exact, fast) = (logits(&mut exact, &tokens)?, logits(&mut fast, &tokens)?);

    println!("of the token after each: log-probability exact, fast; largest difference of a logit");
    let rows = exact.chunks_exact(vocab_size).zip(fast.chunks_exact(vocab_size));
    for ((exact, fast), &next) in rows.zip(&tokens[1..]) {
        let largest = exact.iter().zip(fast).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let [exact, fast] = [LogSoftmax::new(exact)?, LogSoftmax::new(fast)?].map(|model| model.of(next));
        println!("{next:>6} {exact:>9.4} {fast:>9.4} {largest:>9.1e}");
    }
    Ok(())
}

/// Of every token, `[n, vocab_size]`.
fn logits(engine: &mut Engine, tokens: &[u32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut sequence = engine.sequence();
    Ok(engine.eval_all(&mut sequence, tokens)?)
}
