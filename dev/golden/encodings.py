#!/usr/bin/env python3
"""Makes src/encoding/testdata/{encode.bin,decode.bin,hashes.txt,affine.txt}: what GGML's own code says about the block types.

usage: encodings.py <folder of libggml-base.so> <src/encoding/testdata>   (needs numpy, torch, gguf)

encode.bin   a record "values" with the f32 input, then per type the bytes of GGML's reference quantizer (quantize_row_<type>_ref).
decode.bin   per type random bytes and the f32 values; made by the gguf package and compared here with libggml's
             dequantize_row_<type>, bit by bit (q1_0 and q2_0, which the package does not know, by libggml alone).
hashes.txt   lines "encode|decode <type> <hash>" over much more data, which both sides draw from base/rng.h's random_bits.
affine.txt   lines "<encoding> <hash of scales> <of zeros> <of values>" by PyTorch.
Record: u8 name length, name, u32 n_values, u32 n_bytes, f32[n_values], u8[n_bytes]. Little-endian.
"""
import ctypes
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

ENCODABLE = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4"]
READABLE = ENCODABLE[:-2] + ["iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m", "tq1_0", "tq2_0", "mxfp4",
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


GOLDEN, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_bits(seed, stream, n):
    """nibble::random_bits(seed, stream, 0 .. n - 1)."""
    with np.errstate(over="ignore"):
        base = mix(np.array([(seed + GOLDEN * (stream + 1)) & MASK], np.uint64))
        return mix(base + np.uint64(GOLDEN) * np.arange(1, n + 1, dtype=np.uint64))


def hash_words(words):
    """FNV-1a over 32-bit words."""
    h = 0xCBF29CE484222325
    for word in words.tolist():
        h = ((h ^ word) * 0x100000001B3) & MASK
    return h


def hashed_values(n):
    """Signed cubes: most near zero, a few large, with a different scale every 512 values. Exact in f32."""
    u = (random_bits(11, 0, n) >> np.uint64(40)).astype(np.int32).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    exponent = (random_bits(11, 1, n // 512) % np.uint64(24)).astype(np.int32) - 16
    return u * u * u * np.repeat(np.exp2(exponent.astype(np.float32)), 512)


def write_hashes(lib, path):
    lines = []
    values = hashed_values(1 << 17)
    for name in ENCODABLE:
        _, elements, size = geometry(name)
        data = np.zeros(values.size // elements * size, np.uint8)
        getattr(lib, f"quantize_row_{name}_ref")(values.ctypes.data_as(ctypes.c_void_p), data.ctypes.data_as(ctypes.c_void_p),
                                                 ctypes.c_int64(values.size))
        lines.append(f"encode {name.lower()} {hash_words(data):016x}")
    for name in READABLE:
        kind, elements, size = geometry(name)
        n_blocks = (1 << 16) // elements
        data = (random_bits(12, 0, n_blocks * size) & np.uint64(255)).astype(np.uint8).reshape(n_blocks, size)
        out = np.zeros(n_blocks * elements, np.float32)
        getattr(lib, f"dequantize_row_{name}")(data.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
                                               ctypes.c_int64(out.size))
        words = [np.where(np.isnan(out), 0x7FC00000, out.view(np.uint32))]
        if name not in ("q1_0", "q2_0"):
            with np.errstate(all="ignore"):
                out = gguf.quants.dequantize(data, kind).astype(np.float32).ravel()
            words.append(np.where(np.isnan(out), 0x7FC00000, out.view(np.uint32)))
        hashes = {hash_words(w) for w in words}
        print(f"{name:8} {n_blocks} blocks: gguf package and libggml agree: {len(hashes) == 1}")
        lines.append(f"decode {name.lower()} {hash_words(words[-1]):016x}")
    path.write_text("\n".join(lines) + "\n")


def write_affine(path):
    """Scales, zeros and values of the affine family by PyTorch's own observers, 6 rows of 96."""
    import torch
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    rows, cols = 6, 96
    weights = torch.tensor(hashed_values(1 << 10)[:rows * cols].reshape(rows, cols))
    lines = []
    for bits in range(2, 9):
        for suffix, symmetric, scheme in (("-asym", False, torch.per_channel_affine), ("-ct", True, torch.per_channel_symmetric)):
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if symmetric else (0, (1 << bits) - 1)
            for grain, group in (("-channel", cols), ("-g32", 32)):
                grouped = weights.reshape(-1, group)
                observer = PerChannelMinMaxObserver(dtype=torch.qint8 if symmetric else torch.quint8, qscheme=scheme,
                                                    quant_min=low, quant_max=high, eps=1e-30)
                observer(grouped)
                scales, zeros = observer.calculate_qparams()
                zeros = zeros.to(torch.int32)
                # By division, as GPTQ and compressed-tensors do (PyTorch's own operator multiplies by 1 / scale, which
                # decides the ties at the largest value differently).
                s, z = scales[:, None], zeros[:, None]
                values = (torch.clamp(torch.round(grouped / s) + z, low, high) - z) * s
                hashes = [hash_words(t.contiguous().numpy().view(np.uint32).ravel()) for t in (scales, zeros, values + 0.0)]
                lines.append(f"int{bits}{grain}{suffix} " + " ".join(f"{h:016x}" for h in hashes))
    path.write_text("\n".join(lines) + "\n")


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
    write_hashes(lib, out / "hashes.txt")
    write_affine(out / "affine.txt")


if __name__ == "__main__":
    main()
