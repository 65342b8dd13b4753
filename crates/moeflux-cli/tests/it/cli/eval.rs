//! `moeflux eval`.

use std::fs;

use crate::cli::{Result, moeflux, root};

/// What `transformers` finds in float32 for the dequantised weights: `perplexity.py demo-float32
/// tests/data/heldout.txt --documents 10 --window 512` (tools/demo-model/README.md).
const MEAN_NLL: f64 = 0.378_215;

#[test]
fn perplexity_is_that_of_transformers() -> Result<()> {
    let text = fs::read_to_string(root().join("tests/data/heldout.txt"))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("text.txt");
    fs::write(&file, text.split_inclusive("<|endoftext|>").take(10).collect::<String>())?;
    let file = file.to_str().ok_or("a path in UTF-8")?;

    let json =
        moeflux(&["eval", "models/demo", file, "--window", "512", "--numbers", "exact", "--json"])?.json()?;
    assert_eq!((&json["tokens"], &json["scored"]), (&862.into(), &861.into()));
    let mean_nll = json["mean_nll"].as_f64().ok_or("a number")?;
    assert!((mean_nll - MEAN_NLL).abs() < 1e-5, "expected {MEAN_NLL}, found {mean_nll}");
    let perplexity = json["perplexity"].as_f64().ok_or("a number")?;
    assert!((perplexity - mean_nll.exp()).abs() < 1e-9, "{json}");
    Ok(())
}

#[test]
fn what_cannot_be_scored() -> Result<()> {
    let text = "tests/data/heldout.txt";
    moeflux(&["eval", text, "--window", "1"])?.fails_with(&["--window", "2 to 32768", "found 1"]);
    moeflux(&["eval", text, "--window", "32769"])?.fails_with(&["--window", "found 32769"]);
    moeflux(&["eval", text, "--window", "8", "--stride", "9"])?
        .fails_with(&["--stride", "1 to 8", "found 9"]);
    moeflux(&["eval", text, "--stride", "0"])?.fails_with(&["--stride", "found 0"]);
    moeflux(&["eval", "no-such-text"])?.fails_with(&["no-such-text"]);
    moeflux(&["eval", "models/demo/model.safetensors"])?.fails_with(&["model.safetensors", "UTF-8"]);
    let folder = tempfile::tempdir()?;
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "")?;
    moeflux(&["eval", empty.to_str().ok_or("a path in UTF-8")?])?.fails_with(&[
        "empty.txt",
        "2 tokens",
        "found 0",
    ]);
    Ok(())
}
