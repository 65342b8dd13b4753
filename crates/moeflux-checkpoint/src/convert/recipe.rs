//! Which encoding each linear map gets.

use crate::quantization::ModuleQuantization;
use moeflux_kernels::{Encoding, Float};
use std::fmt;
use std::str::FromStr;

/// Columns that share a scale if a recipe does not say.
pub const DEFAULT_GROUP: usize = 64;

/// Recipes with names, and what stands for them.
pub const NAMED: &[(&str, &str)] = &[
    ("lossless", "all=keep"),
    ("8bit", "all=8"),
    ("6bit", "all=6,router=8"),
    ("4bit", "all=4,router=8"),
    ("mxfp4", "all=mxfp4,router=8"),
    ("balanced", "all=8,experts=4"),
    ("compact", "all=6,router=8,experts=3"),
];

/// Groups of modules that a recipe can name, with the patterns of their names in hub, MLX and GGUF files. Experts come
/// under the names `….experts.gate`, `….experts.up` and `….experts.down`.
const CLASSES: &[(&str, &[&str])] = &[
    ("all", &["*"]),
    ("experts", &["*.experts.gate", "*.experts.up", "*.experts.down"]),
    (
        "router",
        &["*.mlp.gate", "*.shared_expert_gate", "*.router", "*.block_sparse_moe.gate", "*.ffn_gate_inp*"],
    ),
    (
        "shared",
        &[
            "*.shared_expert.*",
            "*.shared_experts.*",
            "*.ffn_gate_shexp",
            "*.ffn_up_shexp",
            "*.ffn_down_shexp",
        ],
    ),
    ("attention", &["*.self_attn.*", "*.linear_attn.*", "*.attn_*", "*.ssm_*"]),
    (
        "dense",
        &["*.mlp.gate_proj", "*.mlp.up_proj", "*.mlp.down_proj", "*.ffn_gate", "*.ffn_up", "*.ffn_down"],
    ),
    ("embed", &["*embed_tokens", "token_embd"]),
    ("lm_head", &["*lm_head", "output"]),
];

/// The class of a multi-token-prediction head, which is known by more than names.
const MTP: &str = "mtp";

/// What a linear map becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// What it is.
    Keep,
    /// Plain bf16.
    Bf16,
    /// So quantised.
    Quantized(ModuleQuantization),
}

impl Target {
    /// What a map of `cols` columns in `encoding` becomes. It stays as it is where the target is what it is already,
    /// would only lose bits that are lost for good (codes of no more bits than asked for), or does not divide its rows.
    pub(crate) fn encoding(self, encoding: Encoding, cols: usize) -> Encoding {
        let target = match self {
            Target::Keep
            | Target::Quantized(
                ModuleQuantization::Mxfp8
                | ModuleQuantization::Nvfp4
                | ModuleQuantization::Fp8 { .. }
                | ModuleQuantization::Gptq { .. }
                | ModuleQuantization::Awq
                | ModuleQuantization::CompressedTensors
                | ModuleQuantization::Modelopt
                | ModuleQuantization::Bitsandbytes,
            ) => return encoding,
            Target::Bf16 => return Encoding::Float(Float::Bf16),
            // MLX keeps parameters in the model's type, which is bf16.
            Target::Quantized(ModuleQuantization::Affine { bits, group_size: group }) => {
                Encoding::Affine { bits, group, params: Float::Bf16 }
            }
            Target::Quantized(ModuleQuantization::Mxfp4) => Encoding::Mxfp4,
        };
        let is_plain = matches!(encoding, Encoding::Float(_));
        let loses_nothing = is_plain || encoding.bits() > target.bits();
        if loses_nothing && cols.is_multiple_of(target.group()) { target } else { encoding }
    }

    /// Reads `keep`, `bf16`, `mxfp4`, or a width with or without a group: `4`, `4g32`.
    fn parse(text: &str, group_size: usize) -> Option<Self> {
        match text {
            "keep" => return Some(Target::Keep),
            "bf16" => return Some(Target::Bf16),
            "mxfp4" => return Some(Target::Quantized(ModuleQuantization::Mxfp4)),
            _ => {}
        }
        let (bits, group_size) = match text.split_once('g') {
            Some((bits, group)) => (bits, group.parse().ok()?),
            None => (text, group_size),
        };
        let bits = bits.parse().ok()?;
        let exists = matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128);
        exists.then_some(Target::Quantized(ModuleQuantization::Affine { bits, group_size }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Keep => f.write_str("keep"),
            Target::Bf16 => f.write_str("bf16"),
            Target::Quantized(ModuleQuantization::Affine { bits, group_size }) => {
                write!(f, "{bits}g{group_size}")
            }
            Target::Quantized(other) => write!(f, "{other}"),
        }
    }
}

/// Which encoding each linear map gets: entries `class=target` or `pattern=target`, of which the last that matches
/// decides. What none matches stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    entries: Vec<(String, Target)>,
}

/// A recipe cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Not of the form `class=target`.
    #[error(
        "recipe entry {entry:?}: expected CLASS=TARGET, as in experts=4, or one of the names {}",
        names()
    )]
    Entry {
        /// The entry.
        entry: String,
    },
    /// No such target.
    #[error(
        "recipe entry {entry:?}: expected 2, 3, 4, 5, 6 or 8 bits (with a group of 32, 64 or 128, as in 4g32), \
         mxfp4, bf16 or keep"
    )]
    Target {
        /// The entry.
        entry: String,
    },
    /// No such class, and no pattern either.
    #[error("recipe entry {entry:?}: expected one of {} or a pattern with *, such as *.v_proj", classes())]
    Class {
        /// The entry.
        entry: String,
    },
}

impl Recipe {
    /// Reads a name of [`NAMED`] or entries with commas between them; widths without a group get `group_size`.
    pub fn parse(text: &str, group_size: usize) -> Result<Self, RecipeError> {
        let named = NAMED.iter().find(|(name, _)| *name == text);
        let text = named.map_or(text, |(_, entries)| entries);
        let mut entries = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let owned = || entry.to_owned();
            let (class, target) =
                entry.split_once('=').ok_or_else(|| RecipeError::Entry { entry: owned() })?;
            let target =
                Target::parse(target, group_size).ok_or_else(|| RecipeError::Target { entry: owned() })?;
            if class != MTP && !class.contains('*') && !CLASSES.iter().any(|(name, _)| *name == class) {
                return Err(RecipeError::Class { entry: owned() });
            }
            entries.push((class.to_owned(), target));
        }
        Ok(Recipe { entries })
    }

    /// This recipe, and then another's entries, which so come to decide.
    #[must_use]
    pub fn then(mut self, other: Recipe) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// What the linear map of a module becomes.
    pub fn target(&self, module: &str, is_mtp: bool) -> Target {
        let matches = |class: &str| {
            let mut classes = CLASSES.iter().filter(|(name, _)| *name == class);
            match classes.next() {
                Some((_, patterns)) => patterns.iter().any(|pattern| glob(pattern, module)),
                None if class == MTP => is_mtp,
                None => glob(class, module),
            }
        };
        let entry = self.entries.iter().rev().find(|(class, _)| matches(class));
        entry.map_or(Target::Keep, |(_, target)| *target)
    }

    /// The entries, as they can be read again.
    pub fn entries(&self) -> Vec<String> {
        self.entries.iter().map(|(class, target)| format!("{class}={target}")).collect()
    }
}

impl FromStr for Recipe {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Recipe::parse(text, DEFAULT_GROUP)
    }
}

fn names() -> String {
    NAMED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn classes() -> String {
    CLASSES.iter().map(|(name, _)| *name).chain([MTP]).collect::<Vec<_>>().join(", ")
}

/// Whether a pattern, in which `*` stands for anything, is the whole of a text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BF16: Encoding = Encoding::Float(Float::Bf16);

    fn affine(bits: u8, group: usize) -> Encoding {
        Encoding::Affine { bits, group, params: Float::Bf16 }
    }

    #[test]
    fn the_last_entry_that_matches_decides() {
        let recipe: Recipe = "all=4,router=8,experts=2g32,*.v_proj=bf16,mtp=keep".parse().unwrap();
        let four = Target::Quantized(ModuleQuantization::Affine { bits: 4, group_size: 64 });
        for (module, target) in [
            ("model.layers.3.self_attn.q_proj", four.to_string()),
            ("model.layers.3.self_attn.v_proj", "bf16".into()),
            ("model.language_model.layers.3.mlp.gate", "8g64".into()),
            ("model.layers.3.mlp.gate_proj", "4g64".into()),
            ("model.layers.3.mlp.shared_expert_gate", "8g64".into()),
            ("model.layers.3.mlp.shared_experts.up_proj", "4g64".into()),
            ("model.layers.3.mlp.experts.down", "2g32".into()),
            ("blk.3.ffn_gate_inp_shexp", "8g64".into()),
            ("lm_head", "4g64".into()),
        ] {
            assert_eq!(recipe.target(module, false).to_string(), target, "{module}");
            assert_eq!(recipe.target(module, true), Target::Keep);
        }
        assert_eq!(Recipe::default().target("lm_head", false), Target::Keep);
        assert_eq!(recipe.entries().join(",").parse::<Recipe>().unwrap(), recipe);
    }

    #[test]
    fn every_named_recipe_reads() {
        for (name, entries) in NAMED {
            assert_eq!(Recipe::parse(name, 64).unwrap(), Recipe::parse(entries, 64).unwrap());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("experts", "\"experts\": expected CLASS=TARGET"),
            ("experts=7", "\"experts=7\": expected 2, 3"),
            ("experts=4g48", "\"experts=4g48\""),
            ("exports=4", "\"exports=4\": expected one of all, experts"),
        ] {
            let message = text.parse::<Recipe>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn targets_that_cannot_help_change_nothing() {
        let four = Target::parse("4", 64).unwrap();
        assert_eq!(four.encoding(BF16, 128), affine(4, 64));
        assert_eq!(four.encoding(BF16, 96), BF16);
        assert_eq!(four.encoding(affine(8, 64), 128), affine(4, 64));
        assert_eq!(four.encoding(affine(4, 32), 128), affine(4, 32));
        assert_eq!(four.encoding(affine(2, 64), 128), affine(2, 64));
        assert_eq!(Target::Bf16.encoding(affine(2, 64), 128), BF16);
        assert_eq!(Target::Keep.encoding(Encoding::Mxfp8, 128), Encoding::Mxfp8);
    }

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a*a", "a", false),
            ("*.x.*", "a.x.b", true),
            ("*.x.*", "a.xb", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }
}
