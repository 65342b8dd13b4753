"""What transformers computes in float32 from a checkpoint of tests/data with some fields of its config changed.

    pip install torch transformers accelerate safetensors
    python tools/reference/variant.py DATA/deepseek_v2 groups \
        '{"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5}'

DATA is a copy of `tests/data` with all files written (`cargo run --release -p moeflux-testing -- write DATA`).
Reads the prompts of `ref_hf.safetensors`, writes `ids`, `logits` (of those that have them there) and `greedy` of each to
`ref_groups.safetensors`.

`rope_parameters` may differ between types of layers in any family: layers over a sliding window are then given cosines and sines of
their own, as Gemma 3's are.
"""

import copy
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

NEW_TOKENS = 16

family, name, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
with tempfile.TemporaryDirectory() as scratch:
    folder = Path(shutil.copytree(family / "hf", Path(scratch) / "hf"))
    config = json.loads((folder / "config.json").read_text()) | changes
    # `null` takes a field away.
    config = {field: value for field, value in config.items() if value is not None or field not in changes}
    by_layer_type = config.get("rope_parameters", {})
    if "sliding_attention" in by_layer_type:
        config["rope_parameters"] = by_layer_type["full_attention"]
    (folder / "config.json").write_text(json.dumps(config))
    cls = getattr(transformers, config["architectures"][0])
    model, info = cls.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
assert not info["missing_keys"] and not info["unexpected_keys"], info

if "sliding_attention" in by_layer_type:
    local = copy.deepcopy(model.config)
    local.rope_parameters = by_layer_type["sliding_attention"]
    rotary = type(model.model.rotary_emb)(local)

    def turn(layer, arguments, named):
        return arguments, named | {"position_embeddings": rotary(arguments[0], named["position_ids"])}

    for layer, kind in zip(model.model.layers, model.config.layer_types, strict=True):
        if kind == "sliding_attention":
            layer.register_forward_pre_hook(turn, with_kwargs=True)

known = load_file(family / "ref_hf.safetensors")
tensors = {}
for key, ids in known.items():
    prompt, _, kind = key.partition(".")
    if kind != "ids" or not prompt.startswith("p"):
        continue
    with torch.no_grad():
        out = model.eval()(input_ids=torch.tensor(ids.astype(np.int64))[None], use_cache=True)
        tensors[key] = ids
        if f"{prompt}.logits" in known:
            tensors[f"{prompt}.logits"] = out.logits[0].numpy()
        greedy = []
        for _ in range(NEW_TOKENS):
            greedy.append(int(out.logits[0, -1].argmax()))
            out = model(input_ids=torch.tensor([greedy[-1:]]), past_key_values=out.past_key_values, use_cache=True)
    tensors[f"{prompt}.greedy"] = np.array(greedy, np.int32)
save_file(tensors, family / f"ref_{name}.safetensors")
