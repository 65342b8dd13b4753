"""Random weights as GPTQ, AWQ, compressed-tensors and modelopt lay them out, and their values.

    pip install numpy safetensors
    python tools/reference/packed_vectors.py tests/data/packed_vectors.safetensors

Codes, zeros and scales come first; they are packed by the rules of `auto_gptq.QuantLinear.pack`, AutoAWQ's
`WQLinear_GEMM.from_linear`, `compressed_tensors.compressors.pack_quantized.pack_to_int32` and modelopt's
`NVFP4QTensor`, one number at a time. Values are float32: what those packages compute where scales are widened first.
"""

import sys

import numpy as np
from safetensors.numpy import save_file

ROWS, COLS, GROUP = 32, 64, 32
random = np.random.default_rng(1)
tensors = {}


def bit_stream(numbers, bits):
    """Words of 32 bits along the last dimension, numbers one after the other from the lowest bit on."""
    n = numbers.shape[-1]
    words = np.zeros((*numbers.shape[:-1], n * bits // 32), np.uint32)
    for i in range(n):
        for bit in range(bits):
            at = i * bits + bit
            words[..., at // 32] |= ((numbers[..., i] >> bit & 1) << (at % 32)).astype(np.uint32)
    return words


def scales(shape, type=np.float16):
    return (random.uniform(0.001, 0.02, shape) * random.choice([-1, 1], shape)).astype(type)


def bfloat16(values):
    """Cut to the upper half of float32: as 16-bit numbers, and widened again."""
    halves = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return halves, (halves.astype(np.uint32) << 16).view(np.float32)


def add(case, values, **parts):
    for part, array in parts.items():
        # Everything is bytes to the reader.
        tensors[f"{case}.{part}"] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    tensors[f"{case}.values"] = values.astype(np.float32)


def integers(bits, columns_to_groups=None):
    """Codes `[ROWS, COLS]`, zeros and scales `[ROWS, groups]`, and the values."""
    groups = np.arange(COLS) // GROUP if columns_to_groups is None else columns_to_groups
    codes = random.integers(0, 1 << bits, (ROWS, COLS))
    zeros = random.integers(0, 1 << bits, (ROWS, COLS // GROUP))
    scale = scales((ROWS, COLS // GROUP))
    values = scale.astype(np.float32)[:, groups] * (codes - zeros[:, groups]).astype(np.float32)
    return codes, zeros, scale, values


for bits in [2, 3, 4, 8]:
    for version in [1, 2]:
        codes, zeros, scale, values = integers(bits)
        stored = zeros - 1 & (1 << bits) - 1 if version == 1 else zeros
        add(f"gptq{version}.b{bits}", values, codes=bit_stream(codes, bits).T, scales=scale.T, biases=bit_stream(stored.T, bits))

order = random.permutation(np.arange(COLS) // GROUP)
codes, zeros, scale, values = integers(4, order)
add("gptq2.b4.ordered", values, codes=bit_stream(codes, 4).T, scales=scale.T, biases=bit_stream(zeros.T, 4),
    groups=order.astype(np.uint16))

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
codes, zeros, scale, values = integers(4)


def awq(numbers):
    """`[n, rows]` to `[n, rows / 8]`: the i-th four bits of a word are number `ORDER[i]`."""
    words = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
    for i, number in enumerate(ORDER):
        words |= numbers[:, number::8].astype(np.uint32) << np.uint32(4 * i)
    return words


add("awq", values, codes=awq(codes.T), scales=scale.T, biases=awq(zeros.T))

for bits in [4, 8]:
    codes, zeros, scale, values = integers(bits)
    add(f"zeros_by_row.b{bits}", values, codes=bit_stream(codes, bits), scales=scale,
        biases=bit_stream(zeros.T, bits).T)

for bits in [3, 4, 8]:
    codes = random.integers(0, 1 << bits, (ROWS, COLS))
    halves, scale = bfloat16(scales((ROWS, COLS // GROUP), np.float32))
    values = scale.repeat(GROUP, axis=1) * (codes - (1 << bits - 1)).astype(np.float32)
    add(f"symmetric.b{bits}", values, codes=bit_stream(codes, bits), scales=halves)

codes = random.integers(-128, 128, (ROWS, COLS), dtype=np.int8)
scale = scales((ROWS, 1), np.float32)
add("signed", scale * codes.astype(np.float32), codes=codes, scales=scale)

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
for case, divided in [("nvfp4_divided", True), ("nvfp4_multiplied", False)]:
    codes = random.integers(0, 16, (ROWS, COLS))
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)
    scale = random.integers(0, 0x7F, (ROWS, COLS // 16), dtype=np.uint8)
    exponent, significand = (scale >> 3).astype(np.float32), (scale & 7).astype(np.float32)
    wide = np.where(exponent == 0, significand * 2.0**-9, (1 + significand / 8) * 2.0 ** (exponent - 7))
    wide, whole = wide.astype(np.float32), np.float32(3.7 if divided else 0.0123)
    wide = wide / whole if divided else wide * whole
    signed = np.where(codes < 8, E2M1[codes & 7], -E2M1[codes & 7])
    add(case, wide.repeat(16, axis=1) * signed, codes=packed, scales=scale, biases=whole.reshape(1))

save_file(tensors, sys.argv[1])
