//! SentencePiece BPE (`llama`): merges follow from the pieces' scores, and bytes stand in for what is no piece.

use moeflux_checkpoint::gguf::Metadata;
use std::cmp::Reverse;
use std::collections::HashMap;
use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};

use super::{Kind, Vocabulary, unusable};
use crate::text::TextError;

const SCORES: &str = "tokenizer.ggml.scores";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";

/// What stands for a space within pieces.
const SPACE: &str = "▁";

pub(super) fn tokenizer(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, TextError> {
    let failed = |error: tokenizers::Error| unusable(metadata.path(), &error);
    let mut model = BPE::builder()
        .vocab_and_merges(vocabulary.ids(), merges(metadata, vocabulary)?)
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some((_, unknown)) = vocabulary.of_kind(Kind::Unknown).next() {
        model = model.unk_token(unknown.to_owned());
    }
    let mut tokenizer = Tokenizer::new(model.build().map_err(failed)?);

    let prepends = metadata.flag(ADD_SPACE)?.unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> = vec![
        Replace::new(SPACE, " ").map_err(failed)?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    if prepends {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(failed)?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

/// Every way to make a piece of two others, the pieces of the highest scores first; of one piece those with the longer
/// left part first.
fn merges(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Vec<(String, String)>, TextError> {
    let count = vocabulary.tokens.len();
    let scores = metadata.floats(SCORES)?.filter(|scores| scores.len() == count);
    let scores =
        scores.ok_or_else(|| metadata.wrong(SCORES, &format!("{count} numbers, one for each token")))?;
    let pieces: HashMap<&str, f64> =
        vocabulary.of_kind(Kind::Normal).map(|(id, token)| (token, scores[id as usize])).collect();
    let mut merges = Vec::new();
    for (&piece, &score) in &pieces {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if pieces.contains_key(left) && pieces.contains_key(right) {
                merges.push((score, left, right));
            }
        }
    }
    merges.sort_by(|(a_score, a_left, a_right), (b_score, b_left, b_right)| {
        let of_one = (Reverse(a_left.len()), a_left, a_right).cmp(&(Reverse(b_left.len()), b_left, b_right));
        b_score.total_cmp(a_score).then(of_one)
    });
    Ok(merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect())
}
