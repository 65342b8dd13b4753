//! Whatever bytes `config.json` holds: an error, or a config whose numbers fit together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::{ModelConfig, OpenOptions, config};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = config::parse(Path::new("config.json"), bytes, &OpenOptions::default()) else { return };
    let ModelConfig::Qwen3_5Moe(model) = config.model;
    assert_eq!(model.layer_types.len(), model.num_hidden_layers);
    assert_eq!(model.rope.mrope_section.iter().sum::<usize>() * 2, model.rotary_dim());
    assert!(model.rotary_dim() <= model.head_dim);
    assert!(model.num_attention_heads % model.num_key_value_heads == 0);
    assert!(model.linear_num_value_heads % model.linear_num_key_heads == 0);
    assert!(model.num_experts_per_tok <= model.num_experts);
});
