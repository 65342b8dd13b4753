//! Fields of `config.json` that cannot change what a text model computes. This is the only list of them: a field is on
//! it with a reason, is read by its family, or is an error.

use serde_json::Value;

/// Fields that are passed over for one reason.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Ignorable {
    /// Why they change nothing.
    pub reason: &'static str,
    /// Their names.
    pub fields: &'static [&'static str],
}

/// A field of a config that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredField {
    /// The field, with dots.
    pub field: String,
    /// Why it changes nothing.
    pub reason: &'static str,
}

/// Fields of every family that may have any value.
pub const IGNORABLE: &[Ignorable] = &[
    Ignorable {
        reason: "says who made the file, and with what",
        fields: &[
            "_attn_implementation_autoset",
            "_commit_hash",
            "_name_or_path",
            "architectures",
            "auto_map",
            "base_model",
            "custom_pipelines",
            "finetuned_from",
            "is_llama_derived_model",
            "mlx_lm_version",
            "mlx_vlm_version",
            "model_name",
            "name_or_path",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_fixed_mtp",
            "unsloth_version",
        ],
    },
    Ignorable {
        reason: "the tensors say how they are stored",
        fields: &["dtype", "torch_dtype", "use_bfloat16"],
    },
    Ignorable {
        reason: "used in training alone",
        fields: &[
            "attention_dropout",
            "aux_loss_alpha",
            "classifier_dropout",
            "embd_pdrop",
            "gradient_checkpointing",
            "hidden_dropout",
            "hidden_dropout_prob",
            "initializer_factor",
            "initializer_range",
            "resid_pdrop",
            "router_aux_loss_coef",
            "router_jitter_noise",
            "router_z_loss_coef",
            "seq_aux",
            "z_loss_coef",
        ],
    },
    Ignorable {
        reason: "says how work is spread over devices or kernels",
        fields: &[
            "_attn_implementation",
            "_experts_implementation",
            "_flash_attn_2_enabled",
            "attn_implementation",
            "chunk_size_feed_forward",
            "ep_size",
            "experts_implementation",
            "moe_implementation",
            "pretraining_tp",
            "torchscript",
        ],
    },
    Ignorable {
        reason: "says what transformers returns, or of which task the head was",
        fields: &[
            "finetuning_task",
            "id2label",
            "is_decoder",
            "label2id",
            "num_labels",
            "output_attentions",
            "output_hidden_states",
            "output_router_logits",
            "prefix",
            "problem_type",
            "return_dict",
            "task_specific_params",
            "tf_legacy_loss",
            "use_return_dict",
        ],
    },
    Ignorable {
        reason: "the tokenizer and generation_config.json decide it",
        fields: &[
            "bos_token_id",
            "cls_token_id",
            "decoder_start_token_id",
            "eos_token_id",
            "mask_token_id",
            "model_max_length",
            "pad_token_id",
            "sep_token_id",
            "tokenizer_class",
            "unk_token_id",
        ],
    },
    Ignorable {
        reason: "sets how text is generated, which requests and generation_config.json decide",
        fields: &[
            "assistant_confidence_threshold",
            "assistant_early_exit",
            "assistant_ensemble_weight",
            "assistant_lookbehind",
            "bad_words_ids",
            "begin_suppress_tokens",
            "cache_config",
            "cache_implementation",
            "compile_config",
            "constraints",
            "continuous_batching_config",
            "disable_compile",
            "diversity_penalty",
            "do_sample",
            "dola_layers",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "encoder_repetition_penalty",
            "epsilon_cutoff",
            "eta_cutoff",
            "exponential_decay_length_penalty",
            "force_words_ids",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "generation_config",
            "guidance_scale",
            "is_assistant",
            "length_penalty",
            "low_memory",
            "max_cache_len",
            "max_length",
            "max_matching_ngram_size",
            "max_new_tokens",
            "max_time",
            "min_length",
            "min_new_tokens",
            "min_p",
            "no_repeat_ngram_size",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "output_logits",
            "output_scores",
            "penalty_alpha",
            "prefill_chunk_size",
            "prompt_lookup_num_tokens",
            "remove_invalid_values",
            "renormalize_logits",
            "repetition_penalty",
            "return_dict_in_generate",
            "sequence_bias",
            "speculation_type",
            "stop_strings",
            "suppress_tokens",
            "target_lookbehind",
            "temperature",
            "token_healing",
            "top_h",
            "top_k",
            "top_p",
            "typical_p",
            "use_cache",
            "use_mtp",
            "watermarking_config",
        ],
    },
];

/// Fields of every family that change nothing with one value, and are refused with another.
pub(super) fn harmless(field: &str, value: &Value) -> Option<bool> {
    Some(match field {
        "add_cross_attention" | "is_encoder_decoder" | "tie_encoder_decoder" | "use_mrope" => {
            value.as_bool() == Some(false)
        }
        _ => return None,
    })
}

/// Why a field is passed over whatever its value, if it is.
pub(super) fn reason(field: &str) -> Option<&'static str> {
    IGNORABLE.iter().find(|group| group.fields.contains(&field)).map(|group| group.reason)
}

/// Returns true for `null` and for an empty list, object or string.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
