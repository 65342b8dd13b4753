//! Log-probabilities, in the forms of chats and completions.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::types::{ChatLogprob, ChatLogprobs};
use crate::generation::TokenInfo;
use crate::models::Lease;

/// Of the tokens of a chat's answer.
pub(super) fn chat_logprobs(tokens: &[TokenInfo], model: &Lease) -> ChatLogprobs {
    let one = |id: u32, logprob: f32, top: Option<Vec<ChatLogprob>>| ChatLogprob {
        token: text(id, model),
        logprob: finite(logprob),
        bytes: model.token_bytes(id).map(<[u8]>::to_vec),
        top_logprobs: top,
    };
    let of_token = |token: &TokenInfo| {
        let top = token.top.iter().map(|top| one(top.token, top.logprob, None)).collect();
        one(token.id, token.logprob, Some(top))
    };
    ChatLogprobs { content: tokens.iter().map(of_token).collect() }
}

/// Of the tokens of a text, list by list.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct TextLogprobs {
    /// Their texts.
    pub tokens: Vec<String>,
    /// Their log-probabilities; a prompt's first token has none.
    pub token_logprobs: Vec<Option<f64>>,
    /// The likeliest in their places, by text.
    #[schema(value_type = Vec<Option<Object>>)]
    pub top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Where they begin in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// Adds what comes next.
    pub(super) fn append(&mut self, more: Self) {
        self.tokens.extend(more.tokens);
        self.token_logprobs.extend(more.token_logprobs);
        self.top_logprobs.extend(more.top_logprobs);
        self.text_offset.extend(more.text_offset);
    }

    /// Adds a token that begins at a place in the text, and returns where it ends.
    pub(super) fn push(
        &mut self,
        token: u32,
        logprob: Option<f32>,
        top: &[moeflux::sampling::TokenLogprob],
        offset: usize,
        model: &Lease,
    ) -> usize {
        let named = text(token, model);
        let end = offset + named.chars().count();
        let mut likeliest = Map::new();
        for top in top {
            // Tokens of one text (parts of characters) are told apart by the likeliest.
            likeliest.entry(text(top.token, model)).or_insert_with(|| finite(top.logprob).into());
        }
        if let Some(logprob) = logprob {
            likeliest.entry(named.clone()).or_insert_with(|| finite(logprob).into());
        }
        self.tokens.push(named);
        self.token_logprobs.push(logprob.map(finite));
        self.top_logprobs.push(logprob.map(|_| likeliest));
        self.text_offset.push(offset);
        end
    }
}

/// A token's text; empty for padding, which has none.
fn text(token: u32, model: &Lease) -> String {
    model.tokenizer().decode(&[token], false).unwrap_or_default()
}

/// JSON has no infinity: what can't be chosen is as unlikely as the API can say.
fn finite(logprob: f32) -> f64 {
    f64::from(logprob.max(-9999.0))
}
