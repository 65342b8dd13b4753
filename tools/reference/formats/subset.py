"""A very small dense model in every format of `packers.py`, as its package writes it, and what transformers computes in float32
from the values that the package reads back: `tests/data/formats`, which `crates/moeflux/tests/it/packages.rs` compares with.

    python tools/reference/formats/subset.py tests/data/formats

Writes `plain.safetensors` (what is quantised nowhere), a file of quantised modules for each format, and `formats.json`: the
config, the tokens, and of each format its `quantization_config` and the log-probability of each token behind the first.
"""

import json
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import save_file

import compare
import doubles
import packers
import writers

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
config = doubles.published("Qwen3-8B") | dict(
    num_hidden_layers=1, hidden_size=128, intermediate_size=128, num_attention_heads=2, num_key_value_heads=2, head_dim=64,
    tie_word_embeddings=True)
torch.manual_seed(3)
state = {}
for name, weight in doubles.model_class(config)(doubles.config_object(config)).state_dict().items():
    random = torch.randn_like(weight)
    random = 1 + 0.2 * random if weight.ndim == 1 else random * (0.2 if "embed" in name else 1.7 / weight.shape[-1] ** 0.5)
    state[name] = random.to(torch.bfloat16)
state.pop("lm_head.weight")

plain, formats, taken = {}, {}, set()
for packer in packers.PACKERS:
    tensors, values, block = packer.checkpoint(state)
    plain = {name: tensor for name, tensor in tensors.items() if name in state and tensor is state[name]}
    file = packer.name.lower().replace(", ", "-").replace(" ", "-") + ".safetensors"
    assert file not in taken
    taken.add(file)
    save_file({name: tensor for name, tensor in tensors.items() if name not in plain}, folder / file)
    with tempfile.TemporaryDirectory() as wide:
        logprobs = compare.logprobs_of(writers.save(pathlib.Path(wide) / "wide", config, values), config)
    own = logprobs[:-1].gather(1, torch.tensor(compare.IDS[1:])[:, None])[:, 0]
    formats[packer.name] = {"file": file, "quantization_config": block, "logprobs": [round(x, 6) for x in own.tolist()]}
    print(packer.name, own.mean().item(), flush=True)
save_file(plain, folder / "plain.safetensors")
(folder / "formats.json").write_text(json.dumps({"config": config, "tokens": compare.IDS, "formats": formats}) + "\n")
