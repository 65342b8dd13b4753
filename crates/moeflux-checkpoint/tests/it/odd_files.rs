//! Things with a file's name that are no files, or are too large.
#![cfg(unix)]

use crate::fixture::{Fixture, assert_says, open};
use moeflux_checkpoint::{Checkpoint, Error, OpenOptions, small_file};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipes_and_devices_are_refused_at_once() {
    let files = ["config.json", "model.safetensors", "model.safetensors.index.json", "hf_quant_config.json"];
    for file in files {
        for device in [false, true] {
            let folder = Fixture::hub().write();
            let path = folder.path().join(file);
            let _ = std::fs::remove_file(&path);
            if device {
                symlink("/dev/zero", &path).unwrap();
            } else {
                fifo(&path);
            }
            let error = open(folder.path()).unwrap_err();
            assert!(matches!(error, Error::NotAFile { .. }), "{file}: {error}");
            assert_says(&error, &[file, "expected a regular file"]);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.gguf", "blob"] {
        let path = folder.path().join(name);
        fifo(&path);
        assert!(Checkpoint::open(&path, &OpenOptions::default()).is_err());
    }
}

#[test]
fn sparse_files_are_refused_by_their_length() {
    for file in ["config.json", "model.safetensors.index.json"] {
        let folder = Fixture::hub().write();
        let path = folder.path().join(file);
        std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::TooLarge { found: 0x4000_0000, .. }), "{error}");
        assert_says(&error, &[file, "it is damaged, or not what its name says"]);
    }
}

/// Weight files that are holes, or shorter than their header says, are refused by what they say of themselves.
#[test]
fn sparse_and_short_weights_are_refused() {
    let folder = Fixture::hub().write();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::metadata(&path).unwrap().len();
    for len in [whole - 1, whole / 2, 8, 7, 1, 0, whole + 1, 1 << 40] {
        // Whether a file can be so long is the file system's to say.
        if std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).is_err() {
            continue;
        }
        assert_says(&open(folder.path()).unwrap_err(), &["model.safetensors"]);
    }
    // Zeros alone: a header of no bytes.
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    assert_says(&open(folder.path()).unwrap_err(), &["model.safetensors"]);
    let gguf = folder.path().join("zeros.gguf");
    std::fs::File::create(&gguf).unwrap().set_len(1 << 30).unwrap();
    assert_says(&open(&gguf).unwrap_err(), &["zeros.gguf"]);
}

#[test]
fn small_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    assert!(small_file::read(&path, 4).unwrap().is_none());
    std::fs::write(&path, "1234").unwrap();
    assert_eq!(small_file::read(&path, 4).unwrap().unwrap(), b"1234");
    assert!(matches!(small_file::read(&path, 3), Err(Error::TooLarge { limit: 3, found: 4, .. })));
    assert!(small_file::read(folder.path(), 4).is_err());
    std::fs::write(&path, b"\xff").unwrap();
    assert_says(&small_file::read_text(&path, 4).unwrap_err(), &["x: cannot be read"]);
}
