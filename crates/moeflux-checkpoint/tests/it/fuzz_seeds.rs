//! What fuzzing of a format starts from is that format.

use moeflux_checkpoint::flash_moe::tokenizer::{TokenizerFile, parse_vocab};
use moeflux_checkpoint::flash_moe::weights_json::Index;
use moeflux_checkpoint::pack::manifest::Manifest;
use std::fs;
use std::path::{Path, PathBuf};

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= 2);
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn manifests() {
    for (path, bytes) in seeds("pack_manifest") {
        Manifest::parse(&path, &bytes).unwrap();
    }
}

#[test]
fn lists_of_dense_tensors() {
    for (path, bytes) in seeds("flash_moe") {
        let index = Index::parse(&path, &bytes, 1 << 20).unwrap();
        assert_eq!((index.tensors.len(), index.modules.len()), (3, 1));
    }
}

#[test]
fn tokenizers() {
    for (path, bytes) in seeds("tokenizer_bin") {
        if path.ends_with("vocab") {
            assert_eq!(parse_vocab(&path, &bytes).unwrap(), [b"a".to_vec(), Vec::new(), b"ab".to_vec()]);
            TokenizerFile::parse(&path, &bytes).unwrap_err();
        } else {
            let file = TokenizerFile::parse(&path, &bytes).unwrap();
            assert_eq!((file.vocab.len(), file.merges.len(), file.added.len()), (3, 1, 1));
            parse_vocab(&path, &bytes).unwrap_err();
        }
    }
}

/// Wherever a tokenizer's file is cut, or a count in it is wrong, it is refused, and nothing of that size is allocated.
#[test]
fn damaged_tokenizers() {
    let (path, bytes) =
        seeds("tokenizer_bin").into_iter().find(|(path, _)| path.ends_with("tokenizer")).unwrap();
    for end in 0..bytes.len() {
        let error = TokenizerFile::parse(&path, &bytes[..end]).unwrap_err().to_string();
        assert!(error.contains("tokenizer"), "{error}");
    }
    for count in [8, 12, 16] {
        let mut damaged = bytes.clone();
        damaged[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = TokenizerFile::parse(&path, &damaged).unwrap_err().to_string();
        assert!(error.contains("which a file of this length can hold"), "{error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    TokenizerFile::parse(&path, &longer).unwrap_err();
    let mut not_utf8 = bytes.clone();
    let letter = bytes.iter().position(|byte| *byte == b'a').unwrap();
    not_utf8[letter] = 0xff;
    assert!(TokenizerFile::parse(&path, &not_utf8).unwrap_err().to_string().contains("UTF-8"));
}
