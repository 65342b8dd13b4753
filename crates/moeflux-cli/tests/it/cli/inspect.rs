//! `moeflux inspect`.

use serde_json::Value;

use crate::cli::{Result, moeflux, root};

fn sum(list: &Value, field: &str) -> u64 {
    list.as_array().into_iter().flatten().filter_map(|entry| entry[field].as_u64()).sum()
}

#[test]
fn the_page_names_every_part() -> Result<()> {
    let finished = moeflux(&["inspect"])?;
    for line in [
        "family       qwen3_5_moe",
        "layers       6 linear_attention, 2 full_attention",
        "experts      32 a layer, 4 active",
        "parameters   48.52 M",
        "context      32768 tokens",
        "vocabulary   4096 tokens",
        "a sequence   4.10 MB for 1000 tokens of KV cache",
    ] {
        assert!(finished.text().contains(line), "{line:?} is not in\n{}", finished.stdout);
    }
    Ok(())
}

/// The numbers, counted by hand from the sizes in models/demo/config.json.
#[test]
fn numbers_add_up() -> Result<()> {
    let json = moeflux(&["inspect", "models/demo", "--json", "--tensors"])?.json()?;
    assert_eq!(json["parameters"]["total"], 48_518_320);
    let (hidden, expert) = (384, 3 * 384 * 128);
    let inactive = 8 * (32 - 4) * expert + (4096 - 1) * hidden;
    assert_eq!(json["parameters"]["active"], 48_518_320 - inactive);
    // 4 bits for a code, and a bf16 scale and bias for 64 of them.
    let expert_bytes = expert / 2 + expert / 64 * 4;
    assert_eq!(json["bytes_per_token"]["experts"], 8 * 4 * expert_bytes);
    // Two layers of one head with 256 channels each of keys and values; in six layers four heads of 128 × 128
    // and the last three inputs of a convolution over 1024 channels: float32.
    assert_eq!(json["sequence"]["kv_per_token"], 2 * 2 * 256 * 4);
    assert_eq!(json["sequence"]["recurrent"], 6 * (4 * 128 * 128 + 3 * 1024) * 4);

    assert_eq!(sum(&json["parts"], "parameters"), 48_518_320);
    assert_eq!(sum(&json["parts"], "bytes"), sum(&json["tensors"], "bytes"));
    assert_eq!(sum(&json["parts"], "tensors") as usize, json["tensors"].as_array().map_or(0, Vec::len));
    let file = std::fs::metadata(root().join("models/demo/model.safetensors"))?.len();
    assert_eq!(sum(&json["files"], "bytes"), file);
    Ok(())
}

#[test]
fn experts_hold_what_experts_take() -> Result<()> {
    let json = moeflux(&["inspect", "--json"])?.json()?;
    let experts = json["parts"].as_array().into_iter().flatten().find(|part| part["part"] == "experts");
    let bytes = experts.and_then(|part| part["bytes"].as_u64());
    assert_eq!(bytes.map(|bytes| bytes * 4 / 32), json["bytes_per_token"]["experts"].as_u64());
    Ok(())
}

#[test]
fn a_folder_without_a_model() -> Result<()> {
    moeflux(&["inspect", "crates"])?.fails_with(&["crates/config.json"]);
    Ok(())
}
