"""Scaled-down doubles of published models: their `config.json` with every field kept and sizes cut, and random weights."""

import copy
import json
import pathlib
import shutil

import torch
import transformers

DATA = pathlib.Path(__file__).parents[3] / "tests" / "data"
PUBLISHED = json.loads((DATA / "published_configs.json").read_text())

# What a model is called in the table, and whose config it has.
DOUBLES = {
    "Qwen3-0.6B": "Qwen/Qwen3-0.6B",
    "Qwen3-8B": "Qwen/Qwen3-8B",
    "Qwen3-235B-A22B": "Qwen/Qwen3-235B-A22B",
    "Qwen3-Coder-30B-A3B": "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    "Qwen3-Next-80B-A3B": "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen3.5-27B": "Qwen/Qwen3.5-27B",
    "Qwen3.5-35B-A3B": "Qwen/Qwen3.5-35B-A3B",
    "DeepSeek-V2-Lite": "deepseek-ai/DeepSeek-V2-Lite",
    "DeepSeek-V3": "deepseek-ai/DeepSeek-V3",
    "Kimi-K2": "moonshotai/Kimi-K2-Instruct",
    "Llama-3.1-8B": "meta-llama/Meta-Llama-3.1-8B",
    "Mixtral-8x7B": "mistralai/Mixtral-8x7B-v0.1",
    "OLMoE-1B-7B": "allenai/OLMoE-1B-7B-0125-Instruct",
    "gpt-oss-20b": "openai/gpt-oss-20b",
}

# Families of which no published config is stored: transformers' own, with what published ones set otherwise.
TYPED = {
    "Mistral-7B": dict(
        architectures=["MistralForCausalLM"], model_type="mistral", hidden_act="silu", num_attention_heads=32,
        num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False,
        max_position_embeddings=32768, bos_token_id=1, eos_token_id=2),
    "Qwen2.5-7B": dict(
        architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_act="silu", num_attention_heads=28,
        num_key_value_heads=4, rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=131072, max_window_layers=28,
        use_sliding_window=False, tie_word_embeddings=False, max_position_embeddings=131072),
    "GLM-4.5-Air": dict(
        architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe", hidden_act="silu", attention_bias=True, head_dim=128,
        num_attention_heads=96, num_key_value_heads=8, partial_rotary_factor=0.5, rms_norm_eps=1e-5, rope_scaling=None,
        rope_theta=1000000, use_qk_norm=False, first_k_dense_replace=1, n_routed_experts=128, n_shared_experts=1,
        num_experts_per_tok=8, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.0,
        moe_intermediate_size=1408, num_nextn_predict_layers=1, tie_word_embeddings=False,
        max_position_embeddings=131072),
}

LAYERS, WIDTH = 4, 256


def cut(config):
    """Cuts sizes where they may be cut without another kind of model coming of it."""
    config["vocab_size"], config["hidden_size"], config["num_hidden_layers"] = 512, WIDTH, LAYERS
    for name in "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size":
        if config.get(name) or name == "intermediate_size":
            config[name] = WIDTH
    for name in "num_experts", "num_local_experts", "n_routed_experts":
        if config.get(name):
            config[name] = min(config[name], 16)
    if "num_experts_per_tok" in config:
        for name in "num_experts_per_tok", "experts_per_token":
            if name in config:
                config[name] = min(config[name], 8)
    heads = config["num_attention_heads"]
    if "kv_lora_rank" in config:
        config["num_attention_heads"] = config["num_key_value_heads"] = 4
        config["kv_lora_rank"] = WIDTH
        config["q_lora_rank"] = config.get("q_lora_rank") and WIDTH
    else:
        kv = config["num_key_value_heads"]
        config["num_attention_heads"] = 4
        config["num_key_value_heads"] = 4 if kv == heads else 2
        config["num_key_value_heads"] = 1 if heads // kv >= 8 else config["num_key_value_heads"]
    if "linear_num_value_heads" in config:
        values = config["linear_num_value_heads"] // config["linear_num_key_heads"]
        config["linear_num_key_heads"], config["linear_num_value_heads"] = 2, 2 * values
    # Ids within the vocabulary.
    for name, token in ("bos_token_id", 502), ("eos_token_id", 504), ("pad_token_id", 504):
        if config.get(name) is not None:
            config[name] = token
    if config.get("layer_types"):
        config["layer_types"] = config["layer_types"][:LAYERS]
    if "num_nextn_predict_layers" in config:
        # Weights of the layer behind the last are not made.
        config["num_nextn_predict_layers"] = 0
    if "mtp_num_hidden_layers" in config:
        config["mtp_num_hidden_layers"] = 0
    return config


def published(name):
    """The double's config.json, without a quantization."""
    if name in TYPED:
        return cut(copy.deepcopy(TYPED[name]))
    config = copy.deepcopy(PUBLISHED[DOUBLES[name]]["config"])
    config.pop("quantization_config", None)
    # It names files of code, which are not here.
    config.pop("auto_map", None)
    cut(config.get("text_config", config))
    if "vision_config" in config:
        config["vision_config"] = {
            "model_type": config["model_type"], "depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4,
            "out_hidden_size": WIDTH, "in_channels": 3, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "num_position_embeddings": 16}
    return config


def model_class(config):
    return getattr(transformers, config["architectures"][0])


def config_object(config):
    fields = copy.deepcopy(config)
    kind = {"kimi_k2": "deepseek_v3"}.get(fields.pop("model_type"), config["model_type"])
    return transformers.AutoConfig.for_model(kind, **fields)


def make(name):
    """A model in bf16 whose every part counts: matrices that keep the size of what they multiply, norms around 1."""
    config = published(name)
    torch.manual_seed(sum(name.encode()))
    model = model_class(config)(config_object(config)).to(torch.bfloat16).eval()
    zero_centred = config["model_type"] in ("qwen3_5", "qwen3_5_moe", "qwen3_next")
    state = model.state_dict()
    for key, weight in state.items():
        if "visual" in key or not weight.is_floating_point():
            continue
        random = torch.randn_like(weight, dtype=torch.float32)
        if weight.ndim == 1:
            around_one = not key.endswith("bias") and (not zero_centred or "linear_attn" in key)
            random = 1 + 0.2 * random if around_one else 0.2 * random
            if key.endswith("e_score_correction_bias"):
                # mlx-lm takes 0 for the scores of groups that are left out, so that those of others must be above it.
                random = random.abs()
        elif "embed_tokens" not in key:
            fan_in = weight.shape[-2] if config["model_type"] == "gpt_oss" and ".experts." in key else weight.shape[-1]
            random *= 1.2 / fan_in ** 0.5
        weight.copy_(random)
    return config, model


def write_tokenizer(folder):
    for file in (DATA / "qwen3_moe" / "hf").glob("tokenizer*"):
        shutil.copy(file, folder)
