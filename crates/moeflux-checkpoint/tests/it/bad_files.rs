//! Files that are missing, cut short or damaged.

use crate::fixture::{Fixture, SHARDS, assert_says, open, write_index};
use moeflux_checkpoint::Error;
use serde_json::{Value, json};
use std::path::Path;

/// A safetensors file with this header in front of `data` zeros.
fn raw(header: &Value, data: usize) -> Vec<u8> {
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

fn open_with_weights(weights: &[u8]) -> Error {
    let folder = Fixture::hub().write_config();
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    open(folder.path()).unwrap_err()
}

#[test]
fn no_folder_and_no_config() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [folder.path().to_owned(), folder.path().join("absent")] {
        let error = open(&folder).unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }), "{error}");
        assert_says(&error, &[folder.join("config.json").to_str().unwrap(), "not found"]);
    }
}

#[test]
fn folder_is_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(file.path()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_says(&error, &["config.json", "cannot be read"]);
}

#[test]
fn no_weights_or_several_without_index() {
    let folder = Fixture::hub().write_config();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::WeightFiles { .. }), "{error}");
    assert_says(&error, &[folder.path().to_str().unwrap(), "model.safetensors", "found none"]);
    for name in ["pytorch_model.bin", "qmodel.pt"] {
        std::fs::write(folder.path().join(name), "PK").unwrap();
    }
    let error = open(folder.path()).unwrap_err();
    assert_says(
        &error,
        &["found pytorch_model.bin, qmodel.pt, which are PyTorch's pickles", "save the model"],
    );

    for name in ["a.safetensors", "b.safetensors"] {
        std::fs::write(folder.path().join(name), Fixture::hub().weight_file()).unwrap();
    }
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::WeightFiles { .. }), "{error}");
    assert_says(&error, &["index.json", "found a.safetensors, b.safetensors"]);
}

#[test]
fn git_lfs_pointer() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    let error = open_with_weights(pointer.as_bytes());
    assert!(matches!(error, Error::LfsPointer { .. }), "{error}");
    assert_says(&error, &["model.safetensors", "git lfs pull"]);

    let folder = Fixture::hub().write();
    std::fs::write(folder.path().join("config.json"), pointer).unwrap();
    assert_says(&open(folder.path()).unwrap_err(), &["config.json", "git lfs pull"]);
}

#[test]
fn truncated_data() {
    let whole = Fixture::hub().weight_file();
    let error = open_with_weights(&whole[..whole.len() - 10]);
    assert!(matches!(error, Error::FileLength { .. }), "{error}");
    let (expected, found) =
        (format!("expected {} bytes", whole.len()), format!("found {}", whole.len() - 10));
    assert_says(&error, &["model.safetensors", "norm.weight", &expected, &found]);
}

#[test]
fn bytes_behind_the_last_tensor() {
    let mut file = Fixture::hub().weight_file();
    file.push(0);
    let error = open_with_weights(&file);
    assert!(matches!(error, Error::FileLength { .. }), "{error}");
}

#[test]
fn header_longer_than_the_file() {
    let whole = Fixture::hub().weight_file();
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap());
    let error = open_with_weights(&whole[..100]);
    assert!(matches!(error, Error::HeaderTooLong { found: 100, .. }), "{error}");
    assert_says(
        &error,
        &["model.safetensors", &format!("ends at byte {}", header + 8), "found a file of 100 bytes"],
    );

    for (file, expected) in [(vec![], 8), (vec![1; 7], 8), (vec![0xff; 20], u64::MAX)] {
        let error = open_with_weights(&file);
        assert!(matches!(error, Error::HeaderTooLong { expected: e, .. } if e == expected), "{error}");
    }
}

#[test]
fn header_larger_than_any() {
    let folder = Fixture::hub().write_config();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, 200_000_000u64.to_le_bytes()).unwrap();
    // A hole: takes no space on disk.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(300_000_000).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::HeaderTooLarge { found: 200_000_000, .. }), "{error}");
    assert_says(&error, &["model.safetensors", "at most 100000000", "found 200000000"]);
}

#[test]
fn overlapping_tensors() {
    let error = open_with_weights(&raw(
        &json!({
            "one": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "two": {"dtype": "U8", "shape": [8], "data_offsets": [6, 14]},
        }),
        14,
    ));
    assert!(matches!(error, Error::Overlap { .. }), "{error}");
    assert_says(&error, &["model.safetensors", "tensor two overlaps one", "data byte 8", "found 6"]);
}

#[test]
fn gap_between_tensors() {
    let error = open_with_weights(&raw(
        &json!({
            "one": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "two": {"dtype": "U8", "shape": [8], "data_offsets": [9, 17]},
        }),
        17,
    ));
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    assert_says(&error, &["model.safetensors", "tensor two", "data byte 8", "found 9"]);
}

#[test]
fn range_that_does_not_fit_the_shape() {
    let tensor = |dtype: &str, shape: Value, range: [u64; 2]| {
        open_with_weights(&raw(&json!({"one": {"dtype": dtype, "shape": shape, "data_offsets": range}}), 8))
    };
    let error = tensor("BF16", json!([2, 3]), [0, 8]);
    assert!(matches!(error, Error::TensorLength { .. }), "{error}");
    assert_says(
        &error,
        &["model.safetensors", "tensor one", "BF16 [2, 3] takes 12 bytes", "found the range 0..8"],
    );

    // Products and sums that overflow, a backward range, half a byte.
    for (dtype, shape, range) in [
        ("F32", json!([1u64 << 40, 1u64 << 40]), [0, 8]),
        ("F64", json!([1u64 << 61]), [0, 8]),
        ("U8", json!([u64::MAX / 8]), [0, u64::MAX / 8]),
        ("F4", json!([3]), [0, 1]),
    ] {
        let error = tensor(dtype, shape, range);
        assert!(matches!(error, Error::TensorLength { .. } | Error::FileLength { .. }), "{error}");
        assert_says(&error, &["tensor one"]);
    }
    let backward = json!({
        "zero": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
        "one": {"dtype": "U8", "shape": [1], "data_offsets": [8, 7]},
    });
    assert!(matches!(open_with_weights(&raw(&backward, 8)), Error::TensorLength { .. }));
}

#[test]
fn header_that_is_no_header() {
    let json = |header: &str| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        open_with_weights(&file)
    };
    for (header, says) in [
        ("{\"one\": ", "EOF"),
        ("[1, 2]", "expected a map from tensor names"),
        ("{} {}", "trailing characters"),
        (r#"{"__metadata__": {"format": 1}}"#, "expected a string"),
        (
            r#"{"one": {"dtype": "F31", "shape": [], "data_offsets": [0, 0]}}"#,
            "tensor one: unknown variant `F31`",
        ),
        (r#"{"one": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 0]}}"#, "tensor one"),
        (
            r#"{"one": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},
                "one": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}"#,
            "one is given twice",
        ),
    ] {
        let error = json(header);
        assert!(matches!(error, Error::Json { .. }), "{error}");
        assert_says(&error, &["model.safetensors", "invalid JSON", says]);
    }
    let folder = Fixture::hub().write_config();
    let mut file = 4u64.to_le_bytes().to_vec();
    file.extend([0xff; 4]);
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    assert!(matches!(open(folder.path()).unwrap_err(), Error::Json { .. }));
}

#[test]
fn index_names_a_shard_that_is_not_there() {
    let folder = Fixture::hub().write_sharded();
    std::fs::remove_file(folder.path().join(SHARDS[1])).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::MissingShard { .. }), "{error}");
    assert_says(&error, &["model.safetensors.index.json", SHARDS[1], "model.embed_tokens.weight"]);
}

#[test]
fn index_names_a_tensor_that_its_shard_lacks() {
    let folder = Fixture::hub().write_sharded();
    edit_index(folder.path(), |weight_map| weight_map["lm_head.biases"] = json!(SHARDS[0]));
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotInShard { .. }), "{error}");
    assert_says(&error, &["index.json", "lm_head.biases", SHARDS[0]]);

    // There, but in the other shard.
    let folder = Fixture::hub().write_sharded();
    edit_index(folder.path(), |weight_map| weight_map["lm_head.weight"] = json!(SHARDS[1]));
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotInShard { .. }), "{error}");
    assert_says(&error, &["lm_head.weight", SHARDS[1]]);
}

#[test]
fn index_leads_out_of_the_folder() {
    for shard in ["../other/model.safetensors", "/etc/passwd", "", "..", "a/b.safetensors"] {
        let folder = Fixture::hub().write_sharded();
        edit_index(folder.path(), |weight_map| weight_map["lm_head.weight"] = json!(shard));
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::ShardName { .. }), "{error}");
        assert_says(&error, &["index.json", "lm_head.weight", shard]);
    }
}

#[test]
fn tensor_in_two_shards() {
    let folder = Fixture::hub().write_sharded();
    std::fs::write(folder.path().join(SHARDS[1]), Fixture::hub().weight_file()).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::DuplicateTensor { .. }), "{error}");
    assert_says(&error, &[SHARDS[0], SHARDS[1], "tensor lm_head.weight"]);
}

#[test]
fn index_that_is_no_index() {
    let folder = Fixture::hub().write_sharded();
    std::fs::write(folder.path().join("model.safetensors.index.json"), "{\"weight_map\": 3}").unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
    assert_says(&error, &["model.safetensors.index.json", "invalid JSON"]);
}

fn edit_index(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
    let mut index: Value = serde_json::from_str(&text).unwrap();
    edit(&mut index["weight_map"]);
    write_index(folder, &index);
}
