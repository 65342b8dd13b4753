//! Prints the public items that a rustdoc JSON file describes, one a line, without what every type has by itself.
#![allow(clippy::print_stdout, reason = "this is a command")]

use std::error::Error;

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("the argument is rustdoc's JSON of a library")?;
    let api = Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    print!("{api}");
    Ok(())
}
