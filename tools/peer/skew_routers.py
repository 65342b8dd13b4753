#!/usr/bin/env python3
"""Makes some experts of a GGUF file of random weights popular, in place: skew_routers.py MODEL.gguf [--skew 0.35] [--seed 0]

The routers of random weights visit all experts alike, which no trained model does, and which leaves a cache nothing to
keep. As in `moeflux bench make-model --router-skew`, each row of a router is scaled by the exponential of a normal number
of standard deviation SKEW. Needs `pip install gguf`. Run twice, it scales twice.
"""
import argparse

import gguf
import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("--skew", type=float, default=0.35)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

random = np.random.default_rng(args.seed)
for tensor in gguf.GGUFReader(args.model, "r+").tensors:
    if tensor.name.endswith("ffn_gate_inp.weight"):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32, f"{tensor.name} is {tensor.tensor_type.name}, not F32"
        rows = tensor.data
        rows *= np.exp(args.skew * random.standard_normal((len(rows), 1), dtype=np.float32))
        print(tensor.name)
