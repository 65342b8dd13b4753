"""The codebooks of GGML's IQ types, from the `gguf` package's tables, as the kernels read them.

    pip install gguf
    python tools/reference/ggml_grids.py crates/moeflux-kernels/src/ggml/grids.bin

One little-endian 16-bit word an entry. Entries of eight values have two bits a value, entries of four values three,
the first value lowest; a code is the value's place in the type's list of levels, which `codebooks.rs` has.
"""

import sys

import numpy as np
from gguf import quants

with open(sys.argv[1], "wb") as file:
    for type in [quants.IQ2_XXS, quants.IQ2_XS, quants.IQ2_S, quants.IQ1_S, quants.IQ3_XXS, quants.IQ3_S]:
        type.init_grid()
        grid = type.grid.reshape(type.grid_shape).astype(int)
        codes = np.searchsorted(np.array(type.grid_map), grid)
        bits = {8: 2, 4: 3}[grid.shape[1]]
        words = (codes << (bits * np.arange(grid.shape[1]))).sum(axis=1)
        file.write(words.astype("<u2").tobytes())
