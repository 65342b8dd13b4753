//! Configs as they are published: small doubles with the fields and values of the originals, sizes cut. Each opens, or one
//! thing is named that is not supported; `docs/reference/models.md` has the table.

use crate::fixture::{data, repository};
use moeflux_checkpoint::{Checkpoint, OpenOptions};
use serde_json::Value;

/// What opening a folder with this config and no weights comes to: "opens", or what is not supported.
fn outcome(published: &Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (field, file) in [("config", "config.json"), ("hf_quant_config", "hf_quant_config.json")] {
        if let Some(content) = published.get(field) {
            std::fs::write(folder.path().join(file), content.to_string()).unwrap();
        }
    }
    let error = Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap_err();
    // The config is read first: the weights are what is missing then.
    if matches!(error, moeflux_checkpoint::Error::WeightFiles { .. }) {
        return "opens".to_owned();
    }
    let message = error.to_string();
    let message = message.split_once("config.json: ").map_or(message.as_str(), |(_, message)| message);
    match message.split_once(": expected ") {
        Some((field, rest)) => {
            let found = rest.rsplit_once("found ").map_or(rest, |(_, found)| found);
            format!("{field}: {found} is not supported")
        }
        None => message.to_owned(),
    }
}

/// To renew the table, copy what this prints.
#[test]
fn configs_open_or_name_what_is_not_supported() {
    let published = std::fs::read(data("published_configs.json")).unwrap();
    let published: serde_json::Map<String, Value> = serde_json::from_slice(&published).unwrap();
    let documented = std::fs::read_to_string(repository().join("docs/reference/models.md")).unwrap();
    let mut missing = Vec::new();
    println!("| config | family | |\n|---|---|---|");
    for (name, published) in &published {
        let family = published["config"]["model_type"].as_str().unwrap();
        let row = format!("| {name} | {family} | {} |", outcome(published));
        println!("{row}");
        if !documented.lines().any(|line| line == row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "not in docs/reference/models.md:\n{}", missing.join("\n"));
}
