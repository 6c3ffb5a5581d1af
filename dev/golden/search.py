#!/usr/bin/env python3
"""Makes src/method/testdata/search.bin and search.txt: 8 rows of a real matrix with its importance, and what GGML's own quantizers reach on it.

usage: search.py <folder of libggml-base.so> <model.safetensors> <imatrix.gguf> <src/method/testdata>   (needs numpy, torch, gguf, safetensors)

search.bin   f32 weights (8, 768): rows 0, 32, ... 224 of model.layers.3.mlp.down_proj; then f32 importance (768), mean 1. Little-endian.
search.txt   lines "<type> <with importance: 0|1> <residual>": the residual is 1 - <x, y>^2 / (<x, x> <y, y>), weighted by the importance, x the
             weights and y what libggml's quantize_<type> makes of them: the part of the weights' energy lost at the best gain.
"""
import ctypes
import pathlib
import sys

import gguf
import numpy as np
from safetensors import safe_open

TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl", "iq4_xs"]
NAME, ENTRY = "model.layers.3.mlp.down_proj.weight", "blk.3.ffn_down.weight"


def quantize(library, name, weights, importance):
    call = getattr(library, f"quantize_{name}")
    call.restype = ctypes.c_size_t
    call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    out = np.zeros(weights.size * 2, np.uint8)
    n = call(weights.ctypes.data, out.ctypes.data, *weights.shape, None if importance is None else importance.ctypes.data)
    return gguf.quants.dequantize(out[:n], getattr(gguf.GGMLQuantizationType, name.upper())).reshape(weights.shape)


def residual(x, y, w):
    x, y, w = (np.asarray(a, np.float64) for a in (x, y, w))
    xy, xx, yy = (w * x * y).sum(), (w * x * x).sum(), (w * y * y).sum()
    return 1 - xy * xy / (xx * yy)


def main():
    library = ctypes.CDLL(str(pathlib.Path(sys.argv[1]) / "libggml-base.so"))
    with safe_open(sys.argv[2], "pt") as model:
        weights = np.ascontiguousarray(model.get_tensor(NAME).float().numpy()[::32])
    entries = {t.name: t.data for t in gguf.GGUFReader(sys.argv[3]).tensors}
    importance = (entries[ENTRY + ".in_sum2"].reshape(-1) / entries[ENTRY + ".counts"].reshape(-1)[0]).astype(np.float32)
    importance /= importance.mean()
    folder = pathlib.Path(sys.argv[4])
    folder.joinpath("search.bin").write_bytes(weights.tobytes() + importance.tobytes())
    ones = np.ones_like(importance)
    with folder.joinpath("search.txt").open("w") as out:
        for name in TYPES:
            for weighted in (0, 1):
                w = importance if weighted else None
                lost = residual(weights, quantize(library, name, weights, w), importance if weighted else ones)
                out.write(f"{name.lower()} {weighted} {lost:.6e}\n")


if __name__ == "__main__":
    main()
