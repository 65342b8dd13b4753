//! A tokenizer, chat template and sampling defaults from the metadata of a GGUF file.

pub(in crate::text) mod byte_level;
mod sentence_piece;

use std::collections::BTreeMap;
use std::path::Path;

use moeflux_checkpoint::gguf::{Metadata, Value};
use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

use super::template::ChatTemplate;
use super::{GenerationDefaults, TextError, Tokenizer};

impl Tokenizer {
    /// Reads the tokenizer of a GGUF file: `tokenizer.ggml.*` and `tokenizer.chat_template`, and the sampling defaults
    /// in `general.sampling.*`.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let vocabulary = Vocabulary::read(metadata)?;
        let mut inner = match metadata.text(MODEL)? {
            Some("gpt2") => byte_level::tokenizer(metadata, &vocabulary)?,
            Some("llama") => sentence_piece::tokenizer(metadata, &vocabulary)?,
            _ => {
                return Err(metadata
                    .wrong(MODEL, "gpt2 (byte-level BPE) or llama (SentencePiece BPE)")
                    .into());
            }
        };
        inner.add_tokens(vocabulary.added()).map_err(|error| unusable(metadata.path(), &error))?;
        let special_tokens = vocabulary.special_tokens(metadata)?;
        let chat_template = chat_template(metadata, special_tokens)?;
        let (eos_ids, defaults) = (vocabulary.eos_ids(metadata)?, generation_defaults(metadata)?);
        Ok(Self::new(metadata.path(), inner, eos_ids, chat_template, defaults))
    }
}

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";

/// What a token is, under `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The tokens by id, and what each of them is.
struct Vocabulary<'a> {
    tokens: &'a [String],
    kinds: Vec<Kind>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, TextError> {
        let expected = format!("one to {} strings", u32::MAX);
        let tokens = metadata.texts(TOKENS)?.filter(|tokens| (1..u32::MAX as usize).contains(&tokens.len()));
        let tokens = tokens.ok_or_else(|| metadata.wrong(TOKENS, &expected))?;
        let kinds = match metadata.integers(KINDS)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(kinds) => {
                let kinds: Option<Vec<Kind>> = kinds.iter().copied().map(kind).collect();
                let fitting = kinds.filter(|kinds| kinds.len() == tokens.len());
                let expected = format!("{} whole numbers from 0 to 6, one for each token", tokens.len());
                fitting.ok_or_else(|| metadata.wrong(KINDS, &expected))?
            }
        };
        Ok(Vocabulary { tokens, kinds })
    }

    /// All tokens with their ids. Of tokens that are written alike the first counts.
    fn ids(&self) -> Vocab {
        let mut ids = Vocab::default();
        for (id, token) in self.tokens.iter().enumerate() {
            ids.entry(token.clone()).or_insert(id as u32);
        }
        ids
    }

    /// Tokens with a kind, and their ids.
    fn of_kind(&self, wanted: Kind) -> impl Iterator<Item = (u32, &'a str)> {
        let tokens = self.tokens.iter().zip(&self.kinds).enumerate();
        tokens
            .filter(move |(_, (_, kind))| **kind == wanted)
            .map(|(id, (token, _))| (id as u32, token.as_str()))
    }

    /// Tokens that are found in a text before it is split.
    fn added(&self) -> Vec<AddedToken> {
        let added = |special| {
            move |(_, token): (u32, &str)| AddedToken::from(token.to_owned(), special).normalized(false)
        };
        let control = self.of_kind(Kind::Control).chain(self.of_kind(Kind::Unknown)).map(added(true));
        control.chain(self.of_kind(Kind::UserDefined).map(added(false))).collect()
    }

    /// The token that a key names by its id.
    fn named(&self, metadata: &Metadata, key: &str) -> Result<Option<u32>, TextError> {
        let Some(id) = metadata.whole(key)? else { return Ok(None) };
        match self.tokens.get(id as usize) {
            Some(_) => Ok(Some(id as u32)),
            None => Err(metadata.wrong(key, &format!("a token id below {}", self.tokens.len())).into()),
        }
    }

    /// `bos_token` and the like, as chat templates see them.
    fn special_tokens(&self, metadata: &Metadata) -> Result<BTreeMap<String, String>, TextError> {
        let mut special = BTreeMap::new();
        for (key, name) in [
            ("tokenizer.ggml.bos_token_id", "bos_token"),
            ("tokenizer.ggml.eos_token_id", "eos_token"),
            ("tokenizer.ggml.unknown_token_id", "unk_token"),
            // Written so in the format.
            ("tokenizer.ggml.seperator_token_id", "sep_token"),
            ("tokenizer.ggml.padding_token_id", "pad_token"),
        ] {
            if let Some(id) = self.named(metadata, key)? {
                special.insert(name.to_owned(), self.tokens[id as usize].clone());
            }
        }
        Ok(special)
    }

    /// Tokens that end a sequence. The format has one each for the end of text, turn and message, where
    /// `generation_config.json` can list several: control tokens with the names that models give to such are added.
    fn eos_ids(&self, metadata: &Metadata) -> Result<Vec<u32>, TextError> {
        const ENDS: [&str; 9] = [
            "<|im_end|>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|return|>",
            "<|call|>",
            "<｜end▁of▁sentence｜>",
            "</s>",
        ];
        let mut ids = Vec::new();
        for key in
            ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
        {
            ids.extend(self.named(metadata, key)?);
        }
        ids.extend(self.of_kind(Kind::Control).filter(|(_, token)| ENDS.contains(token)).map(|(id, _)| id));
        let mut seen = Vec::new();
        ids.retain(|id| {
            !seen.contains(id) && {
                seen.push(*id);
                true
            }
        });
        Ok(ids)
    }
}

fn kind(number: i64) -> Option<Kind> {
    Some(match number {
        0 | 1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => return None,
    })
}

fn chat_template(
    metadata: &Metadata,
    special_tokens: BTreeMap<String, String>,
) -> Result<Option<ChatTemplate>, TextError> {
    let Some(source) = metadata.text("tokenizer.chat_template")? else { return Ok(None) };
    let template = ChatTemplate::new(source)?.with_special_tokens(special_tokens);
    match metadata.text("tokenizer.chat_template.tool_use")? {
        Some(source) => template.with_tool_use(source).map(Some),
        None => Ok(Some(template)),
    }
}

/// Files say how to sample, but not whether to: one that says how means it.
fn generation_defaults(metadata: &Metadata) -> Result<GenerationDefaults, TextError> {
    let number = |name: &str| {
        metadata.read(&format!("general.sampling.{name}"), "a number", |value| match value {
            Value::Float(number) => Some(*number as f32),
            Value::Integer(number) => Some(*number as f32),
            _ => None,
        })
    };
    let mut defaults = GenerationDefaults {
        temperature: number("temp")?,
        top_k: metadata.whole("general.sampling.top_k")?.map(|k| k as usize),
        top_p: number("top_p")?,
        min_p: number("min_p")?,
        repetition_penalty: number("penalty_repeat")?,
        ..GenerationDefaults::default()
    };
    if defaults != GenerationDefaults::default() {
        defaults.do_sample = Some(true);
    }
    Ok(defaults)
}

fn unusable(path: &Path, error: &tokenizers::Error) -> TextError {
    TextError::Tokenizer { path: path.to_owned(), detail: error.to_string() }
}
