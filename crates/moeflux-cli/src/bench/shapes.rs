//! Shapes of known models, and the tensors that an MLX checkpoint of one has.

use serde_json::{Value, json};

/// Models whose shapes are known, by name.
pub(super) const NAMES: [&str; 4] = ["35b-a3b", "397b-a17b", "demo", "35b-a3b-small"];

/// Sizes of a `qwen3_5_moe` model, called as in `config.json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    vocab_size: usize,
    hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    num_experts: usize,
    num_experts_per_tok: usize,
    /// Of routed experts and of the shared one.
    moe_intermediate_size: usize,
    linear_num_key_heads: usize,
    linear_num_value_heads: usize,
}

/// Channels of an attention head.
const HEAD_DIM: usize = 256;
/// Channels of a linear attention's key and value heads.
const LINEAR_DIM: usize = 128;
const CONV_KERNEL: usize = 4;
/// Every so many layers one attends to all tokens.
const INTERVAL: usize = 4;

impl Shape {
    /// The shape of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        let demo = Shape {
            vocab_size: 4096,
            hidden_size: 384,
            num_hidden_layers: 8,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            num_experts: 32,
            num_experts_per_tok: 4,
            moe_intermediate_size: 128,
            linear_num_key_heads: 2,
            linear_num_value_heads: 4,
        };
        let a3b = Shape {
            vocab_size: 248_320,
            hidden_size: 2048,
            num_hidden_layers: 40,
            num_attention_heads: 16,
            num_key_value_heads: 2,
            num_experts: 256,
            num_experts_per_tok: 8,
            moe_intermediate_size: 512,
            linear_num_key_heads: 16,
            linear_num_value_heads: 32,
        };
        match name {
            "demo" => Some(demo),
            // For tests: the same ways, layers in the same order and as many experts a token, but narrow, and with fewer
            // experts and heads.
            "35b-a3b-small" => Some(Shape {
                vocab_size: 4096,
                hidden_size: 256,
                num_hidden_layers: 4,
                num_attention_heads: 2,
                num_key_value_heads: 1,
                num_experts: 64,
                moe_intermediate_size: 128,
                linear_num_key_heads: 2,
                linear_num_value_heads: 4,
                ..a3b
            }),
            "35b-a3b" => Some(a3b),
            "397b-a17b" => Some(Shape {
                hidden_size: 4096,
                num_hidden_layers: 60,
                num_attention_heads: 32,
                num_experts: 512,
                num_experts_per_tok: 10,
                moe_intermediate_size: 1024,
                linear_num_value_heads: 64,
                ..a3b
            }),
            _ => None,
        }
    }

    /// `config.json`; with bits, its `quantization` has the routers at eight as MLX leaves them.
    pub(super) fn config(&self, bits: Option<u8>) -> Value {
        let mut config = json!({
            "architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe_text", "hidden_act": "silu",
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers, "full_attention_interval": INTERVAL,
            "num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads,
            "head_dim": HEAD_DIM, "num_experts": self.num_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "moe_intermediate_size": self.moe_intermediate_size,
            "shared_expert_intermediate_size": self.moe_intermediate_size,
            "linear_num_key_heads": self.linear_num_key_heads,
            "linear_num_value_heads": self.linear_num_value_heads,
            "linear_key_head_dim": LINEAR_DIM, "linear_value_head_dim": LINEAR_DIM,
            "linear_conv_kernel_dim": CONV_KERNEL, "max_position_embeddings": 262_144, "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25,
                "mrope_interleaved": true, "mrope_section": [11, 11, 10],
            },
            "tie_word_embeddings": false,
        });
        if let Some(bits) = bits {
            config["quantization"] = json!({ "bits": bits, "group_size": 64, "mode": "affine" });
            for layer in 0..self.num_hidden_layers {
                for gate in ["gate", "shared_expert_gate"] {
                    config["quantization"][format!("{}.mlp.{gate}", layer_name(layer))] =
                        json!({ "bits": 8, "group_size": 64 });
                }
            }
        }
        config
    }

    /// Embedding, last norm and output projection.
    pub(super) fn outer_tensors(&self) -> Vec<Spec> {
        vec![
            Spec::matrix("language_model.model.embed_tokens", &[self.vocab_size, self.hidden_size]),
            Spec::matrix("language_model.lm_head", &[self.vocab_size, self.hidden_size]),
            Spec::new("language_model.model.norm.weight", &[self.hidden_size], Kind::Ones),
        ]
    }

    /// Whatever a layer has.
    pub(super) fn layer_tensors(&self, layer: usize) -> Vec<Spec> {
        let Shape { hidden_size: hidden, num_experts: experts, moe_intermediate_size: width, .. } = *self;
        let name = layer_name(layer);
        let mut specs = Vec::new();
        let mut matrix =
            |part: &str, shape: &[usize]| specs.push(Spec::matrix(&format!("{name}.{part}"), shape));
        for (part, [rows, cols]) in
            [("gate_proj", [width, hidden]), ("up_proj", [width, hidden]), ("down_proj", [hidden, width])]
        {
            matrix(&format!("mlp.switch_mlp.{part}"), &[experts, rows, cols]);
            matrix(&format!("mlp.shared_expert.{part}"), &[rows, cols]);
        }
        matrix("mlp.shared_expert_gate", &[1, hidden]);
        let (keys, values) =
            (self.linear_num_key_heads * LINEAR_DIM, self.linear_num_value_heads * LINEAR_DIM);
        let (queries, kv) = (self.num_attention_heads * HEAD_DIM, self.num_key_value_heads * HEAD_DIM);
        let is_full = (layer + 1).is_multiple_of(INTERVAL);
        if is_full {
            matrix("self_attn.q_proj", &[2 * queries, hidden]);
            matrix("self_attn.k_proj", &[kv, hidden]);
            matrix("self_attn.v_proj", &[kv, hidden]);
            matrix("self_attn.o_proj", &[hidden, queries]);
        } else {
            matrix("linear_attn.in_proj_qkv", &[2 * keys + values, hidden]);
            matrix("linear_attn.in_proj_z", &[values, hidden]);
            matrix("linear_attn.in_proj_a", &[self.linear_num_value_heads, hidden]);
            matrix("linear_attn.in_proj_b", &[self.linear_num_value_heads, hidden]);
            matrix("linear_attn.out_proj", &[hidden, values]);
        }

        let mut vector =
            |part: &str, shape: &[usize], kind| specs.push(Spec::new(&format!("{name}.{part}"), shape, kind));
        vector("mlp.gate", &[experts, hidden], Kind::Router);
        vector("input_layernorm.weight", &[hidden], Kind::Ones);
        vector("post_attention_layernorm.weight", &[hidden], Kind::Ones);
        if is_full {
            vector("self_attn.q_norm.weight", &[HEAD_DIM], Kind::Ones);
            vector("self_attn.k_norm.weight", &[HEAD_DIM], Kind::Ones);
        } else {
            vector("linear_attn.norm.weight", &[LINEAR_DIM], Kind::Ones);
            vector("linear_attn.conv1d.weight", &[2 * keys + values, CONV_KERNEL, 1], Kind::Noise);
            vector("linear_attn.A_log", &[self.linear_num_value_heads], Kind::Decay);
            vector("linear_attn.dt_bias", &[self.linear_num_value_heads], Kind::Noise);
        }
        specs
    }
}

/// A tensor or module to be written.
pub(super) struct Spec {
    /// Of a linear map without `.weight`.
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
}

/// What is in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A linear map or a stack of them.
    Matrix,
    /// The linear map that chooses experts.
    Router,
    /// A norm's weights.
    Ones,
    /// Small numbers.
    Noise,
    /// Logarithms of decay rates, in float32.
    Decay,
}

impl Spec {
    fn new(name: &str, shape: &[usize], kind: Kind) -> Self {
        Spec { name: name.to_owned(), shape: shape.to_vec(), kind }
    }

    fn matrix(name: &str, shape: &[usize]) -> Self {
        Spec::new(name, shape, Kind::Matrix)
    }
}

fn layer_name(layer: usize) -> String {
    format!("language_model.model.layers.{layer}")
}
