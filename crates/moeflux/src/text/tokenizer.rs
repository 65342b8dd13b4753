//! The tokenizer of a checkpoint.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use moeflux_checkpoint::{Checkpoint, small_file};

use super::flash_moe;
use super::generation::{eos_token_ids, read_object};
use super::stream::{DecoderKind, Decoding, TokenStream};
use super::template::{ChatRequest, ChatTemplate, special_token};
use super::{GenerationDefaults, TextError, tiktoken};
use crate::cancel::CancelToken;

/// Text to token ids and back, with what else the checkpoint says about text: end-of-sequence ids, the chat
/// template and the model's sampling defaults.
#[derive(Debug)]
pub struct Tokenizer {
    /// What was read: a folder, or a GGUF file.
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    decoder: DecoderKind,
    special: HashSet<u32>,
    eos_ids: Vec<u32>,
    chat_template: Option<ChatTemplate>,
    generation_defaults: GenerationDefaults,
    /// The file, if it is good for decoding alone.
    decode_only: Option<PathBuf>,
    /// See [`longest`](Self::longest).
    longest: OnceLock<usize>,
}

/// Bytes of a text that are read at once to find out whether it is too long.
const PIECE: usize = 64 << 10;
/// By how many tokens a piece's count may be off, since what is cut apart is split in another way.
const SEAM: usize = 64;

impl Tokenizer {
    /// The tokenizer of a checkpoint: from the metadata of a GGUF file, else from the folder.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, TextError> {
        match checkpoint.metadata() {
            Some(metadata) => Self::from_gguf(metadata),
            None => {
                let folder = checkpoint.text_folder();
                let (binary, vocab) = (folder.join("tokenizer.bin"), folder.join("vocab.bin"));
                let ranks = folder.join(tiktoken::FILE);
                if folder.join("tokenizer.json").is_file() {
                    Self::open(folder)
                } else if binary.is_file() {
                    let model_type = checkpoint.config().model_type();
                    Self::with_files(folder, flash_moe::tokenizer(&binary, model_type)?)
                } else if vocab.is_file() {
                    let tokenizer = Self::with_files(folder, flash_moe::vocabulary(&vocab)?)?;
                    Ok(Self { decode_only: Some(vocab), ..tokenizer })
                } else if ranks.is_file() {
                    Self::with_files(folder, tiktoken::tokenizer(&ranks)?)
                } else {
                    Self::open(folder)
                }
            }
        }
    }

    /// Reads `tokenizer.json` of a checkpoint folder and, where they exist, `tokenizer_config.json`,
    /// `generation_config.json`, `config.json` and the chat template.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, TextError> {
        let folder = folder.as_ref();
        Self::with_files(folder, read(folder)?)
    }

    /// This tokenizer, and what the files of a folder say about text.
    fn with_files(folder: &Path, inner: tokenizers::Tokenizer) -> Result<Self, TextError> {
        let config_path = folder.join("tokenizer_config.json");
        let config = read_object(&config_path)?.unwrap_or_default();
        let eos_ids = match eos_token_ids(folder)? {
            Some(ids) => ids,
            None => config
                .get("eos_token")
                .and_then(special_token)
                .and_then(|token| inner.token_to_id(token))
                .into_iter()
                .collect(),
        };
        let (template, defaults) = (ChatTemplate::open(folder, &config)?, GenerationDefaults::open(folder)?);
        Ok(Self::new(folder, inner, eos_ids, template, defaults))
    }

    /// A tokenizer of parts that were read from `path`.
    pub(super) fn new(
        path: &Path,
        inner: tokenizers::Tokenizer,
        eos_ids: Vec<u32>,
        chat_template: Option<ChatTemplate>,
        generation_defaults: GenerationDefaults,
    ) -> Self {
        let added = inner.get_added_tokens_decoder().into_iter();
        Self {
            path: path.to_owned(),
            decoder: DecoderKind::of(&inner),
            special: added.filter_map(|(id, token)| token.special.then_some(id)).collect(),
            eos_ids,
            chat_template,
            generation_defaults,
            decode_only: None,
            longest: OnceLock::new(),
            inner,
        }
    }

    /// Token ids of a text. Special tokens in the text are recognised; none is added. [`TextError::DecodeOnly`] for a
    /// tokenizer that was read from flash-moe's `vocab.bin`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if let Some(path) = &self.decode_only {
            return Err(TextError::DecodeOnly { path: path.clone() });
        }
        self.encode_known(text)
    }

    /// The same for a text that comes from anyone: one of more than `limit` tokens is refused with [`TextError::TooLong`],
    /// after no more of it has been read than that takes, so that time and memory are bounded by the limit and not by the
    /// text. A cancelled request ends with [`TextError::Cancelled`].
    pub fn encode_within(
        &self,
        text: &str,
        limit: usize,
        cancel: &CancelToken,
    ) -> Result<Vec<u32>, TextError> {
        if let Some(path) = &self.decode_only {
            return Err(TextError::DecodeOnly { path: path.clone() });
        }
        let too_long = || TextError::TooLong { bytes: text.len(), limit };
        // What normalizers take out has no tokens, so that a text may have some of that as well.
        let slack = if self.inner.get_normalizer().is_some() { 4 } else { 1 };
        if text.len() > self.longest().saturating_mul(slack).saturating_mul(limit.max(1)) {
            return Err(too_long());
        }
        if text.len() > PIECE {
            let (mut rest, mut tokens) = (text, 0_usize);
            while !rest.is_empty() {
                if cancel.is_cancelled() {
                    return Err(TextError::Cancelled);
                }
                let (piece, others) = rest.split_at(rest.floor_char_boundary(PIECE));
                tokens += self.encode_known(piece)?.len().saturating_sub(SEAM);
                if tokens > limit {
                    return Err(too_long());
                }
                rest = others;
            }
        }
        let tokens = self.encode_known(text)?;
        if tokens.len() > limit { Err(too_long()) } else { Ok(tokens) }
    }

    /// Splits a text. A tokenizer is a model's data: one that makes the library panic fails the text alone.
    fn encode_known(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let split = || self.inner.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec());
        let ids = catch_unwind(AssertUnwindSafe(split)).map_err(|panic| {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            TextError::Encode(format!("the model's tokenizer makes the library fail ({said})"))
        })?;
        ids.map_err(|error| TextError::Encode(error.to_string()))
    }

    /// Bytes of the longest token, as the vocabulary writes it.
    fn longest(&self) -> usize {
        *self.longest.get_or_init(|| {
            let longest = self.inner.get_vocab(true).into_keys().map(|token| token.len()).max();
            longest.unwrap_or(1).max(1)
        })
    }

    /// The text of tokens, without the special ones if `skip_special`. Bytes that are not UTF-8 become
    /// U+FFFD.
    ///
    /// `clean_up_tokenization_spaces` of old tokenizer configs is not applied: it would change text that the
    /// model wrote, and no stream could agree with it.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        if let Some(&id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(self.unknown(id));
        }
        self.decode_known(ids, skip_special)
    }

    /// A decoder that takes one token at a time and gives text as it becomes complete.
    pub fn stream(&self, skip_special: bool) -> TokenStream<'_> {
        TokenStream::new(self, self.decoding(skip_special))
    }

    /// The same, to be given the tokenizer with each token.
    pub(crate) fn decoding(&self, skip_special: bool) -> Decoding {
        Decoding::new(self.decoder, skip_special)
    }

    /// Tokens that end a sequence: `eos_token_id` of `generation_config.json`, else of `config.json` or its
    /// `text_config`, else `eos_token` of `tokenizer_config.json`. Empty if none of them says.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Number of tokens, added ones included. The model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token as `tokenizer.json` writes it (byte-level tokens in their printable alphabet).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, written as in `tokenizer.json`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The bytes that each token puts into a text, by id, as it does after another token; none for ids that have no
    /// token. A text's tokens may cut characters apart.
    pub fn token_bytes(&self) -> Result<Vec<Vec<u8>>, TextError> {
        let vocab = self.inner.get_vocab(true);
        let len = vocab.values().max().map_or(0, |&id| id as usize + 1);
        // Decoders treat the first token of a text in their own way, so another goes before.
        let before = match self.decoder {
            DecoderKind::ByteLevel => Vec::new(),
            DecoderKind::Contextual { .. } => self.encode("a")?,
        };
        let text_before = self.decode_known(&before, false)?;
        let mut bytes = vec![Vec::new(); len];
        for (token, id) in vocab {
            bytes[id as usize] = match self.decoder.token_bytes(&token) {
                Some(bytes) => bytes,
                None => {
                    let text = self.decode_known(&[before.as_slice(), &[id]].concat(), false)?;
                    text.strip_prefix(&text_before).unwrap_or_default().as_bytes().to_vec()
                }
            };
        }
        Ok(bytes)
    }

    /// Whether a token is a special one (an added token with `special: true`).
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The chat template, if the checkpoint has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// The prompt of a conversation, or [`TextError::NoChatTemplate`].
    pub fn render_chat(&self, request: &ChatRequest) -> Result<String, TextError> {
        match &self.chat_template {
            Some(template) => template.render_all_calls(request),
            None => Err(TextError::NoChatTemplate { path: self.path.clone() }),
        }
    }

    /// The sampling settings of `generation_config.json`.
    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.generation_defaults
    }

    /// [`decode`](Self::decode) for ids that are known to exist.
    pub(super) fn decode_known(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.inner.decode(ids, skip_special)));
        let decoded = decoded
            .map_err(|_| TextError::Decode("the model's tokenizer makes the library fail".to_owned()))?;
        decoded.map_err(|error| TextError::Decode(error.to_string()))
    }

    pub(super) fn unknown(&self, id: u32) -> TextError {
        TextError::UnknownToken { id, vocab_size: self.vocab_size() }
    }
}

/// Reads `tokenizer.json`.
fn read(folder: &Path) -> Result<tokenizers::Tokenizer, TextError> {
    let path = folder.join("tokenizer.json");
    let Some(bytes) = small_file::read(&path, small_file::LARGEST).map_err(TextError::of_file)? else {
        let other = ["tokenizer.model", "spiece.model", "vocab.json", "qwen.tiktoken"];
        let found = other.into_iter().find(|name| folder.join(name).exists());
        return Err(TextError::NoTokenizer { folder: folder.to_owned(), found });
    };
    let unusable =
        |error: tokenizers::Error| TextError::Tokenizer { path: path.clone(), detail: error.to_string() };
    if has_empty_pattern(&bytes) {
        let detail = "a normalizer or pre-tokenizer replaces or splits at an empty pattern".to_owned();
        return Err(TextError::Tokenizer { path, detail });
    }
    let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(unusable)?;
    // Left over from training in some checkpoints; they would cut or fill prompts silently.
    inner.with_truncation(None).map_err(unusable)?;
    inner.with_padding(None);
    Ok(inner)
}

/// Whether some pattern is `{"String": ""}` or `{"Regex": ""}`, at which the library's normalizers panic.
fn has_empty_pattern(bytes: &[u8]) -> bool {
    ["\"String\"", "\"Regex\""].iter().any(|key| {
        let key = key.as_bytes();
        let mut rest = bytes;
        while let Some(at) = rest.windows(key.len()).position(|window| window == key) {
            rest = &rest[at + key.len()..];
            let value = rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
            if value.is_some_and(|value| value.starts_with(b"\"\"")) {
                return true;
            }
        }
        false
    })
}
