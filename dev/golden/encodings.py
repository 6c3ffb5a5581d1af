#!/usr/bin/env python3
"""Makes src/encoding/testdata/{encode,decode}.bin: what GGML's own code says about the block types.

usage: encodings.py <folder of libggml-base.so> <src/encoding/testdata>   (needs numpy and the `gguf` package)

encode.bin   a record "values" with the f32 input, then per type the bytes of GGML's reference quantizer (quantize_row_<type>_ref).
decode.bin   per type random bytes and the f32 values; made by the gguf package and compared here with libggml's
             dequantize_row_<type>, bit by bit (q1_0 and q2_0, which the package does not know, by libggml alone).
Record: u8 name length, name, u32 n_values, u32 n_bytes, f32[n_values], u8[n_bytes]. Little-endian.
"""
import ctypes
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

ENCODABLE = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl", "iq4_xs"]
READABLE = ENCODABLE + ["iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m", "tq1_0", "tq2_0", "mxfp4",
                        "nvfp4", "q1_0", "q2_0"]


def geometry(name):
    kind = getattr(gguf.GGMLQuantizationType, name.upper(), None)
    if kind is None:  # q2_0 is newer than the package
        return None, 64, 18
    return kind, *gguf.GGML_QUANT_SIZES[kind]


def edge_values(rng):
    """Runs of 256 values: everyday weights, then what breaks quantizers."""
    normal = rng.standard_normal(256).astype(np.float32) * np.float32(0.02)
    runs = [normal, rng.standard_t(3, 256) * 0.01, rng.uniform(0.5, 1.5, 256), -rng.uniform(0.5, 1.5, 256),
            np.zeros(256), np.full(256, 0.37), np.full(256, -3.25), normal * 1e-7, normal * 1e-18, normal * 1e-36,
            normal * 1e5, np.round(normal * 200), np.arange(256) - 128.0]
    outlier = normal.copy()
    outlier[77], outlier[200] = 9.5, -9.5
    sparse = np.zeros(256)
    sparse[[3, 64, 255]] = [1e-3, -2.0, 0.25]
    negative_max = np.abs(normal)
    negative_max[::16] = -1.0
    half_zero = normal.copy()
    half_zero[64:192] = 0
    mixed = normal * np.repeat(10.0 ** np.arange(-8, 8), 16)
    runs += [outlier, sparse, negative_max, half_zero, mixed]
    return np.concatenate([np.asarray(r, np.float32) for r in runs])


def random_blocks(name, n_blocks, rng):
    _, _, size = geometry(name)
    data = rng.integers(0, 256, (n_blocks, size), np.uint8)
    # Scales: f16 fields lose their top exponent bit, so that neither NaN nor infinity arises.
    f16_at = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_K": [80, 82], "q3_K": [108],
              "q4_K": [0, 2], "q5_K": [0, 2], "q6_K": [208], "iq4_nl": [0], "iq4_xs": [0], "iq2_xxs": [0], "iq2_xs": [0],
              "iq2_s": [0], "iq3_xxs": [0], "iq3_s": [0], "iq1_s": [0], "tq1_0": [52], "tq2_0": [64], "q1_0": [0],
              "q2_0": [0]}.get(name, [])
    for at in f16_at:
        data[:, at + 1] &= 0xBF
    if name == "iq1_m":
        data[:, 55] &= 0xBF  # the top nibble of the last u16 of the scales holds the sign and exponent of d
    return data


def record(name, values, data):
    raw = name.lower().encode()
    return struct.pack(f"<B{len(raw)}sII", len(raw), raw, values.size, data.size) + values.astype("<f4").tobytes() + data.tobytes()


def main():
    lib = ctypes.CDLL(str(Path(sys.argv[1]) / "libggml-base.so"))
    out = Path(sys.argv[2])
    rng = np.random.default_rng(20240607)
    values = edge_values(rng)
    encode = record("values", values, np.zeros(0, np.uint8))
    for name in ENCODABLE:
        _, elements, size = geometry(name)
        data = np.zeros(values.size // elements * size, np.uint8)
        getattr(lib, f"quantize_row_{name}_ref")(values.ctypes.data_as(ctypes.c_void_p), data.ctypes.data_as(ctypes.c_void_p),
                                                 ctypes.c_int64(values.size))
        encode += record(name, np.zeros(0, np.float32), data)
    (out / "encode.bin").write_bytes(encode)
    decode = b""
    for name in READABLE:
        kind, elements, _ = geometry(name)
        data = random_blocks(name, 8 if elements < 256 else 3, rng)
        theirs = np.zeros(data.shape[0] * elements, np.float32)
        getattr(lib, f"dequantize_row_{name}")(data.ctypes.data_as(ctypes.c_void_p), theirs.ctypes.data_as(ctypes.c_void_p),
                                               ctypes.c_int64(theirs.size))
        try:
            ours = gguf.quants.dequantize(data, kind).astype(np.float32).ravel()
        except (NotImplementedError, AttributeError):
            print(f"{name:8} libggml alone")
            ours = theirs
        same = np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))
        print(f"{name:8} gguf package == libggml: {same}", "" if same else np.flatnonzero(ours.view(np.uint32) != theirs.view(np.uint32))[:8])
        decode += record(name, ours, data.ravel())
    (out / "decode.bin").write_bytes(decode)


if __name__ == "__main__":
    main()
