#!/usr/bin/env python3
"""The search against GGML's own quantizers on one matrix: processor seconds on one thread, and the weighted part of the energy lost.

usage: search.py <nibble_method_bench> <folder of libggml-base.so> [TYPE...]   (needs numpy, gguf)
The matrix is random normal, 2048 x 4096, the importance log-normal; both sides get the same.
"""
import ctypes
import pathlib
import subprocess
import sys
import tempfile
import time

import gguf
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "dev/golden"))
from search import TYPES, residual  # noqa: E402

ROWS, COLS = 2048, 4096


def main():
    library = ctypes.CDLL(str(pathlib.Path(sys.argv[2]) / "libggml-base.so"))
    rng = np.random.default_rng(0)
    x = (0.02 * rng.standard_normal((ROWS, COLS))).astype(np.float32)
    w = np.exp(rng.standard_normal(COLS)).astype(np.float32)
    out = np.zeros(x.size * 2, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{name}" for name in ("x", "w", "out")]
        x.tofile(names[0])
        w.tofile(names[1])
        for name in sys.argv[3:] or TYPES:
            call = getattr(library, "quantize_" + (name[:-1] + "K" if name.endswith("_k") else name))
            call.restype = ctypes.c_size_t
            call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
            start = time.process_time()
            n = call(x.ctypes.data, out.ctypes.data, ROWS, COLS, w.ctypes.data)
            stock = time.process_time() - start
            command = [sys.argv[1], "encode", name.lower(), "search", str(ROWS), str(COLS), *names]
            ours = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            kind = getattr(gguf.GGMLQuantizationType, name.upper())
            lost = [residual(x, gguf.quants.dequantize(data, kind).reshape(x.shape), w)
                    for data in (np.fromfile(names[2], np.uint8), out[:n])]
            print(f"{name.lower():7s} {ours:7.3f} s against {stock:7.3f} s = {stock / ours:5.1f}x   "
                  f"energy lost {lost[0]:.4e} against {lost[1]:.4e} = {lost[0] / lost[1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
