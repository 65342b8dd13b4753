//! Byte-level BPE (`gpt2`): merges are listed, and the way to split a text into words has a name.

use moeflux_checkpoint::gguf::Metadata;
use std::path::Path;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::{Vocabulary, unusable};
use crate::text::TextError;

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn tokenizer(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, TextError> {
    let words = metadata.text(PRE)?.and_then(Words::of);
    let words = words.ok_or_else(|| {
        let names: Vec<&str> = WORDS.iter().flat_map(|words| words.names).copied().collect();
        metadata.wrong(PRE, &format!("one of {}", names.join(", ")))
    })?;
    words.tokenizer(metadata.path(), vocabulary.ids(), merges(metadata)?)
}

impl Words {
    /// The way of this name.
    pub(in crate::text) fn of(name: &str) -> Option<&'static Words> {
        WORDS.iter().find(|words| words.names.contains(&name))
    }

    /// A tokenizer that splits texts so; errors name the file `path`.
    pub(in crate::text) fn tokenizer(
        &self,
        path: &Path,
        ids: Vocab,
        merges: Vec<(String, String)>,
    ) -> Result<Tokenizer, TextError> {
        let words = self;
        let failed = |error: tokenizers::Error| unusable(path, &error);
        let model = BPE::builder()
            .vocab_and_merges(ids, merges)
            .ignore_merges(words.whole_words_first)
            .build()
            .map_err(failed)?;

        let mut tokenizer = Tokenizer::new(model);
        if words.nfc {
            tokenizer.with_normalizer(Some(NFC)).map_err(failed)?;
        }
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for pattern in words.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    }
}

/// Pairs in order of rank: two tokens, of which none contains a space, with a space between them.
fn merges(metadata: &Metadata) -> Result<Vec<(String, String)>, TextError> {
    let expected = "strings of two tokens with a space between them";
    let merges = metadata.texts(MERGES)?.ok_or_else(|| metadata.wrong(MERGES, expected))?;
    let pair = |merge: &String| {
        let (left, right) = merge.split_once(' ')?;
        Some((left.to_owned(), right.to_owned()))
    };
    let merges: Option<_> = merges.iter().map(pair).collect();
    merges.ok_or_else(|| metadata.wrong(MERGES, expected).into())
}

/// How a text is split into words before merges: the patterns of the models' own `tokenizer.json`.
pub(in crate::text) struct Words {
    names: &'static [&'static str],
    /// Each applied to what the one before left.
    patterns: &'static [&'static str],
    /// Whether the text is normalised to NFC.
    nfc: bool,
    /// Whether a word that is a token needs no merges to become it.
    whole_words_first: bool,
}

/// GPT-2's own.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Up to three digits; letters with what stands before them.
const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const WORDS: &[Words] = &[
    Words {
        names: &["qwen35"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: true,
        whole_words_first: false,
    },
    Words {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: true,
        whole_words_first: false,
    },
    Words {
        names: &["llama3", "llama-v3", "llama-bpe", "falcon3", "glm4", "glm5"],
        patterns: &[CL100K],
        nfc: false,
        whole_words_first: true,
    },
    Words {
        names: &["chatglm-bpe", "smaug-bpe", "dbrx"],
        patterns: &[CL100K],
        nfc: false,
        whole_words_first: false,
    },
    Words {
        names: &["gpt-4o", "llama4"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: false,
        whole_words_first: false,
    },
    Words {
        names: &["tekken"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: false,
        whole_words_first: true,
    },
    Words {
        names: &["deepseek-v3", "joyai-llm"],
        patterns: &[
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
        nfc: false,
        whole_words_first: false,
    },
    Words {
        names: &["deepseek-llm"],
        patterns: &[
            // What is escaped is another character once it is normalised.
            r"[\r\n]",
            r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
            "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-\u{d7ff}]+",
            r"\p{N}",
        ],
        nfc: false,
        whole_words_first: false,
    },
    Words {
        names: &["kimi-k2"],
        patterns: &[
            r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: false,
        whole_words_first: true,
    },
    Words {
        names: &["refact", "starcoder", "smollm", "codeshell"],
        patterns: &[r"\p{N}", GPT2],
        nfc: false,
        whole_words_first: false,
    },
    Words { names: &["olmo"], patterns: &[GPT2], nfc: true, whole_words_first: false },
    Words { names: &["gpt-2"], patterns: &[GPT2], nfc: false, whole_words_first: false },
];
