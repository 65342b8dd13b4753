//! The tokenizer of flash-moe's artifacts.

use std::path::Path;

use moeflux_checkpoint::flash_moe::tokenizer::{TokenizerFile, parse_vocab};
use moeflux_checkpoint::small_file;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, Tokenizer};

use super::TextError;
use super::gguf::byte_level::Words;

/// Reads `tokenizer.bin`. How a text is split into words is not in the file: each family has its own way.
pub(super) fn tokenizer(path: &Path, model_type: &str) -> Result<Tokenizer, TextError> {
    let bytes = read(path)?;
    let file = TokenizerFile::parse(path, &bytes)?;
    let unusable = |detail: String| TextError::Tokenizer { path: path.to_owned(), detail };
    let name = match model_type {
        "qwen3_5_moe" => "qwen35",
        "qwen3_moe" | "qwen3_next" => "qwen2",
        "deepseek_v3" => "deepseek-v3",
        other => {
            return Err(unusable(format!("how models of type {other} split texts into words is not known")));
        }
    };
    let words = Words::of(name).ok_or_else(|| unusable(format!("no way to split words is called {name}")))?;
    let ids = file.vocab.into_iter().map(|(id, token)| (token, id)).collect();
    let mut tokenizer = words.tokenizer(path, ids, file.merges)?;

    // They get ids from the end of the vocabulary on, in order: the file must have counted so too.
    let mut added = file.added;
    added.sort();
    let tokens =
        added.iter().map(|(_, token)| AddedToken::from(token.clone(), is_special(token)).normalized(false));
    tokenizer.add_tokens(tokens).map_err(|error| unusable(error.to_string()))?;
    match added.iter().find(|(id, token)| tokenizer.token_to_id(token) != Some(*id)) {
        Some((id, token)) => Err(unusable(format!("added token {token} cannot have id {id}"))),
        None => Ok(tokenizer),
    }
}

/// Reads `vocab.bin`: what each token says and nothing of how texts become tokens, so the result must not encode.
pub(super) fn vocabulary(path: &Path) -> Result<Tokenizer, TextError> {
    let tokens = parse_vocab(path, &read(path)?)?;
    let unusable = |detail: String| TextError::Tokenizer { path: path.to_owned(), detail };
    let mut ids = Vocab::new();
    let mut special = Vec::new();
    for (id, bytes) in (0u32..).zip(&tokens) {
        if bytes.is_empty() {
            continue;
        }
        let token: String = bytes.iter().copied().map(printable).collect();
        if is_special(&token) {
            special.push(AddedToken::from(token.clone(), true).normalized(false));
        }
        if let Some(other) = ids.insert(token, id) {
            let text = String::from_utf8_lossy(bytes);
            return Err(unusable(format!("tokens {other} and {id} are both {text:?}")));
        }
    }
    let model = BPE::builder().vocab_and_merges(ids, Vec::new()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(|error| unusable(error.to_string()))?);
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.add_tokens(special).map_err(|error| unusable(error.to_string()))?;
    Ok(tokenizer)
}

/// The character that byte-level BPE prints a byte as: itself if it can be seen, else one of those from U+0100 on.
pub(super) fn printable(byte: u8) -> char {
    let is_seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_seen(&byte) {
        return char::from(byte);
    }
    let unseen_before = (0..byte).filter(|byte| !is_seen(byte)).count() as u32;
    char::from_u32(0x100 + unseen_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Whether an added token is special, which the files do not say. Names in bars are, tags such as `<think>` are text.
fn is_special(token: &str) -> bool {
    token.starts_with("<|") && token.ends_with("|>")
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    let missing = || TextError::Read { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() };
    small_file::read(path, small_file::LARGEST)?.ok_or_else(missing)
}
