//! Pulling from a hub that behaves, and from one that does not.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says by failing what went wrong")]

mod failures;
mod plan;
mod pull;
mod server;
mod store;

use moeflux_hub::{Hub, HubOptions, Model, ModelName, Plan, Store};
use server::Server;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes that follow no pattern a fault could hide in.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A small model with two shards, and what a repository has beside it.
fn repository(seed: u8) -> Vec<(&'static str, Vec<u8>)> {
    let index = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}"#;
    vec![
        ("README.md", b"read me".to_vec()),
        ("config.json", br#"{"model_type": "some_family"}"#.to_vec()),
        ("consolidated.safetensors", noise(90, 5000)),
        ("generation_config.json", b"{}".to_vec()),
        ("model-00001-of-00002.safetensors", noise(seed, 3_000_000)),
        ("model-00002-of-00002.safetensors", noise(2, 1_000_000)),
        ("model.safetensors.index.json", index.to_vec()),
        ("original/model.safetensors", noise(91, 5000)),
        ("pytorch_model.bin", noise(92, 5000)),
        ("tokenizer.json", noise(3, 20_000)),
        ("tokenizer_config.json", b"{}".to_vec()),
    ]
}

/// The files of it that a model needs.
const NEEDED: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

const SHARD: &str = "model-00001-of-00002.safetensors";

/// A server with the small model as `owner/model`, and an empty store.
struct Bench {
    server: Server,
    folder: TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        let bench = Self { server: Server::start()?, folder: tempfile::tempdir()? };
        bench.server.publish("owner/model", "main", &repository(1));
        Ok(bench)
    }

    fn store(&self) -> Store {
        Store::new(self.folder.path().join("models"))
    }

    fn hub(&self) -> Result<Hub> {
        self.hub_with(|_| {})
    }

    /// A hub without patience.
    fn hub_with(&self, change: impl FnOnce(&mut HubOptions)) -> Result<Hub> {
        let mut options = HubOptions {
            endpoint: self.server.endpoint().to_owned(),
            timeout: Duration::from_millis(500),
            retries: 3,
            backoff: Duration::from_millis(1),
            ..HubOptions::default()
        };
        change(&mut options);
        Ok(Hub::new(options)?)
    }

    fn plan(&self, name: &str) -> Result<Plan> {
        Ok(self.hub()?.plan(&name.parse()?)?)
    }

    fn pull(&self, name: &str) -> std::result::Result<Model, moeflux_hub::Error> {
        let hub = self.hub().expect("a hub");
        let plan = hub.plan(&name.parse::<ModelName>()?)?;
        self.store().pull(&hub, &plan, &|_| {})
    }

    /// The folder of a complete model, by the name somebody would type.
    fn open(&self, name: &str) -> Result<std::path::PathBuf> {
        Ok(self.store().find(name)?.ok_or("no such model")?.open_folder()?)
    }

    /// Where parts of `owner/model` are.
    fn staged(&self, file: &str) -> std::path::PathBuf {
        self.store().root().join(".partial/owner/model@main").join(file)
    }
}

/// That a folder has just the needed files of a repository, and the list of them.
#[track_caller]
fn assert_holds(folder: &Path, repository: &[(&str, Vec<u8>)]) {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let mut expected: Vec<&str> = NEEDED.to_vec();
    expected.push("pulled.json");
    expected.sort_unstable();
    assert_eq!(names, expected);
    for name in NEEDED {
        let content = repository.iter().find(|(path, _)| *path == name).map(|(_, content)| content);
        let found = fs::read(folder.join(name)).expect("a file");
        assert!(content == Some(&found), "{name} has other bytes than the repository");
    }
}
