//! Metadata of a GGUF file on its way to the fields of `config.json`, and the steps of it that architectures share.

use crate::checkpoint::OpenOptions;
use crate::config::{self, Config};
use crate::error::Error;
use crate::family::parts::MAX_LAYERS;
use crate::files::Tensors;
use crate::gguf::metadata::{Metadata, Value};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Metadata on its way to `config.json`.
pub(super) struct Fields<'a> {
    metadata: &'a Metadata,
    pub(super) tensors: &'a Tensors,
    architecture: &'a str,
    /// Keys that were asked for.
    known: BTreeSet<String>,
    pub(super) json: Map<String, Json>,
    /// The keys behind fields, to name in errors.
    origins: BTreeMap<String, String>,
}

impl<'a> Fields<'a> {
    /// No field yet, of a model of this architecture.
    pub(super) fn new(metadata: &'a Metadata, tensors: &'a Tensors, architecture: &'a str) -> Self {
        Fields {
            metadata,
            tensors,
            architecture,
            known: BTreeSet::new(),
            json: Map::new(),
            origins: BTreeMap::new(),
        }
    }

    /// What all architectures have; they call the number of experts differently in `config.json`.
    pub(super) fn common(&mut self, experts: Option<&str>) -> Result<(), Error> {
        if let Some(experts) = experts {
            self.copy("expert_count", experts)?;
            self.copy("expert_used_count", "num_experts_per_tok")?;
        }
        for (key, field) in [
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.key_length", "head_dim"),
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("vocab_size", "vocab_size"),
        ] {
            self.copy(key, field)?;
        }
        // With latent attention these are the sizes of latents.
        let (key, value) = (self.get("attention.key_length"), self.get("attention.value_length"));
        if key != value && self.architecture != "deepseek2" {
            return Err(self.wrong("attention.value_length", "the same as attention.key_length"));
        }
        if !self.json.contains_key("vocab_size")
            && let Some(embedding) = self.tensors.get("token_embd.weight")
        {
            self.set("vocab_size", json!(embedding.shape.first()));
        }
        self.set("tie_word_embeddings", json!(!self.tensors.contains_key("output.weight")));
        self.layers()?;
        self.rope_scaling()
    }

    /// The layers that are run: blocks for multi-token prediction come last and are counted.
    fn layers(&mut self) -> Result<(), Error> {
        let blocks = self.whole("block_count")?.filter(|blocks| *blocks <= MAX_LAYERS as u64);
        let blocks = blocks
            .ok_or_else(|| self.wrong("block_count", &format!("a whole number from 1 to {MAX_LAYERS}")))?;
        let predicting = self.whole("nextn_predict_layers")?.unwrap_or(0);
        let layers = blocks.checked_sub(predicting).ok_or_else(|| {
            self.wrong("block_count", &format!("more than nextn_predict_layers = {predicting}"))
        })?;
        self.set("num_hidden_layers", json!(layers));
        self.origins.insert("num_hidden_layers".to_owned(), self.key("block_count"));
        Ok(())
    }

    /// Frequencies, and how they were stretched.
    fn rope_scaling(&mut self) -> Result<(), Error> {
        self.copy("rope.freq_base", "rope_theta")?;
        // Whether the model was trained so: it says nothing about what is to be computed.
        self.passed_over("rope.scaling.finetuned");
        // What linear scaling was called at first.
        let old = self.value("rope.scale_linear")?.filter(|factor| *factor != json!(1.0));
        let kind = match self.get("rope.scaling.type") {
            None => {
                if let Some(factor) = old {
                    self.rope().insert("rope_type".to_owned(), json!("linear"));
                    self.rope().insert("factor".to_owned(), factor);
                }
                return Ok(());
            }
            Some(Value::Text(kind)) => kind.as_str(),
            Some(_) => return Err(self.wrong("rope.scaling.type", "a string")),
        };
        if kind == "none" {
            return Ok(());
        }
        self.rope().insert("rope_type".to_owned(), json!(kind));
        for (key, field) in [
            ("factor", "factor"),
            ("original_context_length", "original_max_position_embeddings"),
            ("yarn_beta_fast", "beta_fast"),
            ("yarn_beta_slow", "beta_slow"),
            ("yarn_attn_factor", "attention_factor"),
        ] {
            if let Some(value) = self.value(&format!("rope.scaling.{key}"))? {
                self.rope().insert(field.to_owned(), value);
            }
        }
        self.constant("rope.scaling.yarn_ext_factor", &Value::Float(1.0))
    }

    /// What Qwen3.5 has with experts and without.
    pub(super) fn qwen35(&mut self) -> Result<(), Error> {
        self.copy("nextn_predict_layers", "mtp_num_hidden_layers")?;
        self.delta_net()?;
        self.partial_rotary()?;
        // Time, height, width, and a fourth that is always 0.
        if let Some(sections) = self.get("rope.dimension_sections") {
            let section = match sections {
                Value::Integers(sections) if matches!(sections[..], [_, _, _, 0]) => json!(&sections[..3]),
                _ => return Err(self.wrong("rope.dimension_sections", "three whole numbers and a 0")),
            };
            self.rope().insert("mrope_section".to_owned(), section);
        }
        Ok(())
    }

    /// `rope_scaling`, which exists from now on.
    pub(super) fn rope(&mut self) -> &mut Map<String, Json> {
        let rope = self.json.entry("rope_scaling").or_insert_with(|| json!({"rope_type": "default"}));
        match rope {
            Json::Object(rope) => rope,
            _ => unreachable!("made as an object"),
        }
    }

    /// Channels of a head that turn, as a share.
    pub(super) fn partial_rotary(&mut self) -> Result<(), Error> {
        let (Some(turning), Some(all)) =
            (self.whole("rope.dimension_count")?, self.whole("attention.key_length")?)
        else {
            return Ok(());
        };
        self.set("partial_rotary_factor", json!(turning as f64 / all as f64));
        self.origins.insert("partial_rotary_factor".to_owned(), self.key("rope.dimension_count"));
        Ok(())
    }

    /// All channels of a head turn.
    pub(super) fn full_rotary(&mut self, head_dim: &str) -> Result<(), Error> {
        match (self.whole("rope.dimension_count")?, self.whole(head_dim)?) {
            (Some(turning), Some(all)) if turning != all => {
                Err(self.wrong("rope.dimension_count", &format!("{all}, all channels of a head")))
            }
            (Some(turning), None) => {
                self.set("head_dim", json!(turning));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Gated delta nets, and which layers have them.
    pub(super) fn delta_net(&mut self) -> Result<(), Error> {
        self.copy("ssm.conv_kernel", "linear_conv_kernel_dim")?;
        self.copy("ssm.state_size", "linear_key_head_dim")?;
        self.copy("ssm.group_count", "linear_num_key_heads")?;
        self.copy("ssm.time_step_rank", "linear_num_value_heads")?;
        if let (Some(values), Some(heads)) =
            (self.whole("ssm.inner_size")?, self.whole("ssm.time_step_rank")?.filter(|&heads| heads > 0))
        {
            if !values.is_multiple_of(heads) {
                return Err(
                    self.wrong("ssm.inner_size", &format!("a multiple of ssm.time_step_rank = {heads}"))
                );
            }
            self.set("linear_value_head_dim", json!(values / heads));
            self.origins.insert("linear_value_head_dim".to_owned(), self.key("ssm.inner_size"));
        }
        let layers = self.json.get("num_hidden_layers").and_then(Json::as_u64).unwrap_or(0) as usize;
        match self.get("attention.recurrent_layers") {
            Some(Value::Flags(recurrent)) => {
                let kind = |&recurrent: &bool| if recurrent { "linear_attention" } else { "full_attention" };
                let kinds: Vec<&str> = recurrent.iter().take(layers).map(kind).collect();
                self.set("layer_types", json!(kinds));
                self.origins.insert("layer_types".to_owned(), self.key("attention.recurrent_layers"));
                // Where the list is, it decides.
                self.passed_over("full_attention_interval");
                Ok(())
            }
            Some(_) => Err(self.wrong("attention.recurrent_layers", "truth values")),
            None => self.copy("full_attention_interval", "full_attention_interval"),
        }
    }

    /// `mlp_only_layers`: those without a router.
    pub(super) fn dense_layers(&mut self) {
        let layers = self.json.get("num_hidden_layers").and_then(Json::as_u64).unwrap_or(0);
        let is_dense = |layer: &u64| self.tensors.contains_key(&format!("blk.{layer}.ffn_gate.weight"));
        let dense: Vec<u64> = (0..layers).filter(is_dense).collect();
        self.set("mlp_only_layers", json!(dense));
    }

    /// A router with groups of experts and a scale.
    pub(super) fn grouped_router(&mut self) -> Result<(), Error> {
        self.copy("expert_group_count", "n_group")?;
        self.copy("expert_group_used_count", "topk_group")?;
        self.copy("expert_shared_count", "n_shared_experts")?;
        self.copy("expert_weights_scale", "routed_scaling_factor")?;
        for group in ["n_group", "topk_group"] {
            self.json.entry(group).or_insert_with(|| json!(1));
        }
        let normalised = self.value("expert_weights_norm")?.unwrap_or(json!(false));
        self.set("norm_topk_prob", normalised);
        Ok(())
    }

    /// Sets a field that the architecture implies.
    pub(super) fn set(&mut self, field: &str, value: Json) {
        self.json.insert(field.to_owned(), value);
    }

    /// Copies a key's value, if there is one, to a field.
    pub(super) fn copy(&mut self, key: &str, field: &str) -> Result<(), Error> {
        self.origins.insert(field.to_owned(), self.key(key));
        if let Some(value) = self.value(key)? {
            self.set(field, value);
        }
        Ok(())
    }

    /// Refuses a key that is there with a value other than that of `other`.
    pub(super) fn only(&mut self, key: &str, other: &str) -> Result<(), Error> {
        match (self.get(key), self.get(other)) {
            (Some(value), Some(expected)) if value != expected => {
                Err(self.wrong(key, &format!("the same as {other}, {expected}")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a key that is there with another value.
    pub(super) fn constant(&mut self, key: &str, expected: &Value) -> Result<(), Error> {
        match self.get(key) {
            Some(value) if value != expected => Err(self.wrong(key, &expected.to_string())),
            _ => Ok(()),
        }
    }

    /// Takes note of a key that changes nothing.
    pub(super) fn passed_over(&mut self, key: &str) {
        self.known.insert(self.key(key));
    }

    /// The value of a key, which is known from now on, as JSON.
    fn value(&mut self, key: &str) -> Result<Option<Json>, Error> {
        Ok(match self.get(key) {
            None => None,
            Some(Value::Flag(flag)) => Some(json!(flag)),
            Some(Value::Integer(number)) => Some(json!(number)),
            Some(Value::Float(number)) => Some(json!(as_written(*number))),
            Some(_) => return Err(self.wrong(key, "one number")),
        })
    }

    pub(super) fn whole(&mut self, key: &str) -> Result<Option<u64>, Error> {
        self.passed_over(key);
        self.metadata.whole(&self.key(key))
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// The value of a key, which is known from now on.
    pub(super) fn get(&mut self, key: &str) -> Option<&'a Value> {
        let key = self.key(key);
        let value = self.metadata.get(&key);
        self.known.insert(key);
        value
    }

    pub(super) fn wrong(&self, key: &str, expected: &str) -> Error {
        self.metadata.wrong(&self.key(key), expected)
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Reads the fields, if no key is left over.
    pub(super) fn finish(self, options: &OpenOptions) -> Result<Config, Error> {
        let prefix = format!("{}.", self.architecture);
        let unknown = self.metadata.iter().find(|(key, _)| {
            key.starts_with(&prefix)
                && !self.known.contains(*key)
                && !options.ignored_config_fields.iter().any(|ignored| ignored == key)
        });
        let path = self.metadata.path();
        if let Some((key, value)) = unknown {
            let (path, field, found) = (path.to_owned(), key.to_owned(), value.to_string());
            return Err(Error::UnknownField { path, field, found });
        }
        let origin = |field: String| self.origins.get(&field).cloned().unwrap_or(field);
        config::read(path, &self.json, options).map_err(|error| match error {
            Error::Field { path, field, expected, found } => {
                Error::Field { path, field: origin(field), expected, found }
            }
            Error::MissingField { path, field, expected } => {
                Error::MissingField { path, field: origin(field), expected }
            }
            other => other,
        })
    }
}

/// A float32 as the decimal that it was rounded from: 0.0001 and not 0.000099999997.
fn as_written(number: f64) -> f64 {
    let narrow = number as f32;
    if f64::from(narrow) == number { narrow.to_string().parse().unwrap_or(number) } else { number }
}
