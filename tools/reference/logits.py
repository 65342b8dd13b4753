"""What transformers computes in float32 from given weights: shared by the scripts that make quantised references."""

import json
import pathlib
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

GREEDY = 16
# Of longer prompts the greedy tokens are kept, and no logits.
LONGEST = 64


def checkpoint(folder, config, tensors):
    """Writes a checkpoint; returns its folder."""
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def prompts_of(family):
    """The prompts of a family's reference."""
    known = load_file(family / "ref_hf.safetensors")
    return {name: known[f"{name}.ids"] for name in ("p0", "p1", "p2", "p3", "p4")}


def reference(config, weights, prompts):
    """Logits of all prompts and sixteen greedy tokens after each, of a checkpoint with these weights."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(pathlib.Path(folder), config, weights)
        model_class = getattr(transformers, config["architectures"][0])
        model, info = model_class.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"], info
    model.eval()

    out = {}
    with torch.no_grad():
        for name, ids in prompts.items():
            logits = model(input_ids=ids.long()[None]).logits[0]
            out[f"{name}.ids"] = ids
            if len(ids) <= LONGEST:
                out[f"{name}.logits"] = logits.contiguous()
            greedy, step = [], model(input_ids=ids.long()[None], use_cache=True)
            for _ in range(GREEDY):
                greedy.append(int(step.logits[0, -1].argmax()))
                step = model(input_ids=torch.tensor([greedy[-1:]]), past_key_values=step.past_key_values, use_cache=True)
            out[f"{name}.greedy"] = torch.tensor(greedy, dtype=torch.int32)
    return out
