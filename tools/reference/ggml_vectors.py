"""Random blocks of every GGML type that moeflux reads, and what the `gguf` package makes of them; of types that it does
not dequantise, what GGML's own library does (`libggml-base.so`, of any build of llama.cpp).

    pip install gguf safetensors
    python tools/reference/ggml_vectors.py tests/data/ggml_vectors.safetensors path/to/libggml-base.so
"""

import ctypes
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, dequantize
from safetensors.numpy import save_file

# Where float16 scales lie in a block, in bytes from its start.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0], Type.MXFP4: [],
    Type.IQ2_XXS: [0], Type.IQ2_XS: [0], Type.IQ2_S: [0], Type.IQ3_XXS: [0], Type.IQ3_S: [0], Type.IQ1_S: [0],
    Type.IQ1_M: [], Type.TQ1_0: [52], Type.TQ2_0: [64], Type.NVFP4: [],
}
ROWS, COLS = 3, 512

random = np.random.default_rng(1)
tensors = {}
for type, offsets in SCALES.items():
    block, block_bytes = GGML_QUANT_SIZES[type]
    blocks = random.integers(0, 256, (ROWS, COLS // block, block_bytes), dtype=np.uint8)
    for offset in offsets:
        # Both signs, subnormals and large numbers, but nothing infinite.
        scales = random.integers(0, 1 << 16, blocks.shape[:2], dtype=np.uint16) & 0xBBFF
        blocks[:, :, offset:offset + 2] = scales[:, :, None].view(np.uint8)
    if type is Type.MXFP4:
        blocks[:, :, 0] = random.integers(0, 254, blocks.shape[:2])
        blocks[0, :3, 0] = 0, 1, 253
    if type is Type.IQ1_M:
        # Its float16 lies in the upper bits of four words; bit 10, of its exponent, is made 0 as for the others.
        blocks[:, :, 53] &= 0xBF
    if type is Type.NVFP4:
        blocks[0, :2, :4] = [0, 1, 7, 8], [0x7E, 0x7F, 0x80, 0xFF]
    rows = blocks.reshape(ROWS, -1)
    tensors[f"{type.name}.blocks"] = rows
    tensors[f"{type.name}.values"] = dequantize(rows, type)

# Number of the type, columns of a block; 18 bytes that begin with a float16.
library = ctypes.CDLL(sys.argv[2])
for name, number, block in [("Q1_0", 41, 128), ("Q2_0", 42, 64)]:
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    assert (library.ggml_blck_size(number), library.ggml_type_size(number)) == (block, 18)
    blocks = random.integers(0, 256, (ROWS, COLS // block, 18), dtype=np.uint8)
    scales = random.integers(0, 1 << 16, blocks.shape[:2], dtype=np.uint16) & 0xBBFF
    blocks[:, :, :2] = scales[:, :, None].view(np.uint8)
    rows, values = blocks.reshape(ROWS, -1), np.empty((ROWS, COLS), np.float32)
    dequantise = getattr(library, f"dequantize_row_{name.lower()}")
    dequantise(ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(ROWS * COLS))
    tensors[f"{name}.blocks"] = rows
    tensors[f"{name}.values"] = values
save_file(tensors, sys.argv[1])
