//! A tokenizer of tiktoken's: `tiktoken.model` lists tokens in the order in which they are merged. How texts are split into
//! words before, and which tokens are special, it does not say: Kimi's way is known, and `tokenizer_config.json` names
//! the special tokens.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use moeflux_checkpoint::small_file;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::TextError;
use super::flash_moe::printable;
use super::generation::read_object;
use super::gguf::byte_level::Words;

/// The file.
pub(super) const FILE: &str = "tiktoken.model";

/// The encoding of tokens, with `=` at its end or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Special tokens behind the others, named or not.
const SPECIAL: u32 = 256;

/// Reads `tiktoken.model` and what `tokenizer_config.json` beside it says.
pub(super) fn tokenizer(path: &Path) -> Result<Tokenizer, TextError> {
    let unusable = |detail: String| TextError::Tokenizer { path: path.to_owned(), detail };
    let config = read_object(&path.with_file_name("tokenizer_config.json"))?.unwrap_or_default();
    // The class of Moonshot AI's own code, which all models of Kimi bring along.
    let is_known = config.get("tokenizer_class").and_then(Value::as_str) == Some("TikTokenTokenizer");
    let words = Words::of("kimi-k2").filter(|_| is_known).ok_or_else(|| {
        unusable(
            "it does not say how texts are split into words; expected tokenizer_class TikTokenTokenizer in \
             tokenizer_config.json, which is Kimi's, or a tokenizer.json"
                .to_owned(),
        )
    })?;
    let bytes = small_file::read(path, small_file::LARGEST)?.unwrap_or_default();
    let ranks = ranks(&bytes).map_err(unusable)?;
    let written: Vec<String> =
        ranks.iter().map(|token| token.iter().copied().map(printable).collect()).collect();
    let ids = written.iter().cloned().zip(0u32..).collect();
    let mut tokenizer = words.tokenizer(path, ids, merges(&ranks, &written))?;

    let added = special_tokens(&config, ranks.len() as u32).map_err(unusable)?;
    let tokens =
        added.values().map(|(text, special)| AddedToken::from(text.clone(), *special).normalized(false));
    tokenizer.add_tokens(tokens).map_err(|error| unusable(error.to_string()))?;
    match added.iter().find(|(id, (text, _))| tokenizer.token_to_id(text) != Some(**id)) {
        Some((id, (text, _))) => Err(unusable(format!("special token {text} cannot have id {id}"))),
        None => Ok(tokenizer),
    }
}

/// The tokens by rank: lines of a token in base64 and its rank, which count up from 0.
fn ranks(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut ranks = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let wrong = || format!("line {number}: expected a token in base64 and rank {}", ranks.len());
        let space = line.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let rank = std::str::from_utf8(&line[space + 1..]).ok().and_then(|rank| rank.parse::<usize>().ok());
        let token = BASE64.decode(&line[..space]).ok();
        let token = token.filter(|token| !token.is_empty() && rank == Some(ranks.len()));
        ranks.push(token.ok_or_else(wrong)?);
    }
    if ranks.is_empty() { Err("it lists no token".to_owned()) } else { Ok(ranks) }
}

/// Every way to make a token of two others, in the order of the tokens made: the pair whose token comes first is merged
/// first, which is what tiktoken does.
fn merges(ranks: &[Vec<u8>], written: &[String]) -> Vec<(String, String)> {
    let by_bytes: HashMap<&[u8], u32> = ranks.iter().map(Vec::as_slice).zip(0u32..).collect();
    let mut merges = Vec::with_capacity(2 * ranks.len());
    for token in ranks {
        let mut pairs: Vec<(u32, u32)> = (1..token.len())
            .filter_map(|at| Some((*by_bytes.get(&token[..at])?, *by_bytes.get(&token[at..])?)))
            .collect();
        pairs.sort_unstable();
        let text = |id: u32| written[id as usize].clone();
        merges.extend(pairs.into_iter().map(|(left, right)| (text(left), text(right))));
    }
    merges
}

/// Tokens behind the others by id: those of `added_tokens_decoder`, the rest of them reserved.
fn special_tokens(config: &Map<String, Value>, base: u32) -> Result<BTreeMap<u32, (String, bool)>, String> {
    let reserved = |id: u32| (id, (format!("<|reserved_token_{id}|>"), true));
    let mut tokens: BTreeMap<u32, (String, bool)> = (base..base + SPECIAL).map(reserved).collect();
    let named = config.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in named.into_iter().flatten() {
        let id = id.parse::<u32>().ok().filter(|id| (base..base + SPECIAL).contains(id));
        let text = token.get("content").and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(id), Some(text)) = (id, text) else {
            let last = base + SPECIAL - 1;
            return Err(format!(
                "added_tokens_decoder: expected tokens with content and ids from {base} to {last}"
            ));
        };
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(true);
        tokens.insert(id, (text.to_owned(), special));
    }
    Ok(tokens)
}
