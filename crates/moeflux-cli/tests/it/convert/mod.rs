//! `moeflux convert`, `verify` and `bench make-model`, as a user sees them.

mod interrupted;

use crate::common::{Finished, Result};
use moeflux::backend::{Data, Observer};
use moeflux::engine::{Input, Outputs};
use moeflux::graph::TensorInfo;
use moeflux::{Engine, EngineOptions, Model, ModelOptions};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The folder `tests/data/qwen3_5_moe/hf`.
fn hf() -> String {
    moeflux_testing::data(env!("CARGO_TARGET_TMPDIR"), "qwen3_5_moe/hf").display().to_string()
}

/// A folder for what commands make.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        Ok(Bench { folder: tempfile::tempdir()? })
    }

    /// A path in the folder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `moeflux`, in the root of the repository; `@` in front of an argument is the folder.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = crate::common::command();
        for arg in args {
            match arg.strip_prefix('@') {
                Some(name) => command.arg(self.path(name)),
                None => command.arg(arg),
            };
        }
        command
    }

    fn moeflux(&self, args: &[&str]) -> Result<Finished> {
        crate::common::finished(self.command(args).output()?)
    }
}

/// All files under a folder.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        } else {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    let relative = |(path, bytes): (PathBuf, Vec<u8>)| {
        (path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path), bytes)
    };
    Ok(found.into_iter().map(relative).collect())
}

#[test]
fn converted_verified_and_run() -> Result<()> {
    let bench = Bench::new()?;
    let dry = bench.moeflux(&["convert", &hf(), "@pack", "--bits", "4", "--dry-run"])?;
    assert!(dry.notes().contains("linear maps  bf16 → affine4g64-bf16"), "{dry:?}");
    assert!(dry.notes().contains("linear maps  bf16 → affine8g64-bf16"), "{dry:?}");
    assert!(fs::read_dir(bench.folder.path())?.next().is_none(), "a dry run left something");

    let made = bench.moeflux(&["convert", &hf(), "@pack", "--bits", "4"])?;
    assert!(made.notes().contains("made ") && made.notes().contains("/s"), "{made:?}");
    assert!(!bench.path("pack.partial").exists());
    let again = bench.moeflux(&["convert", &hf(), "@pack", "--bits", "4"])?;
    assert!(again.notes().contains("exists already"), "{again:?}");

    let verified = bench.moeflux(&["verify", "@pack", "--against", &hf(), "--tensors"])?;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    for line in ["all checksums match", "bf16               affine4g64-bf16", "layers.0.mlp.experts.down"] {
        assert!(verified.stdout.contains(line), "{verified:?}");
    }
    let run =
        bench.moeflux(&["run", "-m", "@pack", "--raw", "the", "--max-tokens", "4", "--temperature", "0"])?;
    assert_eq!(run.code, Some(0), "{run:?}");
    let inspected = bench.moeflux(&["inspect", "@pack"])?;
    assert!(inspected.stdout.contains("moeflux pack, made from Hugging Face safetensors"), "{inspected:?}");
    assert!(inspected.stdout.contains("layer_01.bin"), "{inspected:?}");
    Ok(())
}

#[test]
fn a_damaged_pack_is_told() -> Result<()> {
    let bench = Bench::new()?;
    bench.moeflux(&["convert", &hf(), "@pack"])?.notes();
    let path = bench.path("pack/experts/layer_02.bin");
    let mut bytes = fs::read(&path)?;
    bytes[5] ^= 1;
    fs::write(&path, bytes)?;
    let found = bench.moeflux(&["verify", "@pack"])?;
    found.exits(1, &["damaged: ", "layer_02.bin", "expert 0", "at byte 0", "one part is damaged"]);
    assert_eq!(found.stdout, "");
    Ok(())
}

#[test]
fn what_cannot_be_done_is_told() -> Result<()> {
    let bench = Bench::new()?;
    let convert = |args: &[&str]| bench.moeflux(&[&["convert", &hf(), "@pack"], args].concat());
    convert(&["--bits", "7"])?.exits(2, &["--bits", "mxfp4"]);
    convert(&["--group", "48"])?.exits(1, &["--group", "32, 64 or 128", "48"]);
    convert(&["--recipe", "exports=4"])?.exits(1, &["exports=4", "one of all, experts"]);
    convert(&["--recipe", "experts=9"])?.exits(1, &["experts=9", "2, 3, 4, 5, 6 or 8"]);
    let whole = bench.moeflux(&["verify", &hf()])?;
    assert!(
        whole.text().contains("1 weight files with") && whole.text().contains("no hash is known"),
        "{whole:?}"
    );
    bench.moeflux(&["verify", &hf(), "--against", &hf()])?.exits(1, &["needs a pack"]);
    bench.moeflux(&["convert", "nowhere/at-all", "@pack"])?.exits(1, &["nowhere/at-all"]);

    fs::create_dir(bench.path("pack"))?;
    convert(&[])?.exits(1, &["exists already"]);
    fs::remove_dir(bench.path("pack"))?;
    fs::create_dir(bench.path("pack.partial"))?;
    fs::write(bench.path("pack.partial/precious"), "")?;
    convert(&[])?.exits(1, &["pack.partial", "found other files"]);
    assert!(bench.path("pack.partial/precious").exists());
    Ok(())
}

/// Counts how often each expert is chosen.
#[derive(Default)]
struct Choices(BTreeMap<u32, usize>);

impl Observer for Choices {
    fn wrote(&mut self, tensor: &TensorInfo, data: Data<'_>) {
        if let (true, Data::U32(experts)) = (tensor.label.ends_with("router_indices"), data) {
            for expert in experts {
                *self.0.entry(*expert).or_default() += 1;
            }
        }
    }
}

impl Choices {
    /// The share of visits that the eight most visited of 32 experts get.
    fn share(&self) -> f64 {
        let mut counts: Vec<usize> = self.0.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.iter().take(8).sum::<usize>() as f64 / counts.iter().sum::<usize>() as f64
    }
}

#[test]
fn made_models_run_and_are_skewed_as_asked() -> Result<()> {
    let bench = Bench::new()?;
    let make = |name: &str, args: &[&str]| {
        bench.moeflux(&[&["bench", "make-model", name, "--shape", "demo", "--layers", "4"], args].concat())
    };
    let mut shares = Vec::new();
    for (name, args) in [("even", &["--router-skew", "0"][..]), ("skewed", &["--router-skew", "1"])] {
        make(&format!("@{name}"), args)?.notes();
        let model = Model::open(bench.path(name), &ModelOptions::default())?;
        let mut engine = Engine::new(model, &EngineOptions::default())?;
        let mut sequence = engine.sequence();
        let tokens: Vec<u32> = (0..256).map(|i| i * 13 % 4096).collect();
        let input =
            Input { sequence: &mut sequence, tokens: &tokens, positions: None, outputs: Outputs::All };
        let mut choices = Choices::default();
        let logits = engine.step(&mut [input], Some(&mut choices))?;
        assert!(logits.iter().all(|logit| logit.is_finite() && logit.abs() < 100.0));
        shares.push(choices.share());
    }
    // A quarter of the experts would get a quarter of the visits, if all were alike.
    assert!(shares[0] < 0.35 && shares[1] > shares[0] + 0.1, "{shares:?}");

    make("@again", &["--router-skew", "1"])?.notes();
    assert!(
        contents(&bench.path("again"))? == contents(&bench.path("skewed"))?,
        "another result of the same seed"
    );
    make("@other", &["--router-skew", "1", "--seed", "1"])?.notes();
    assert!(contents(&bench.path("other"))? != contents(&bench.path("skewed"))?);
    make("@pack", &["--router-skew", "1", "--pack"])?.notes();
    bench
        .moeflux(&["verify", "@pack", "--against", "@skewed"])
        .map(|found| assert_eq!(found.code, Some(0), "{found:?}"))?;
    make("@pack", &[])?.exits(1, &["exists already"]);
    Ok(())
}
