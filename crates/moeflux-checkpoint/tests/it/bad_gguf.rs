//! GGUF files that are cut, contradict themselves or are not what they say: each an error that names what is wrong.

use crate::damage::damage;
use crate::fixture::{assert_says, load, open};
use crate::gguf_file::GgufFile;
use crate::layouts_gguf::reference;
use crate::property;
use moeflux_checkpoint::Error;
use moeflux_checkpoint::gguf::Value;
use moeflux_checkpoint::gguf::header::parse_header;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the first key's length stands in a file.
const FIRST_KEY: usize = 24;
/// Where its value does: after the length, the key and the type.
const FIRST_VALUE: usize = FIRST_KEY + 8 + "general.architecture".len() + 4;
/// Where the list of tensors starts in the tiny file.
const TENSORS: usize = FIRST_VALUE + 8 + "qwen35moe".len();
/// Where the type of its first tensor stands: after the name, the number of dimensions and one dimension.
const FIRST_TYPE: usize = TENSORS + 8 + "one".len() + 4 + 8;

#[track_caller]
fn refuses(bytes: &[u8], says: &[&str]) {
    let error = parse_header(Path::new("model.gguf"), bytes).unwrap_err();
    assert_says(&error, &["model.gguf"]);
    assert_says(&error, says);
}

/// The tiny file with some bytes replaced.
fn tiny_with(at: usize, replacement: &[u8]) -> Vec<u8> {
    let mut bytes = GgufFile::tiny().bytes();
    bytes[at..at + replacement.len()].copy_from_slice(replacement);
    bytes
}

#[test]
fn the_tiny_file_is_good() {
    let bytes = GgufFile::tiny().bytes();
    let (metadata, tensors) = parse_header(Path::new("model.gguf"), &bytes).unwrap();
    assert_eq!(metadata.text("general.architecture").unwrap(), Some("qwen35moe"));
    let places: Vec<_> = tensors.iter().map(|tensor| (tensor.offset, tensor.len)).collect();
    assert_eq!(places, [(bytes.len() as u64 - 34 - 32, 8), (bytes.len() as u64 - 34, 34)]);
    assert_eq!(tensors[1].shape, [1, 32]);
    // Version 2 differs in nothing that is read.
    assert!(parse_header(Path::new("model.gguf"), &tiny_with(4, &[2])).is_ok());
}

#[test]
fn every_cut_is_an_error() {
    let bytes = GgufFile::tiny().bytes();
    for len in 0..bytes.len() {
        refuses(&bytes[..len], &["expected"]);
    }
}

#[test]
fn not_this_format_or_version() {
    refuses(&tiny_with(0, b"GGML"), &["the magic number at byte 0", "expected GGUF", "GGML"]);
    refuses(&tiny_with(4, &[1]), &["the version at byte 4", "2 or 3, little-endian", "found 1"]);
    refuses(&tiny_with(4, &[0, 0, 0, 3]), &["the version", "version 3 in big-endian order"]);
}

#[test]
fn counts_and_lengths_beyond_the_file() {
    for count in [1 << 20, u64::MAX] {
        refuses(
            &tiny_with(8, &count.to_le_bytes()),
            &["the number of tensors at byte 8", &count.to_string()],
        );
        refuses(&tiny_with(16, &count.to_le_bytes()), &["the number of metadata pairs at byte 16"]);
        refuses(&tiny_with(FIRST_KEY, &count.to_le_bytes()), &["the length of a metadata key at byte 24"]);
        refuses(
            &tiny_with(FIRST_VALUE, &count.to_le_bytes()),
            &["the length of metadata key general.architecture", "for which bytes are left"],
        );
        let mut file = GgufFile::tiny();
        file.metadata = vec![("list".to_owned(), Value::Integers(vec![1]))];
        let mut bytes = file.bytes();
        let at = FIRST_KEY + 8 + "list".len() + 8;
        bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
        refuses(&bytes, &["the length of metadata key list"]);
    }
}

#[test]
fn metadata_of_no_type() {
    refuses(
        &tiny_with(FIRST_VALUE - 4, &[13]),
        &["metadata key general.architecture", "type from 0 to 12", "type 13"],
    );
    // An array of arrays.
    let mut array = 9u32.to_le_bytes().to_vec();
    array.extend(9u32.to_le_bytes());
    refuses(&tiny_with(FIRST_VALUE - 4, &array), &["an array of values of type", "found type 9"]);
    refuses(
        &tiny_with(FIRST_VALUE - 4, &[7, 0, 0, 0, 2]),
        &["general.architecture", "expected 0 or 1, found 2"],
    );
    refuses(&tiny_with(FIRST_VALUE + 8, &[0xff]), &["general.architecture", "expected UTF-8"]);
    refuses(&tiny_with(FIRST_VALUE - 4, &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]), &["a number below 2^63"]);
}

#[test]
fn twice_the_same_name() {
    let mut file = GgufFile::tiny();
    file.metadata.push(file.metadata[0].clone());
    refuses(&file.bytes(), &["metadata key general.architecture", "each key once"]);
    let mut file = GgufFile::tiny();
    file.tensors[1].name = "one".to_owned();
    refuses(&file.bytes(), &["tensor one", "each tensor once"]);
}

#[test]
fn tensor_types_that_are_not_read() {
    refuses(&tiny_with(FIRST_TYPE, &[9]), &["tensor one", "Q4_K", "Q8_1, which is not supported"]);
    refuses(&tiny_with(FIRST_TYPE, &[4]), &["tensor one", "found type 4"]);
    refuses(&tiny_with(FIRST_TYPE, &[0xff; 4]), &["tensor one", "found type 4294967295"]);
}

#[test]
fn impossible_shapes() {
    // Two columns are no block of Q8_0.
    refuses(
        &tiny_with(FIRST_TYPE, &[8]),
        &["tensor one", "the first a multiple of 32 for Q8_0", "found [2]"],
    );
    refuses(&tiny_with(FIRST_TYPE - 12, &[5]), &["tensor one", "at most 4 dimensions, found 5"]);
    for shape in [vec![usize::MAX], vec![1 << 32, 1 << 32], vec![0, usize::MAX, 2]] {
        let mut file = GgufFile::tiny();
        file.tensors[0].shape = shape;
        refuses(&file.bytes(), &["tensor one", "product fits 64 bits"]);
    }
}

#[test]
fn data_where_none_can_be() {
    refuses(&tiny_with(FIRST_TYPE + 4, &[8]), &["tensor one", "an offset that is a multiple of 32, found 8"]);
    refuses(
        &tiny_with(FIRST_TYPE + 4, &[64]),
        &["tensor one", "8 bytes of data within the file", "cut short or damaged"],
    );
    refuses(&tiny_with(FIRST_TYPE + 4, &(u64::MAX - 31).to_le_bytes()), &["tensor one", "within the file"]);
    refuses(&tiny_with(FIRST_TYPE + 4, &[32]), &["overlaps", "one", "two"]);
    for (alignment, says) in [(0, "a power of two"), (24, "a power of two"), (1 << 30, "a power of two")] {
        let mut file = GgufFile::tiny();
        file.set("general.alignment", Value::Integer(alignment));
        refuses(&file.bytes(), &["general.alignment", says, &alignment.to_string()]);
    }
    let mut file = GgufFile::tiny();
    file.set("general.alignment", Value::Integer(64));
    refuses(&file.bytes(), &["tensor two", "a multiple of 64, found 32"]);
}

/// The model written as parts of up to 30 tensors each.
fn split(folder: &Path, change: impl Fn(usize, &mut GgufFile)) -> Vec<PathBuf> {
    let whole = GgufFile::read(&reference("qwen3_5_moe"));
    let parts = whole.tensors.chunks(30).count();
    let path = |index: usize| folder.join(format!("model-{:05}-of-{parts:05}.gguf", index + 1));
    for (index, tensors) in whole.tensors.chunks(30).enumerate() {
        let mut part = GgufFile { metadata: Vec::new(), tensors: tensors.to_vec() };
        if index == 0 {
            part.metadata.clone_from(&whole.metadata);
            part.set("split.tensors.count", Value::Integer(whole.tensors.len() as i64));
        }
        part.set("split.no", Value::Integer(index as i64));
        part.set("split.count", Value::Integer(parts as i64));
        change(index, &mut part);
        std::fs::write(path(index), part.bytes()).unwrap();
    }
    (0..parts).map(path).collect()
}

#[test]
fn parts_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let parts = split(folder.path(), |_, _| {});
    let whole = load(&open(&reference("qwen3_5_moe")).unwrap()).unwrap();
    for path in [folder.path(), &parts[0], &parts[2]] {
        let checkpoint = open(path).unwrap();
        assert_eq!(checkpoint.files().len(), 3);
        assert_eq!(load(&checkpoint).unwrap().vectors, whole.vectors);
    }
}

#[test]
fn parts_that_do_not_fit() {
    let refuses = |path: &Path, says: &[&str]| assert_says(&open(path).unwrap_err(), says);
    let folder = tempfile::tempdir().unwrap();
    let parts = split(folder.path(), |_, _| {});
    std::fs::remove_file(&parts[1]).unwrap();
    for path in [folder.path(), &parts[0], &parts[2]] {
        refuses(path, &["model-00002-of-00003.gguf is missing", "one of 3 parts"]);
    }
    std::fs::copy(&parts[2], &parts[1]).unwrap();
    refuses(folder.path(), &["model-00002-of-00003.gguf", "split.no", "expected 1", "found 2"]);
    std::fs::rename(&parts[0], folder.path().join("other.gguf")).unwrap();
    refuses(
        &folder.path().join("other.gguf"),
        &["other.gguf", "split.count", "what the file's name says", "found 3"],
    );

    let folder = tempfile::tempdir().unwrap();
    split(folder.path(), |index, part| {
        if index == 0 {
            part.set("split.tensors.count", Value::Integer(7));
        }
    });
    refuses(folder.path(), &["split.tensors.count", "80, the number of tensors in all parts", "found 7"]);

    let folder = tempfile::tempdir().unwrap();
    split(folder.path(), |index, part| {
        if index == 2 {
            part.tensors[0].name = "blk.0.attn_norm.weight".to_owned();
        }
    });
    refuses(
        folder.path(),
        &["tensor blk.0.attn_norm.weight is given a second time", "model-00001-of-00003.gguf"],
    );
}

#[test]
fn folders_with_several_models_or_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(folder.path()).unwrap_err(), Error::MissingFile { .. }));
    for name in ["a.gguf", "b.gguf"] {
        std::fs::write(folder.path().join(name), GgufFile::tiny().bytes()).unwrap();
    }
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::GgufFiles { .. }), "{error}");
    assert_says(&error, &["a.gguf, b.gguf", "name the file that you mean"]);
}

/// The reference model with a change, written to a folder.
fn changed(change: impl FnOnce(&mut GgufFile)) -> TempDir {
    let mut file = GgufFile::read(&reference("qwen3_5_moe"));
    change(&mut file);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), file.bytes()).unwrap();
    folder
}

#[test]
fn metadata_that_is_no_config() {
    let refuses = |change: &dyn Fn(&mut GgufFile), says: &[&str]| {
        let error = open(changed(|file| change(file)).path()).unwrap_err();
        assert_says(&error, &["model.gguf"]);
        assert_says(&error, says);
    };
    let text = |text: &str| Value::Text(text.to_owned());
    refuses(
        &|file| file.remove("general.architecture"),
        &["field general.architecture is missing", "deepseek2"],
    );
    refuses(
        &|file| file.set("general.architecture", text("gemma3")),
        &["general.architecture", "qwen35moe", "gemma3"],
    );
    refuses(
        &|file| file.set("general.architecture", Value::Integer(3)),
        &["general.architecture", "a string, found 3"],
    );
    refuses(
        &|file| file.remove("qwen35moe.embedding_length"),
        &["field qwen35moe.embedding_length is missing"],
    );
    refuses(
        &|file| file.set("qwen35moe.embedding_length", text("128")),
        &["qwen35moe.embedding_length", "one number", "\"128\""],
    );
    refuses(
        &|file| file.set("qwen35moe.expert_used_count", Value::Integer(17)),
        &["qwen35moe.expert_used_count", "at most", "17"],
    );
    refuses(
        &|file| file.set("qwen35moe.attention.head_count", Value::Integer(0)),
        &["qwen35moe.attention.head_count"],
    );
    refuses(
        &|file| file.set("qwen35moe.block_count", Value::Integer(0)),
        &["qwen35moe.block_count", "nextn_predict_layers = 1"],
    );
    refuses(
        &|file| file.set("qwen35moe.block_count", Value::Integer(1 << 40)),
        &["qwen35moe.block_count", "a whole number from 1 to 4096"],
    );
    refuses(
        &|file| file.set("qwen35moe.attention.value_length", Value::Integer(32)),
        &["qwen35moe.attention.value_length"],
    );
    refuses(
        &|file| file.set("qwen35moe.ssm.inner_size", Value::Integer(255)),
        &["qwen35moe.ssm.inner_size", "a multiple of"],
    );
    refuses(
        &|file| file.set("qwen35moe.attention.recurrent_layers", Value::Flags(vec![true, false])),
        &["qwen35moe.attention.recurrent_layers"],
    );
    refuses(&|file| file.set("qwen35moe.rope.scaling.type", text("linear")), &["rope"]);
    refuses(
        &|file| file.set("qwen35moe.final_logit_softcapping", Value::Float(30.0)),
        &["unknown field qwen35moe.final_logit_softcapping = 30", "ignored_config_fields"],
    );
}

#[test]
fn tensors_that_do_not_fit() {
    let refuses = |change: &dyn Fn(&mut GgufFile), says: &[&str]| {
        let error = load(&open(changed(|file| change(file)).path()).unwrap()).unwrap_err();
        assert_says(&error, says);
    };
    refuses(
        &|file| file.tensors.retain(|tensor| tensor.name != "blk.2.ssm_norm.weight"),
        &["tensor blk.2.ssm_norm.weight is missing"],
    );
    refuses(
        &|file| file.tensor("blk.3.attn_q_norm.weight").shape = vec![2, 32],
        &["tensor blk.3.attn_q_norm.weight", "expected shape [64], found [2, 32]"],
    );
    refuses(
        &|file| file.tensor("blk.3.attn_q_norm.weight").name = "rope_freqs.weight".to_owned(),
        &["tensor blk.3.attn_q_norm.weight is missing"],
    );
    refuses(
        &|file| {
            let extra = file.tensor("blk.3.attn_q_norm.weight").clone();
            file.tensors.push(extra);
            file.tensors.last_mut().unwrap().name = "rope_freqs.weight".to_owned();
        },
        &["expected no tensor beyond", "rope_freqs.weight"],
    );
    for value in [0.0_f32, 1.5, f32::NEG_INFINITY, f32::NAN] {
        refuses(
            &|file| file.tensor("blk.0.ssm_a").bytes[4..8].copy_from_slice(&value.to_le_bytes()),
            &["tensor blk.0.ssm_a", "finite numbers below 0"],
        );
    }
}

/// No panic, and what is accepted lies inside the file.
#[track_caller]
fn is_refused_or_fits(bytes: &[u8]) {
    if let Ok((_, tensors)) = parse_header(Path::new("model.gguf"), bytes) {
        for tensor in tensors {
            assert!(tensor.offset + tensor.len <= bytes.len() as u64, "{tensor:?}");
        }
    }
}

#[test]
fn any_byte_and_any_count_in_any_place() {
    let bytes = GgufFile::tiny().bytes();
    for at in 0..bytes.len() {
        for byte in 0..=u8::MAX {
            is_refused_or_fits(&tiny_with(at, &[byte]));
        }
        for power in 0..64 {
            for number in [1 << power, u64::MAX >> power, (u64::MAX >> power) - 31] {
                let number = number.to_le_bytes();
                is_refused_or_fits(&tiny_with(at.min(bytes.len() - 8), &number));
                is_refused_or_fits(&tiny_with(at.min(bytes.len() - 4), &number[..4]));
            }
        }
    }
}

proptest! {
    #![proptest_config(property::config(4000))]

    #[test]
    fn damaged_files(damage in damage()) {
        let mut bytes = GgufFile::tiny().bytes();
        for damage in damage {
            damage.apply(&mut bytes);
        }
        is_refused_or_fits(&bytes);
    }
}
