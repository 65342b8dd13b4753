"""FP8 checkpoints of the reference models, laid out as they are published, and what transformers computes in float32
from the same weights dequantised.

    pip install torch transformers safetensors
    python tools/reference/make_fp8.py DATA

DATA is a copy of `tests/data` with all files written (`cargo run --release -p moeflux-testing -- write DATA`);
`tests/data/README.md` says how new ones come into the repository.

Writes `deepseek_v3/fp8-block`, as DeepSeek-V3 has it: a scale for each block of 128 rows and columns. Writes
`qwen3_moe/fp8-channel`, as llm-compressor writes it: attention with one scale a tensor, and a static scale of its inputs
which no one computes with; experts with one a row. Then `ref_fp8-*.safetensors` of each, and `e4m3.safetensors`, what
each of the 256 codes stands for.
"""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file

from logits import checkpoint, prompts_of, reference, save_file

data = pathlib.Path(sys.argv[1])
LARGEST = torch.finfo(torch.float8_e4m3fn).max
PLAIN = ("lm_head", "embed_tokens", "mlp.gate", "norm")


def quantised(weight, rows, cols, dtype=torch.float32):
    """Codes and scales, one for each block of so many rows and columns, and the product of both in float32."""
    weight = weight.float()
    starts = [range(0, weight.shape[0], rows), range(0, weight.shape[1], cols)]
    blocks = [[weight[r:r + rows, c:c + cols] for c in starts[1]] for r in starts[0]]
    scales = torch.tensor([[float(block.abs().max()) / LARGEST for block in row] for row in blocks]).to(dtype)
    spread = scales.float().repeat_interleave(rows, 0)[:weight.shape[0]].repeat_interleave(cols, 1)[:, :weight.shape[1]]
    codes = (weight / spread).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return codes, scales, codes.float() * spread


def block(module, weight):
    codes, scales, values = quantised(weight, 128, 128)
    return {"weight": codes, "weight_scale_inv": scales}, values


def tensor_or_channel(module, weight):
    if ".self_attn." in module:
        codes, scale, values = quantised(weight, *weight.shape)
        return {"weight": codes, "weight_scale": scale.reshape(1), "input_scale": torch.tensor([0.02])}, values
    codes, scales, values = quantised(weight, 1, weight.shape[1], torch.bfloat16)
    return {"weight": codes, "weight_scale": scales}, values


def args(strategy, dynamic):
    return {"actorder": None, "block_structure": None, "dynamic": dynamic, "group_size": None, "num_bits": 8,
            "observer": "minmax", "observer_kwargs": {}, "strategy": strategy, "symmetric": True, "type": "float"}


def group(targets, weights, inputs, dynamic):
    return {"input_activations": args(inputs, dynamic), "output_activations": None, "targets": targets,
            "weights": args(weights, False)}


def make(family, name, quantise, quantization_config):
    source = data / family / "hf"
    config = json.loads((source / "config.json").read_text())
    stored, values = {}, {}
    for tensor, weight in load_file(source / "model.safetensors").items():
        module = tensor.removesuffix(".weight")
        if weight.ndim == 2 and not module.endswith(PLAIN):
            parts, values[tensor] = quantise(module, weight)
            stored |= {f"{module}.{part}": value.contiguous() for part, value in parts.items()}
        else:
            stored[tensor], values[tensor] = weight, weight.float()
    folder = data / family / name
    folder.mkdir(exist_ok=True)
    for file in source.glob("tokenizer*"):
        shutil.copy(file, folder)
    checkpoint(folder, config | {"quantization_config": quantization_config}, stored)
    save_file(reference(config, values, prompts_of(data / family)), data / family / f"ref_{name}.safetensors")


codes = torch.arange(256, dtype=torch.uint8)
save_file({"values": codes.view(torch.float8_e4m3fn).float()}, data / "e4m3.safetensors")
make("deepseek_v3", "fp8-block", block, {
    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]})
make("qwen3_moe", "fp8-channel", tensor_or_channel, {
    "config_groups": {"group_0": group(["re:.*self_attn.*"], "tensor", "tensor", False),
                      "group_1": group(["re:.*mlp.*proj"], "channel", "token", True)},
    "format": "float-quantized", "global_compression_ratio": None, "ignore": ["re:.*lm_head", "re:.*mlp.gate$"],
    "kv_cache_scheme": None, "quant_method": "compressed-tensors", "quantization_status": "compressed"})
