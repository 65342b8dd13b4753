"""The frequencies of rotary embeddings that transformers computes from configs, in every spelling and type.

    pip install torch transformers
    python tools/reference/rope_vectors.py tests/data/rope_vectors.json

Each case has the fields of a config that matter, the `inv_freq` and `attention_scaling` of `LlamaRotaryEmbedding` for
sequences up to the original context and, where they differ behind it, `long_inv_freq` for a sequence of `long` tokens.
Where layers over a sliding window turn otherwise, both are by `Gemma3RotaryEmbedding`, and theirs begin with `sliding_`.
"""

import json
import sys

import torch
import transformers
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = dict(model_type="llama", vocab_size=512, hidden_size=128, intermediate_size=192, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6, max_position_embeddings=4096)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
SHORT = [1 + 0.03 * i for i in range(32)]
LONG = [1 + 0.9 * i for i in range(32)]
YARN = dict(factor=4.0, original_max_position_embeddings=1024)
LONGROPE = dict(short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=1024)

CASES = [
    dict(rope_theta=5e5, max_position_embeddings=131072, rope_scaling=dict(rope_type="llama3", **LLAMA3)),
    dict(rope_theta=5e5, max_position_embeddings=131072, rope_scaling=dict(type="llama3", **LLAMA3)),
    dict(max_position_embeddings=131072, rope_parameters=dict(rope_type="llama3", rope_theta=5e5, **LLAMA3)),
    # As Llama 3.2 has it.
    dict(rope_theta=5e5, max_position_embeddings=131072, rope_scaling=dict(rope_type="llama3", **LLAMA3 | {"factor": 32.0})),
    dict(rope_theta=5e5, head_dim=128, max_position_embeddings=131072, rope_scaling=dict(rope_type="llama3", **LLAMA3)),
    # Without the original context: the context is.
    dict(rope_theta=1e4, rope_scaling=dict(rope_type="llama3", factor=2.0, low_freq_factor=1.0, high_freq_factor=2.0)),
    dict(rope_theta=1e4, rope_scaling=dict(type="linear", factor=4.0)),
    dict(rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=1e6)),
    dict(rope_theta=1e4, rope_scaling=dict(type="dynamic", factor=2.0)),
    dict(rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=1e4)),
    dict(rope_theta=1e4, rope_scaling=dict(type="yarn", **YARN)),
    dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e6, beta_fast=16, beta_slow=2, attention_factor=1.5, **YARN)),
    dict(rope_parameters=dict(rope_type="yarn", rope_theta=150000.0, truncate=False, **YARN)),
    dict(rope_theta=1e4, rope_scaling=dict(type="yarn", factor=2.0)),
    dict(rope_theta=1e4, rope_scaling=dict(type="yarn", mscale=1.0, mscale_all_dim=0.7, **YARN)),
    dict(rope_theta=1e4, rope_scaling=dict(type="longrope", **LONGROPE)),
    dict(rope_parameters=dict(rope_type="longrope", rope_theta=1e4, factor=8.0, attention_factor=1.25, **LONGROPE)),
    # Where Phi-3 has it.
    dict(rope_theta=1e4, original_max_position_embeddings=2048,
         rope_scaling=dict(type="longrope", short_factor=SHORT, long_factor=LONG)),
    dict(rope_theta=1e4, rope_scaling=None),
    dict(),
]

SLIDES = dict(model_type="qwen3", head_dim=64, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"],
              use_sliding_window=True, sliding_window=512)
LOCAL = dict(rope_type="default", rope_theta=1e4)
BY_LAYER_TYPE = [
    dict(rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=1e6), sliding_attention=LOCAL)),
    # As Gemma 3 has it, in both forms.
    dict(max_position_embeddings=131072, rope_parameters=dict(
        full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6), sliding_attention=LOCAL)),
    dict(max_position_embeddings=131072, rope_theta=1e6, rope_local_base_freq=1e4,
         rope_scaling=dict(rope_type="linear", factor=8.0)),
    dict(rope_theta=1e6, rope_local_base_freq=1e4),
    dict(rope_parameters=dict(full_attention=dict(rope_type="yarn", rope_theta=1e6, **YARN), sliding_attention=LOCAL)),
    dict(max_position_embeddings=131072, rope_parameters=dict(
        full_attention=dict(rope_type="llama3", rope_theta=5e5, **LLAMA3),
        sliding_attention=dict(rope_type="yarn", rope_theta=1e4, attention_factor=1.5, **YARN))),
]


def frequencies(rope, length):
    rope(torch.zeros(1, 1, 1), torch.tensor([[length - 1]]))
    return [float(x) for x in rope.inv_freq]


vectors = []
for case in CASES:
    fields = BASE | case
    config = transformers.LlamaConfig(**json.loads(json.dumps(fields)))
    rope = LlamaRotaryEmbedding(config)
    vector = dict(config=fields, inv_freq=frequencies(rope, 1), attention_factor=float(rope.attention_scaling))
    kind = config.rope_parameters["rope_type"]
    if kind in ("dynamic", "longrope"):
        vector["long"] = 3 * fields["max_position_embeddings"]
        vector["long_inv_freq"] = frequencies(rope, vector["long"])
    vectors.append(vector)
for case in BY_LAYER_TYPE:
    fields = BASE | SLIDES | case
    # What is not of positions is named in another way there.
    own = {name: value for name, value in fields.items() if name not in ("model_type", "use_sliding_window")}
    rope = Gemma3RotaryEmbedding(transformers.Gemma3TextConfig(**json.loads(json.dumps(own))))
    vector = dict(config=fields)
    for layer_type, prefix in ("full_attention", ""), ("sliding_attention", "sliding_"):
        vector[f"{prefix}inv_freq"] = getattr(rope, f"{layer_type}_inv_freq").tolist()
        vector[f"{prefix}attention_factor"] = float(getattr(rope, f"{layer_type}_attention_scaling"))
    vectors.append(vector)
with open(sys.argv[1], "w") as file:
    json.dump({"transformers": transformers.__version__, "cases": vectors}, file, indent=1)
    file.write("\n")
