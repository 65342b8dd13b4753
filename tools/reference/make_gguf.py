"""GGUF files of the reference checkpoints, made by llama.cpp's own converter, and what transformers computes from the
same dequantised weights in float32.

    pip install torch transformers gguf safetensors
    python tools/reference/make_gguf.py LLAMA_CPP DATA [FAMILY ...]

LLAMA_CPP is a checkout of llama.cpp, with `conversion/` and `gguf-py/`. DATA is a copy of `tests/data` with all files written
(`cargo run --release -p moeflux-testing -- write DATA`). For each family this writes `FAMILY/gguf-q8_0/model.gguf` and
`FAMILY/ref_gguf-q8_0.safetensors`; `tests/data/README.md` says how the first comes into the repository.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from logits import checkpoint, prompts_of, reference

llama_cpp, data, families = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]

import gguf  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402
from conversion.base import TextModel  # noqa: E402

ALL = ["deepseek_v2", "deepseek_v3", "glm4_moe", "gpt_oss", "mixtral", "olmoe", "qwen3_5_moe", "qwen3_moe", "qwen3_next"]

# The reference tokenizer is none that the converter knows by its hash; it splits words as Qwen3.5's does.
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen35"
TextModel._set_vocab_glm = TextModel._set_vocab_gpt2
# Published models of these architectures have no dense layers; the reference checkpoints do.
for arch in gguf.MODEL_ARCH.QWEN3NEXT, gguf.MODEL_ARCH.QWEN3MOE:
    parts = gguf.MODEL_TENSOR.FFN_GATE, gguf.MODEL_TENSOR.FFN_DOWN, gguf.MODEL_TENSOR.FFN_UP
    gguf.MODEL_TENSORS[arch] += [part for part in parts if part not in gguf.MODEL_TENSORS[arch]]


def converter(folder, out):
    hparams = ModelBase.load_hparams(folder, False)
    model_class = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    return model_class(folder, gguf.LlamaFileType.MOSTLY_Q8_0, out, eager=True, model_name="reference")


def block_of(name):
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def dequantised(config, file, weights):
    """The checkpoint's weights as the file has them. Where each number went is found by converting a checkpoint whose
    numbers say where they are."""
    # Vectors are stored as they are, and some of them transformed; MXFP4 blocks are moved, not changed.
    matrices = {name: weight for name, weight in weights.items() if weight.ndim > 1 and weight.dtype != torch.uint8}
    names, bounds = list(matrices), np.cumsum([0] + [weight.numel() for weight in matrices.values()])
    indices = {name: torch.arange(start, start + weight.numel(), dtype=torch.float64).reshape(weight.shape)
               for (name, weight), start in zip(matrices.items(), bounds)}
    places = {}
    with tempfile.TemporaryDirectory() as folder:
        model = converter(checkpoint(pathlib.Path(folder), config, indices), file.with_suffix(".unused"))
        for name, tensor in model.get_tensors():
            for new_name, moved in model.modify_tensors(tensor, name, block_of(name)):
                places[new_name] = moved.numpy().astype(np.int64).reshape(-1)

    flat = {name: weight.float().reshape(-1) for name, weight in matrices.items()}
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.tensor_type != gguf.GGMLQuantizationType.Q8_0:
            continue
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).reshape(-1))
        place = places[tensor.name]
        owners = np.searchsorted(bounds, place, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            flat[names[owner]][place[mine] - bounds[owner]] = values[mine]
    floats = {name: flat[name].reshape(weight.shape) for name, weight in matrices.items()}
    return {name: weight if weight.dtype == torch.uint8 else weight.float() for name, weight in weights.items()} | floats


for family in families or ALL:
    folder = data / family / "hf"
    file = data / family / "gguf-q8_0" / "model.gguf"
    file.parent.mkdir(exist_ok=True)
    with torch.inference_mode():
        converter(folder, file).write()
    config = json.loads((folder / "config.json").read_text())
    weights = dequantised(config, file, load_file(folder / "model.safetensors"))
    save_file(reference(config, weights, prompts_of(data / family)), data / family / "ref_gguf-q8_0.safetensors")
