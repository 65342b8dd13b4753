//! Writes `tests/data` out, and recipes for new files in it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use moeflux_testing::recipe::Recipe;
use moeflux_testing::{Result, file, write};
use twox_hash::XxHash3_64;

const USAGE: &str = "\
cargo run --release -p moeflux-testing -- write FOLDER
    Copies tests/data to FOLDER, with the files written that recipes describe.

cargo run --release -p moeflux-testing -- compare FILE RECIPE
    Says which tensors of FILE are not what RECIPE makes of them. If there are none, stores the header and the checksum
    that RECIPE needs, so that FILE needs not be stored. A recipe's source is sought beside FILE.";

#[expect(clippy::print_stderr, reason = "it is a command")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments {
        ["write", folder] => write(Path::new(folder), ""),
        ["compare", file, recipe] => compare(Path::new(file), Path::new(recipe)),
        _ => Err(USAGE.to_owned()),
    };
    done.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn compare(file: &Path, recipe: &Path) -> Result<()> {
    let context = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = fs::read(file).map_err(|error| context(file, &error))?;
    let text = fs::read_to_string(recipe).map_err(|error| context(recipe, &error))?;
    let steps = Recipe::parse(&text)?;
    let source = steps.source(file)?;
    let (start, entries) = file::read(file, &bytes)?;
    let mut differences = Vec::new();
    for entry in &entries {
        let expected = &bytes[start + entry.bytes.start..start + entry.bytes.end];
        match steps.tensor(entry, source.as_ref()) {
            Ok(found) if found == expected => {}
            Ok(found) => {
                let count = found.iter().zip(expected).filter(|(a, b)| a != b).count();
                differences.push(format!("{}: {count} of {} bytes differ", entry.name, expected.len()));
            }
            Err(error) => differences.push(error),
        }
    }
    if !differences.is_empty() {
        return Err(differences.join("\n"));
    }
    let header = bytes[..start].to_vec();
    if steps.file(file, header.clone(), source.as_ref())? != bytes {
        return Err(context(file, &"its tensors can be made, but there is more in the file"));
    }
    let header_path = recipe.with_extension("header");
    fs::write(&header_path, header).map_err(|error| context(&header_path, &error))?;
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("xxh3 ")).collect();
    let text = format!("xxh3 {:016x}\n{}\n", XxHash3_64::oneshot(&bytes), rest.join("\n"));
    fs::write(recipe, text).map_err(|error| context(recipe, &error))
}
