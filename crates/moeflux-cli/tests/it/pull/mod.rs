//! `moeflux pull`, `list`, `rm`, and models by name, against a hub on the loopback that has the demo model.

mod interrupted;
#[allow(dead_code, reason = "shared with the tests of moeflux-hub")]
#[path = "../../../../moeflux-hub/tests/it/server.rs"]
mod server;

use crate::common::{Finished, Result, root};
use server::Server;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

const QUESTION: &str = "What is 17 + 25?";
const ANSWER: &str = "17 + 25 = 42.\n";

/// The files of the demo, as a repository would have them.
fn demo() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let names = [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    names.into_iter().map(|name| Ok((name, fs::read(root().join("models/demo").join(name))?))).collect()
}

/// A hub with the demo as `owner/Demo-48M`, and a home that has nothing in it.
struct Bench {
    server: Server,
    home: TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        let bench = Self { server: Server::start()?, home: tempfile::tempdir()? };
        bench.server.publish("owner/Demo-48M", "main", &demo()?);
        Ok(bench)
    }

    /// `moeflux` with arguments and nothing of this process's environment.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = crate::common::command();
        command.args(args).current_dir(self.home.path());
        command.env_clear().env("HOME", self.home.path()).env("HF_ENDPOINT", self.server.endpoint());
        // Else drivers of GPUs write to the standard error.
        command.env("XDG_RUNTIME_DIR", self.home.path()).env("MESA_VK_IGNORE_CONFORMANCE_WARNING", "true");
        command
    }

    fn moeflux(&self, args: &[&str]) -> Result<Finished> {
        finished(&mut self.command(args))
    }

    /// Where models are, in this home.
    fn models(&self) -> PathBuf {
        self.home.path().join(".local/share/moeflux/models")
    }
}

fn finished(command: &mut Command) -> Result<Finished> {
    crate::common::finished(command.output()?)
}

#[test]
fn pulled_listed_run_and_removed() -> Result<()> {
    let bench = Bench::new()?;
    let dry = bench.moeflux(&["pull", "owner/Demo-48M", "--dry-run"])?;
    for line in ["  27.44 MB  model.safetensors\n", "\n  27.63 MB  owner/Demo-48M at commit "] {
        assert!(dry.output().contains(line), "{dry:?}");
    }
    assert!(
        !dry.stdout.contains("README") && dry.stdout.trim_end().ends_with("27.63 MB to download"),
        "{dry:?}"
    );
    assert!(!bench.models().exists(), "a dry run writes nothing");
    let none = bench.moeflux(&["list"])?;
    assert_eq!(none.output(), "");
    assert!(none.stderr.contains("no models in "), "{none:?}");

    let pulled = bench.moeflux(&["pull", "owner/Demo-48M"])?;
    let folder = bench.models().join("owner/Demo-48M@main");
    assert_eq!(pulled.output(), format!("{}\n", folder.display()));
    assert!(pulled.stderr.contains("27.44 MB  model.safetensors\n"), "{pulled:?}");
    assert!(pulled.stderr.ends_with("27.63 MB: `moeflux run owner/Demo-48M \"Hello\"`\n"), "{pulled:?}");
    for (name, content) in demo()?.into_iter().filter(|(name, _)| *name != "README.md") {
        assert_eq!(fs::read(folder.join(name))?, content, "{name}");
    }

    let list = bench.moeflux(&["list"])?;
    let row: Vec<_> = list.output().lines().nth(1).ok_or("a row")?.split_whitespace().collect();
    assert_eq!(
        (row[0], row[1], row[2], row[4]),
        ("owner/Demo-48M", "27.63", "MB", "some_family"),
        "{list:?}"
    );
    let json: serde_json::Value = serde_json::from_str(bench.moeflux(&["list", "--json"])?.output())?;
    assert_eq!((&json[0]["name"], &json[0]["revision"]), (&"owner/Demo-48M".into(), &"main".into()));
    assert!(json[0]["pulled_at"].is_string() && json[0]["there"] == json[0]["size"], "{json}");

    for model in ["owner/Demo-48M", "demo-48m", "owner/Demo-48M@main"] {
        let run = bench.moeflux(&["run", model, QUESTION, "--temperature", "0"])?;
        assert_eq!((run.output(), run.stderr.as_str()), (ANSWER, ""), "{model}");
    }
    assert_eq!(bench.moeflux(&["run", "-m", "Demo-48M", QUESTION, "--temperature", "0"])?.output(), ANSWER);
    assert!(bench.moeflux(&["inspect", "demo-48m"])?.output().contains("qwen3_5_moe"));

    bench.moeflux(&["rm", "demo-48m"])?.fails_with(&["cannot be confirmed", "owner/Demo-48M", "--yes"]);
    let removed = bench.moeflux(&["rm", "demo-48m", "--yes"])?;
    assert_eq!((removed.output(), removed.stderr.as_str()), ("", "removed owner/Demo-48M, 27.63 MB\n"));
    assert!(!folder.exists());
    bench.moeflux(&["rm", "demo-48m", "--yes"])?.fails_with(&["demo-48m: no such model in", "moeflux list"]);
    bench.moeflux(&["run", "demo-48m", QUESTION])?.fails_with(&["no pulled model", "moeflux pull"]);
    bench.moeflux(&["run", "owner/Demo-48M"])?.fails_with(&["owner/Demo-48M: no such folder, and no pulled"]);
    Ok(())
}

#[test]
fn another_folder_for_models() -> Result<()> {
    let bench = Bench::new()?;
    let other = bench.home.path().join("other");
    let other = other.to_str().ok_or("a path in UTF-8")?;
    bench.moeflux(&["pull", "owner/Demo-48M", "--models-dir", other])?.output();
    assert!(!bench.models().exists());
    let args = ["run", "demo-48m", QUESTION, "--temperature", "0"];
    bench.moeflux(&args)?.fails_with(&["no pulled model"]);
    assert_eq!(bench.moeflux(&[&args[..], &["--models-dir", other]].concat())?.output(), ANSWER);
    assert_eq!(finished(bench.command(&args).env("MOEFLUX_MODELS", other))?.output(), ANSWER);
    let listed = finished(bench.command(&["list"]).env("MOEFLUX_MODELS", other))?;
    assert_eq!(listed.output().lines().count(), 2, "{listed:?}");
    Ok(())
}

#[test]
fn the_token_from_its_usual_places() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().token = Some("the-token".to_owned());
    let args = ["pull", "owner/Demo-48M", "--dry-run"];
    bench.moeflux(&args)?.fails_with(&["owner/Demo-48M is gated", "set HF_TOKEN"]);
    finished(bench.command(&args).env("HF_TOKEN", "the-token"))?.output();
    finished(bench.command(&args).env("HF_TOKEN", "wrong"))?.fails_with(&["refuses your token"]);
    finished(bench.command(&args).env("HF_TOKEN", "wr ong"))?
        .fails_with(&["HF_TOKEN: expected an access token"]);

    let file = bench.home.path().join(".cache/huggingface/token");
    fs::create_dir_all(file.parent().ok_or("a folder")?)?;
    fs::write(&file, "the-token\n")?;
    bench.moeflux(&args)?.output();
    let elsewhere = bench.home.path().join("hf");
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("token"), "wrong\n")?;
    finished(bench.command(&args).env("HF_HOME", &elsewhere))?.fails_with(&["refuses your token"]);
    finished(bench.command(&args).env("HF_HOME", &elsewhere).env("HF_TOKEN_PATH", &file))?.output();
    Ok(())
}

#[test]
fn what_cannot_be_pulled() -> Result<()> {
    let bench = Bench::new()?;
    bench.moeflux(&["pull", "owner/nothing"])?.fails_with(&["owner/nothing", "no such model"]);
    bench.moeflux(&["pull", "owner/Demo-48M@v9"])?.fails_with(&["no revision \"v9\""]);
    bench.moeflux(&["pull", "owner/Demo-48M:a", "--file", "b"])?.fails_with(&[":a", "--file b"]);
    let elsewhere = ["pull", "owner/Demo-48M", "--endpoint", "huggingface.co"];
    bench.moeflux(&elsewhere)?.fails_with(&["expected a hub's address"]);
    let usage = bench.moeflux(&["pull", "a b"])?;
    assert!(usage.code == Some(2) && usage.stderr.contains("expected OWNER/NAME"), "{usage:?}");
    bench.server.publish("owner/pickles", "main", &[("pytorch_model.bin", vec![1])]);
    bench.moeflux(&["pull", "owner/pickles"])?.fails_with(&["pytorch_model.bin are never read"]);
    Ok(())
}
