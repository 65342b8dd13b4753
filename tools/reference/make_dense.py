"""Tiny dense models with random weights, and what transformers computes from them in float32.

    pip install torch transformers safetensors
    python tools/reference/make_dense.py tests/data

Writes `qwen3/hf`, `llama/hf`, `qwen2/hf`, `qwen3_5/hf` and `ref_hf.safetensors` of each, or of those that are named behind
the folder; tokenizer and prompts are those of `qwen3_moe`.
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers

from logits import checkpoint, prompts_of, reference, save_file

data = pathlib.Path(sys.argv[1])
SIZES = dict(hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=512, max_position_embeddings=256, rms_norm_eps=1e-6, bos_token_id=502, eos_token_id=504)


def make(family, config, tied):
    torch.manual_seed(7)
    model = getattr(transformers, config.architectures[0])(config)
    weights = {}
    for name, weight in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        # Wide enough that every part counts, norms around 1.
        random = torch.randn_like(weight, dtype=torch.float32)
        # Norms of Qwen3.5 but one, biases and `dt_bias` are around 0.
        around_one = weight.ndim == 1 and not name.endswith("bias")
        around_one = around_one and (family != "qwen3_5" or "linear_attn" in name)
        weights[name] = (1 + 0.2 * random if around_one else (0.2 if weight.ndim == 1 else 0.1) * random).to(torch.bfloat16)
    folder = data / family / "hf"
    folder.mkdir(parents=True, exist_ok=True)
    fields = json.loads(config.to_json_string())
    # Where published configs of these families have it.
    if family != "qwen3_5":
        fields["rope_theta"] = fields.pop("rope_parameters")["rope_theta"]
    checkpoint(folder, fields, weights)
    for file in (data / "qwen3_moe" / "hf").glob("tokenizer*"):
        shutil.copy(file, folder)
    floats = {name: weight.float() for name, weight in weights.items()}
    save_file(reference(fields, floats, prompts_of(data / "qwen3_moe")), data / family / "ref_hf.safetensors")


FAMILIES = {
    "qwen3": (lambda: transformers.Qwen3Config(
        architectures=["Qwen3ForCausalLM"], head_dim=48, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **SIZES), True),
    "llama": (lambda: transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"], tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5}, **SIZES), False),
    # Every layer from the second on slides.
    "qwen2": (lambda: transformers.Qwen2Config(
        architectures=["Qwen2ForCausalLM"], tie_word_embeddings=False, use_sliding_window=True, sliding_window=24,
        max_window_layers=1, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **SIZES), False),
    "qwen3_5": (lambda: transformers.Qwen3_5TextConfig(
        architectures=["Qwen3_5ForCausalLM"], head_dim=64, tie_word_embeddings=False, linear_key_head_dim=32,
        linear_value_head_dim=32, linear_num_key_heads=2, linear_num_value_heads=4,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25,
                         "mrope_interleaved": True, "mrope_section": [3, 3, 2]}, **SIZES), False),
}
for family in sys.argv[2:] or FAMILIES:
    config, tied = FAMILIES[family]
    make(family, config(), tied)
