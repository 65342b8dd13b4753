"""Writes the float32 checkpoint that an MLX 4-bit folder means, in Hugging Face's names: w = float32(scale) * q + float32(bias).

perplexity.py can then tell what an exact engine must get from the quantised file.

    python dequantise.py ../../models/demo demo-float32
"""
import argparse, json, os, re, shutil

import torch
from safetensors.torch import load_file, save_file


def unpack(words, bits):
    """int32 words [..., n] of a little-endian bit stream -> float32 codes [..., n * 32 / bits]; bits divides 32."""
    shifts = torch.arange(0, 32, bits)
    codes = (words.long()[..., None] >> shifts) & ((1 << bits) - 1)
    return codes.flatten(-2).float()


def dequantise(words, scales, biases, bits, group_size):
    """[..., out, in] float32 from affine groups along the last axis."""
    codes = unpack(words.view(torch.int32), bits).unflatten(-1, (-1, group_size))
    return (codes * scales.float()[..., None] + biases.float()[..., None]).flatten(-2)


def tensors(folder, quantization):
    """Every tensor of the MLX folder as float32, under its MLX name."""
    files = load_file(os.path.join(folder, "model.safetensors"))
    for name, value in files.items():
        module = name.removesuffix(".weight")
        if name.endswith((".scales", ".biases")): continue
        if module + ".scales" in files:
            how = quantization.get(module, quantization)
            yield name, dequantise(value, files[module + ".scales"], files[module + ".biases"], how["bits"], how["group_size"])
        else:
            yield name, value.float()


def hub_names(named):
    """MLX names and conventions -> Hugging Face's: norms centred at zero, conv1d [C, 1, K], gate and up fused."""
    out = {}
    for name, value in named:
        name = name.removeprefix("language_model.")
        if re.search(r"(layernorm|model\.norm|q_norm|k_norm)\.weight$", name): value = value - 1
        if name.endswith("conv1d.weight"): value = value.movedim(1, 2)
        out[name] = value
    for name in [n for n in out if n.endswith("switch_mlp.gate_proj.weight")]:
        mlp = name.removesuffix("switch_mlp.gate_proj.weight")
        gate, up, down = (out.pop(f"{mlp}switch_mlp.{part}_proj.weight") for part in ("gate", "up", "down"))
        out[mlp + "experts.gate_up_proj"], out[mlp + "experts.down_proj"] = torch.cat([gate, up], 1), down
    return {name: value.contiguous() for name, value in out.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mlx")
    p.add_argument("out")
    o = p.parse_args()
    os.makedirs(o.out, exist_ok=True)
    config = json.load(open(os.path.join(o.mlx, "config.json")))
    quantization = config.pop("quantization")
    config.pop("quantization_config", None)
    config |= dict(architectures=["Qwen3_5MoeForCausalLM"], model_type="qwen3_5_moe_text", dtype="float32")
    config["rope_parameters"]["rope_type"] = config["rope_parameters"].pop("type")
    json.dump(config, open(os.path.join(o.out, "config.json"), "w"), indent=2)
    save_file(hub_names(tensors(o.mlx, quantization)), os.path.join(o.out, "model.safetensors"), metadata={"format": "pt"})
    shutil.copy(os.path.join(o.mlx, "tokenizer.json"), o.out)


if __name__ == "__main__":
    main()
