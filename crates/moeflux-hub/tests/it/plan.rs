//! What a pull would take, asked before anything is downloaded.

use crate::{Bench, NEEDED, Result, noise, repository};
use moeflux_hub::Digest;

#[test]
fn only_what_is_needed() -> Result<()> {
    let bench = Bench::new()?;
    let plan = bench.plan("owner/model")?;
    let paths: Vec<_> = plan.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, NEEDED);
    let size: usize = repository(1)
        .iter()
        .filter(|(path, _)| NEEDED.contains(path))
        .map(|(_, content)| content.len())
        .sum();
    assert_eq!(plan.size(), size as u64);
    assert_eq!(plan.family.as_deref(), Some("some_family"));
    assert_eq!(plan.commit.len(), 40);
    let is_large = |path: &str| path.starts_with("model-") || path == "tokenizer.json";
    for file in &plan.files {
        let as_expected = match &file.digest {
            Some(Digest::Sha256(_)) => is_large(&file.path),
            Some(Digest::GitSha1(_)) => !is_large(&file.path),
            None => false,
        };
        assert!(as_expected, "{file:?}");
    }
    assert_eq!(bench.store().there(&plan), [0; 7]);
    assert!(!bench.store().root().exists(), "a plan writes nothing");
    Ok(())
}

#[test]
fn head_tells_what_the_list_does_not() -> Result<()> {
    let bench = Bench::new()?;
    let expected = bench.plan("owner/model")?;
    bench.server.state().without_blobs = true;
    bench.server.take_seen();
    assert_eq!(bench.plan("owner/model")?, expected);
    let heads = bench.server.take_seen().into_iter().filter(|seen| seen.line.starts_with("HEAD"));
    let to_cdn: Vec<bool> = heads.map(|seen| seen.to_cdn).collect();
    assert_eq!(to_cdn, [false; 7], "the hub says it, and not where it redirects to");
    Ok(())
}

#[test]
fn one_of_several_ggufs() -> Result<()> {
    let bench = Bench::new()?;
    let files = [
        ("Model-Q4_K_M.gguf", noise(1, 100)),
        ("Model-Q8_0.gguf", noise(2, 100)),
        ("BF16/Model-BF16-00001-of-00002.gguf", noise(3, 100)),
        ("BF16/Model-BF16-00002-of-00002.gguf", noise(4, 100)),
        ("mmproj-F16.gguf", noise(5, 100)),
        ("README.md", noise(6, 100)),
    ];
    bench.server.publish("owner/gguf", "main", &files);
    let message = bench.plan("owner/gguf").expect_err("which?").to_string();
    for piece in ["BF16/Model-BF16, Model-Q4_K_M, Model-Q8_0", "owner/gguf:BF16/Model-BF16"] {
        assert!(message.contains(piece), "{message}");
    }
    let plan = bench.plan("owner/gguf:q8_0")?;
    assert_eq!(plan.name.to_string(), "owner/gguf:Model-Q8_0");
    assert_eq!(plan.files.len(), 1);

    // Both are kept, beside each other.
    bench.pull("owner/gguf:q8_0")?;
    bench.pull("owner/gguf:BF16")?;
    assert_eq!(std::fs::read(bench.open("gguf:Q8_0")?.join("Model-Q8_0.gguf"))?, noise(2, 100));
    let parts = bench.open("GGUF:bf16")?;
    assert_eq!(std::fs::read(parts.join("Model-BF16-00002-of-00002.gguf"))?, noise(4, 100));
    let message = bench.open("owner/gguf").expect_err("which?").to_string();
    assert!(message.contains("owner/gguf:BF16/Model-BF16, owner/gguf:Model-Q8_0"), "{message}");
    Ok(())
}

#[test]
fn a_shard_that_the_repository_lacks() -> Result<()> {
    let bench = Bench::new()?;
    let mut files = repository(1);
    files.retain(|(path, _)| *path != "model-00002-of-00002.safetensors");
    bench.server.publish("owner/model", "main", &files);
    let message = bench.plan("owner/model").expect_err("a shard is missing").to_string();
    assert!(message.contains("model.safetensors.index.json asks for \"model-00002-of-00002"), "{message}");
    Ok(())
}

#[test]
fn paths_out_of_the_folder() -> Result<()> {
    let bench = Bench::new()?;
    let mut files = repository(1);
    files.push(("../outside.safetensors", b"x".to_vec()));
    let index = files.iter_mut().find(|(path, _)| path.ends_with("index.json")).ok_or("an index")?;
    index.1 = br#"{"weight_map": {"a": "../outside.safetensors"}}"#.to_vec();
    bench.server.publish("owner/model", "main", &files);
    let message = bench.plan("owner/model").expect_err("a path out of the folder").to_string();
    assert!(message.contains("../outside.safetensors"), "{message}");
    Ok(())
}
