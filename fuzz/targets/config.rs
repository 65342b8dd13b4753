//! Whatever bytes `config.json` holds: an error, or a config whose numbers fit together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::{AttentionConfig, ModelConfig, MoeConfig, OpenOptions, config};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = config::parse(Path::new("config.json"), bytes, &OpenOptions::default()) else { return };
    let layers = config.model.num_hidden_layers();
    match config.model {
        ModelConfig::Qwen3_5Moe(model) | ModelConfig::Qwen3Next(model) => {
            assert_eq!((model.layer_types.len(), model.mlp_types.len()), (layers, layers));
            let sections = model.attention.rope.mrope_section.iter().sum::<usize>();
            assert!(sections == 0 || sections * 2 == model.attention.rope.rotary_dim);
            assert!(model.delta_net.linear_num_value_heads % model.delta_net.linear_num_key_heads == 0);
            check(&model.attention, &model.moe);
        }
        ModelConfig::Qwen3Moe(model) => {
            assert_eq!(model.mlp_types.len(), layers);
            check(&model.attention, &model.moe);
        }
        ModelConfig::Glm4Moe(model) => {
            assert_eq!(model.mlp_types.len(), layers);
            let in_group = model.moe.num_experts / model.router.n_group;
            assert!(in_group * model.router.topk_group >= model.moe.num_experts_per_tok);
            check(&model.attention, &model.moe);
        }
        ModelConfig::Mixtral(model) => check(&model.attention, &model.moe),
        ModelConfig::Olmoe(model) => check(&model.attention, &model.moe),
        _ => {}
    }
});

fn check(attention: &AttentionConfig, moe: &MoeConfig) {
    let rotary_dim = attention.rope.rotary_dim;
    assert!(0 < rotary_dim && rotary_dim <= attention.head_dim && rotary_dim % 2 == 0);
    assert!(attention.num_attention_heads % attention.num_key_value_heads == 0);
    assert!(moe.num_experts_per_tok <= moe.num_experts);
}
