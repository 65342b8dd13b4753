"""Random blocks of every GGML type that moeflux reads, and what the `gguf` package makes of them.

    pip install gguf safetensors
    python tools/reference/ggml_vectors.py tests/data/ggml_vectors.safetensors
"""

import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, dequantize
from safetensors.numpy import save_file

# Where float16 scales lie in a block, in bytes from its start.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0], Type.MXFP4: [],
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
    rows = blocks.reshape(ROWS, -1)
    tensors[f"{type.name}.blocks"] = rows
    tensors[f"{type.name}.values"] = dequantize(rows, type)
save_file(tensors, sys.argv[1])
