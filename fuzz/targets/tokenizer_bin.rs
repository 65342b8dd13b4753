//! Whatever bytes `tokenizer.bin` or `vocab.bin` holds: an error, or no more tokens than there are bytes for; never both
//! a tokenizer and a vocabulary.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::flash_moe::tokenizer::{TokenizerFile, parse_vocab};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let tokenizer = TokenizerFile::parse(Path::new("tokenizer.bin"), bytes);
    let vocab = parse_vocab(Path::new("vocab.bin"), bytes);
    assert!(tokenizer.is_err() || vocab.is_err());
    if let Ok(file) = tokenizer {
        let records = 6 * (file.vocab.len() + file.added.len()) + 4 * file.merges.len();
        assert!(20 + records <= bytes.len());
    }
    if let Ok(tokens) = vocab {
        assert_eq!(8 + tokens.iter().map(|token| 2 + token.len()).sum::<usize>(), bytes.len());
    }
});
