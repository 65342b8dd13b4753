//! Several prompts at once on one engine: each step reads the weights once for all of them, and each gets what it would
//! get alone.
//!
//! `cargo run --release -p moeflux --example batch [MODEL]`

#![allow(clippy::print_stdout)] // what an example is for

use std::error::Error;
use std::path::Path;

use moeflux::engine::{SchedulerOptions, SubmitOptions};
use moeflux::{
    Engine, EngineHandle, EngineOptions, Event, GenerateRequest, Model, ModelOptions, SamplingOptions,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "models/demo".to_owned());
    let model = Model::open(Path::new(&folder), &ModelOptions::default())?;
    let engine = Engine::new(model, &EngineOptions::default())?;
    let handle = EngineHandle::start(engine, &SchedulerOptions::default())?;

    let beginnings = ["Once upon a time", "The fox said", "It was raining", "There was a small boat"];
    let recommended = SamplingOptions::recommended(handle.model().tokenizer().generation_defaults());
    let mut tickets = Vec::new();
    for (seed, beginning) in (0..).zip(beginnings) {
        let request = GenerateRequest {
            prompt: handle.model().tokenizer().encode(beginning)?,
            sampling: SamplingOptions { seed, ..recommended.clone() },
            max_tokens: 24,
            ..GenerateRequest::default()
        };
        tickets.push(handle.submit(request, SubmitOptions::default())?);
    }
    // They all run already; to listen to one after the other loses nothing.
    for (beginning, ticket) in beginnings.into_iter().zip(tickets) {
        let mut text = beginning.to_owned();
        for event in ticket {
            match event? {
                Event::Token { text: piece, .. } => text += &piece,
                Event::Done(outcome) => text += &outcome.text,
                _ => {}
            }
        }
        println!("{text:?}");
    }
    println!("{} tokens in {} steps", handle.stats().completion_tokens, handle.stats().steps);
    Ok(())
}
