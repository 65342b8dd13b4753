//! Incremental detokenisation: tokens in, completed text out, never half a character.

use super::{TextError, Tokenizer};

/// Turns tokens into text one at a time. The pieces together are what [`Tokenizer::decode`] gives for all
/// tokens.
///
/// The work per token does not grow with the length of the text.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    decoding: Decoding,
}

/// A [`TokenStream`] whose tokenizer is given each time.
#[derive(Debug)]
pub(crate) struct Decoding {
    skip_special: bool,
    state: State,
    /// The piece that the last push completed.
    piece: String,
}

/// How a tokenizer's decoder has to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecoderKind {
    /// Every token is a run of bytes, whatever stands around it.
    ByteLevel,
    /// Text depends on neighbours; tokens `<0xNN>` are bytes if `byte_fallback`.
    Contextual { byte_fallback: bool },
}

#[derive(Debug)]
enum State {
    /// Bytes after the last complete character.
    Bytes(Vec<u8>),
    Window(Window),
}

/// Tokens since the last but one emission: those before `read` were emitted and are kept as context, because
/// decoders treat the first token of a text in their own way (leading spaces).
#[derive(Debug, Default)]
struct Window {
    byte_fallback: bool,
    ids: Vec<u32>,
    read: usize,
    /// The text of `ids[..read]`.
    context: String,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, decoding: Decoding) -> Self {
        Self { tokenizer, decoding }
    }

    /// The text that this token completes: often its own, empty while a character is incomplete. Bytes that
    /// can never become a character come out as U+FFFD.
    pub fn push(&mut self, id: u32) -> Result<&str, TextError> {
        self.decoding.push(self.tokenizer, id)
    }

    /// The rest of the text: what was held back as an incomplete character is U+FFFD now.
    pub fn finish(self) -> Result<String, TextError> {
        self.decoding.finish(self.tokenizer)
    }
}

impl Decoding {
    pub(super) fn new(decoder: DecoderKind, skip_special: bool) -> Self {
        let state = match decoder {
            DecoderKind::ByteLevel => State::Bytes(Vec::new()),
            DecoderKind::Contextual { byte_fallback } => {
                State::Window(Window { byte_fallback, ..Window::default() })
            }
        };
        Self { skip_special, state, piece: String::new() }
    }

    /// See [`TokenStream::push`].
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<&str, TextError> {
        self.piece.clear();
        let token = tokenizer.token(id).ok_or_else(|| tokenizer.unknown(id))?;
        if !(self.skip_special && tokenizer.is_special(id)) {
            match &mut self.state {
                State::Bytes(bytes) => {
                    append_token_bytes(&token, bytes);
                    take_characters(bytes, &mut self.piece);
                }
                State::Window(window) => {
                    window.ids.push(id);
                    // The text of a run of byte tokens is known only when the run ends.
                    if !(window.byte_fallback && byte_of_token(&token).is_some()) {
                        window.advance(tokenizer, &mut self.piece)?;
                    }
                }
            }
        }
        Ok(&self.piece)
    }

    /// See [`TokenStream::finish`].
    pub(crate) fn finish(self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        match self.state {
            State::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            State::Window(window) => {
                let text = tokenizer.decode_known(&window.ids, false)?;
                let changed = || TextError::Decode("the decoder changes text that is already out".to_owned());
                text.strip_prefix(&window.context).map(str::to_owned).ok_or_else(changed)
            }
        }
    }
}

impl Window {
    fn advance(&mut self, tokenizer: &Tokenizer, piece: &mut String) -> Result<(), TextError> {
        let text = tokenizer.decode_known(&self.ids, false)?;
        let Some(new) = text.strip_prefix(&self.context) else { return Ok(()) };
        // A trailing U+FFFD may yet become a character with the next token.
        if new.is_empty() || new.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(());
        }
        piece.push_str(new);
        self.ids.drain(..self.read);
        self.read = self.ids.len();
        self.context = tokenizer.decode_known(&self.ids, false)?;
        Ok(())
    }
}

impl DecoderKind {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let decoder = serde_json::to_value(tokenizer.get_decoder()).unwrap_or_default();
        if decoder["type"] == "ByteLevel" {
            return Self::ByteLevel;
        }
        let parts = decoder["decoders"].as_array().map_or(std::slice::from_ref(&decoder), Vec::as_slice);
        Self::Contextual { byte_fallback: parts.iter().any(|part| part["type"] == "ByteFallback") }
    }

    /// The bytes of a token where they do not depend on others; else `None`.
    pub(super) fn token_bytes(self, token: &str) -> Option<Vec<u8>> {
        match self {
            Self::ByteLevel => {
                let mut bytes = Vec::new();
                append_token_bytes(token, &mut bytes);
                Some(bytes)
            }
            Self::Contextual { byte_fallback } => {
                byte_of_token(token).filter(|_| byte_fallback).map(|byte| vec![byte])
            }
        }
    }
}

/// The byte that a token `<0xNN>` stands for.
fn byte_of_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// The bytes that a byte-level token stands for; a token with characters outside that alphabet is its own
/// UTF-8.
fn append_token_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for character in token.chars() {
        if let Some(byte) = byte_of(character) {
            bytes.push(byte);
        } else {
            bytes.truncate(start);
            bytes.extend_from_slice(token.as_bytes());
            return;
        }
    }
}

/// GPT-2's alphabet for bytes: printable Latin-1 characters stand for themselves, the other 68 bytes for
/// U+0100 onwards, in order.
fn byte_of(character: char) -> Option<u8> {
    match character as u32 {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Moves what is decided from `bytes` to `text`, and leaves an incomplete character.
fn take_characters(bytes: &mut Vec<u8>, text: &mut String) {
    let mut done = 0;
    while done < bytes.len() {
        match std::str::from_utf8(&bytes[done..]) {
            Ok(valid) => {
                text.push_str(valid);
                done = bytes.len();
            }
            Err(error) => {
                let valid = done + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[done..valid]));
                done = valid;
                let Some(invalid) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid;
            }
        }
    }
    bytes.drain(..done);
}
