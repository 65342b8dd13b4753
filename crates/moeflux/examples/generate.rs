//! Asks one question and prints the answer as it comes.
//!
//! `cargo run --release -p moeflux --example generate [MODEL] [QUESTION]`

#![allow(clippy::print_stdout)] // what an example is for

use std::error::Error;
use std::io::Write;
use std::path::Path;

use moeflux::text::{ChatRequest, Message};
use moeflux::{Engine, EngineOptions, Event, GenerateRequest, Model, ModelOptions, SamplingOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "models/demo".to_owned());
    let question = args.next().unwrap_or_else(|| "What is 17 + 25?".to_owned());

    let model = Model::open(Path::new(&folder), &ModelOptions::default())?;
    let mut engine = Engine::new(model, &EngineOptions::default())?;
    let tokenizer = engine.model().tokenizer();
    let prompt = tokenizer.render_chat(&ChatRequest {
        messages: &[Message::new("user", &question)],
        add_generation_prompt: true,
        enable_thinking: Some(false),
        ..ChatRequest::default()
    })?;
    let prompt = tokenizer.encode(&prompt)?;
    // What the checkpoint recommends; another seed may give another answer.
    let sampling =
        SamplingOptions { seed: 7, ..SamplingOptions::recommended(tokenizer.generation_defaults()) };

    let mut sequence = engine.sequence();
    let request = GenerateRequest { prompt, sampling, max_tokens: 200, ..GenerateRequest::default() };
    for event in engine.generate(&mut sequence, request)? {
        match event? {
            Event::Token { text, .. } => print!("{text}"),
            Event::Done(outcome) => println!("{}", outcome.text),
            _ => {}
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
