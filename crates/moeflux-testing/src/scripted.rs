//! A checkpoint that says a given text, token by token, whatever it is asked: what becomes of a model's answer is tried with a
//! real model.
//!
//! It is a Mixtral of one layer whose attention and experts add nothing, so that the last token alone decides on the next. Each
//! token has a row of random signs in the embedding; the token that follows it has the same signs in the output head, and all
//! others are far behind at any temperature. Every token of the text is one of its own: a character after its name, which the
//! decoder takes out, tells apart those that are written alike.
//!
//! [`BEGIN`] is the token before the text, and a chat template prints it at the end of a prompt. A checkpoint has one text; a
//! conversation takes one for each turn. All turns in one checkpoint, each after a mark of its own, would not do: grammars name
//! special tokens by their ids, so that these have to be the same in each turn, and what follows them is not.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Result;

/// The token that the text follows. Without it a model says nothing.
pub const BEGIN: &str = "<|begin_answer|>";
const END: &str = "<|end_answer|>";
/// All text of prompts that is no token.
const UNKNOWN: &str = "<|unknown|>";

/// Ids of the tokens before those of the text.
const UNKNOWN_ID: usize = 0;
const END_ID: usize = 1;
const BEGIN_ID: usize = 2;
/// `hidden_size`, one for each bit of a token's signs.
const WIDTH: usize = u64::BITS as usize;
/// Size of the head's weights: a token leads by so many times [`WIDTH`], less what random signs have in common.
const SCALE: f32 = 4.0;

/// What a checkpoint says, and how.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// The text as the tokens cut it; `<0xNN>` is a byte.
    pub pieces: &'a [String],
    /// Pieces that prompts and grammars know as tokens, by name and whether they are special. Each may be in the text once.
    pub tokens: &'a [(&'a str, bool)],
    /// The chat template.
    pub template: &'a str,
}

impl Script<'_> {
    /// Writes the checkpoint.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let names = self.names()?;
        let count = names.len();
        let config = json!({
            "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "torch_dtype": "bfloat16", "hidden_act": "silu",
            "vocab_size": count, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096, "tie_word_embeddings": false,
        });
        let files: [(&str, Vec<u8>); 5] = [
            ("config.json", config.to_string().into()),
            ("generation_config.json", json!({ "eos_token_id": END_ID }).to_string().into()),
            ("tokenizer.json", self.tokenizer(&names).to_string().into()),
            ("chat_template.jinja", self.template.into()),
            ("model.safetensors", weights(count)),
        ];
        for (name, bytes) in files {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// All tokens by their ids.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = [UNKNOWN, END, BEGIN].map(str::to_owned).to_vec();
        for piece in self.pieces {
            let is_byte = piece.len() == 6 && piece.starts_with("<0x");
            if !is_byte && self.tokens.iter().all(|(token, _)| token != piece) {
                names.push(format!("{piece}{}", mark(names.len())));
            } else if names.contains(piece) {
                return Err(format!("{piece} is in the text twice: which token follows it?"));
            } else {
                names.push(piece.clone());
            }
        }
        Ok(names)
    }

    fn tokenizer(&self, names: &[String]) -> Value {
        let vocab: Map<String, Value> = names.iter().cloned().zip((0..).map(|id: usize| json!(id))).collect();
        let added = [(UNKNOWN, true), (END, true), (BEGIN, true)];
        let added = added.iter().chain(self.tokens).filter_map(|&(name, special)| {
            let (id, no) = (vocab.get(name)?, false);
            Some(json!({
                "id": id, "content": name, "special": special, "single_word": no, "lstrip": no, "rstrip": no, "normalized": no,
            }))
        });
        let added: Vec<Value> = added.collect();
        let marks = format!("[{}-{}]", mark(0), mark(0xfffd));
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "Regex": marks }, "content": "" }, { "type": "ByteFallback" },
            ] },
            "model": { "type": "WordLevel", "unk_token": UNKNOWN, "vocab": vocab },
        })
    }
}

/// A character of a private plane.
fn mark(index: usize) -> char {
    char::from_u32(0xf0000 + index as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A safetensors file.
fn weights(vocab_size: usize) -> Vec<u8> {
    let last = vocab_size - 1;
    let embedding = (0..vocab_size).flat_map(signs).collect();
    let mut head = vec![0.0; vocab_size * WIDTH];
    let steps =
        (BEGIN_ID..last).map(|token| (token, token + 1)).chain([(last, END_ID), (UNKNOWN_ID, END_ID)]);
    for (token, next) in steps {
        for (weight, sign) in head[next * WIDTH..].iter_mut().zip(signs(token)) {
            *weight += SCALE * sign;
        }
    }
    let ones = || vec![1.0; WIDTH];
    let zeros = |rows: usize| vec![0.0; rows * WIDTH];
    let mut tensors: Vec<(String, Vec<f32>)> = vec![
        ("model.embed_tokens".to_owned(), embedding),
        ("model.norm".to_owned(), ones()),
        ("lm_head".to_owned(), head),
        ("model.layers.0.block_sparse_moe.gate".to_owned(), zeros(2)),
    ];
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        tensors.push((format!("model.layers.0.{norm}"), ones()));
    }
    for projection in ["q", "k", "v", "o"] {
        tensors.push((format!("model.layers.0.self_attn.{projection}_proj"), zeros(WIDTH)));
    }
    for (expert, part) in [0, 1].into_iter().flat_map(|expert| ["w1", "w2", "w3"].map(|part| (expert, part)))
    {
        tensors.push((format!("model.layers.0.block_sparse_moe.experts.{expert}.{part}"), zeros(WIDTH)));
    }
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    for (name, values) in tensors {
        let shape = if name.ends_with("norm") { vec![WIDTH] } else { vec![values.len() / WIDTH, WIDTH] };
        let start = data.len();
        data.extend(values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()));
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(format!("{name}.weight"), entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// A token's row of the embedding: the bits of its number, mixed as SplitMix64 does.
fn signs(token: usize) -> impl Iterator<Item = f32> {
    let mut bits = (token as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (0..WIDTH).map(move |bit| if bits >> bit & 1 == 1 { 1.0 } else { -1.0 })
}
