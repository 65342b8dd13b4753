//! Counts the tokens of a text, and shows them. Only the tokenizer is read: no weights.
//!
//! `cargo run --release -p moeflux --example count_tokens [MODEL] [TEXT]`

#![allow(clippy::print_stdout)] // what an example is for

use std::error::Error;
use std::path::Path;

use moeflux::text::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "models/demo".to_owned());
    let text = args.next().unwrap_or_else(|| "Once upon a time there was a fox.".to_owned());

    let tokenizer = Tokenizer::open(Path::new(&folder))?;
    let tokens = tokenizer.encode(&text)?;
    println!("{} tokens", tokens.len());
    for &token in &tokens {
        println!("{token:>6} {:?}", tokenizer.decode(&[token], false)?);
    }
    Ok(())
}
