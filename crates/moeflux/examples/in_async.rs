//! Embeds the library in an async program: any runtime will do, here it is tokio's. Dropping a ticket cancels its request.
//!
//! `cargo run --release -p moeflux --example in_async [MODEL]`

#![allow(clippy::print_stdout)] // what an example is for

use std::error::Error;
use std::path::Path;

use moeflux::engine::{SchedulerOptions, SubmitOptions};
use moeflux::{
    Engine, EngineHandle, EngineOptions, Event, GenerateRequest, Model, ModelOptions, SamplingOptions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "models/demo".to_owned());
    // Opening reads files, which is no work for a runtime's thread.
    let opened = tokio::task::spawn_blocking(move || open(&folder)).await?;
    let handle = opened.map_err(|error| error.to_string())?;

    // The handle is cheap to clone and to send.
    let teller = tokio::spawn(tell(handle.clone(), "Once upon a time"));
    let tokens = handle.model().tokenizer().encode("A text to be compared with others.")?;
    let embedding = handle.embed(tokens, SubmitOptions::default())?.await?;
    println!("an embedding of {} numbers", embedding.values.len());
    println!("{}", teller.await?.map_err(|error| error.to_string())?);
    Ok(())
}

fn open(folder: &str) -> Result<EngineHandle, Box<dyn Error + Send + Sync>> {
    let model = Model::open(Path::new(folder), &ModelOptions::default())?;
    let engine = Engine::new(model, &EngineOptions::default())?;
    Ok(EngineHandle::start(engine, &SchedulerOptions::default())?)
}

/// The beginning and what follows, up to the first sentence's end.
async fn tell(handle: EngineHandle, beginning: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let tokenizer = handle.model().tokenizer();
    let (prompt, defaults) = (tokenizer.encode(beginning)?, tokenizer.generation_defaults());
    let sampling = SamplingOptions::recommended(defaults);
    let request = GenerateRequest { prompt, sampling, max_tokens: 40, ..GenerateRequest::default() };
    let mut ticket = handle.submit(request, SubmitOptions::default())?;
    let mut text = beginning.to_owned();
    while let Some(event) = ticket.recv().await {
        if let Event::Token { text: piece, .. } = event? {
            text += &piece;
        }
        if text.ends_with('.') {
            break;
        }
    }
    Ok(text)
}
