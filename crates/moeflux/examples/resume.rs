//! Saves a sequence to a file and goes on from there, as a later run of the program would: what was read is not read again,
//! and the text is the same as without the break.
//!
//! `cargo run --release -p moeflux --example resume [MODEL]`

#![allow(clippy::print_stdout)] // what an example is for

use std::error::Error;
use std::path::Path;

use moeflux::sequence::snapshot::SnapshotOptions;
use moeflux::{Engine, EngineOptions, Event, GenerateRequest, Model, ModelOptions, Sequence};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "models/demo".to_owned());
    let path = std::env::temp_dir().join(format!("moeflux-resume-{}.snapshot", std::process::id()));

    let mut engine = open(&folder)?;
    let prompt = engine.model().tokenizer().encode("Once upon a time there was a fox who")?;
    let mut sequence = engine.sequence();
    engine.eval(&mut sequence, &prompt[..prompt.len() - 1])?;
    engine.save(&sequence, &path, &SnapshotOptions::default())?;
    let last = prompt[prompt.len() - 1];
    let without_break = go_on(&mut engine, &mut sequence, last)?;
    drop(engine);

    let mut engine = open(&folder)?;
    let mut sequence = engine.load(&path)?.sequence;
    std::fs::remove_file(&path)?;
    println!("{} tokens are back", sequence.len());
    let text = go_on(&mut engine, &mut sequence, last)?;
    println!("{text}");
    if text != without_break {
        return Err("the text differs from that without the break".into());
    }
    Ok(())
}

fn open(folder: &str) -> Result<Engine, Box<dyn Error>> {
    let model = Model::open(Path::new(folder), &ModelOptions::default())?;
    Ok(Engine::new(model, &EngineOptions::default())?)
}

fn go_on(engine: &mut Engine, sequence: &mut Sequence, token: u32) -> Result<String, Box<dyn Error>> {
    let request = GenerateRequest { prompt: vec![token], max_tokens: 24, ..GenerateRequest::default() };
    let mut text = String::new();
    for event in engine.generate(sequence, request)? {
        match event? {
            Event::Token { text: piece, .. } => text += &piece,
            Event::Done(outcome) => text += &outcome.text,
            _ => {}
        }
    }
    Ok(text)
}
