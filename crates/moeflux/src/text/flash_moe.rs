//! The tokenizer of flash-moe's artifacts.

use std::path::Path;

use moeflux_checkpoint::flash_moe::tokenizer::TokenizerFile;
use tokenizers::{AddedToken, Tokenizer};

use super::TextError;
use super::gguf::byte_level::Words;

/// Reads `tokenizer.bin`. How a text is split into words is not in the file: each family has its own way.
pub(super) fn tokenizer(path: &Path, model_type: &str) -> Result<Tokenizer, TextError> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
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
    let tokens = added.iter().map(|(_, token)| {
        // The file does not say which of them are special. Names in bars are, tags such as <think> are text.
        let is_special = token.starts_with("<|") && token.ends_with("|>");
        AddedToken::from(token.clone(), is_special).normalized(false)
    });
    tokenizer.add_tokens(tokens).map_err(|error| unusable(error.to_string()))?;
    match added.iter().find(|(id, token)| tokenizer.token_to_id(token) != Some(*id)) {
        Some((id, token)) => Err(unusable(format!("added token {token} cannot have id {id}"))),
        None => Ok(tokenizer),
    }
}
