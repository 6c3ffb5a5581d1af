#!/usr/bin/env python3
"""Makes the golden files of src/container/testdata with the public `gguf` and `safetensors` packages; the values are those that
src/container/golden_test.cpp expects. With --check FILE... it reads files made by Nibble with the same packages instead.

    python3 dev/golden/container.py            # writes src/container/testdata/golden*
    python3 dev/golden/container.py --check FILE.gguf FILE.safetensors
"""
import argparse
import pathlib

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as V
from safetensors import safe_open
from safetensors.torch import save_file

TESTDATA = pathlib.Path(__file__).resolve().parents[2] / "src/container/testdata"

SCALARS = [
    ("u8", V.UINT8, 200), ("i8", V.INT8, -100), ("u16", V.UINT16, 60000), ("i16", V.INT16, -30000),
    ("u32", V.UINT32, 4000000000), ("i32", V.INT32, -2000000000), ("f32", V.FLOAT32, 1.5), ("bool", V.BOOL, True),
    ("string", V.STRING, "naïve \u2581 text"), ("u64", V.UINT64, 2**63 + 5), ("i64", V.INT64, -(2**62)), ("f64", V.FLOAT64, 0.1),
]
ARRAYS = [
    ("u8", V.UINT8, [1, 2, 255]), ("i8", V.INT8, [-128, 127]), ("u16", V.UINT16, [0, 65535]), ("i16", V.INT16, [-32768, 32767]),
    ("u32", V.UINT32, [0, 2**32 - 1]), ("i32", V.INT32, [-(2**31), 2**31 - 1]), ("f32", V.FLOAT32, [0.5, -2.25, 3.0]),
    ("bool", V.BOOL, [True, False, True]), ("string", V.STRING, ["", "a b", "\u00e9"]), ("u64", V.UINT64, [0, 2**64 - 1]),
    ("i64", V.INT64, [-(2**63), 2**63 - 1]), ("f64", V.FLOAT64, [1e300, -0.0]),
]


def pattern(n_bytes: int, seed: int) -> np.ndarray:
    """The bytes golden_test.cpp computes: (i * 37 + seed * 101) mod 251."""
    return ((np.arange(n_bytes, dtype=np.uint32) * 37 + seed * 101) % 251).astype(np.uint8)


def write_gguf(path: pathlib.Path) -> None:
    writer = gguf.GGUFWriter(path, "golden")
    writer.add_custom_alignment(64)
    for name, kind, value in SCALARS:
        writer.add_key_value(f"scalar.{name}", value, kind)
    for name, kind, value in ARRAYS:
        writer.add_key_value(f"array.{name}", value, V.ARRAY, sub_type=kind)
    tensors = [
        ("plain.f32", (2, 3), Q.F32), ("plain.f16", (5,), Q.F16), ("plain.bf16", (3, 1, 2), Q.BF16), ("plain.f64", (2,), Q.F64),
        ("plain.i8", (7,), Q.I8), ("plain.i16", (3,), Q.I16), ("plain.i32", (2, 2), Q.I32), ("plain.i64", (1,), Q.I64),
        ("block.q4_0", (3, 64), Q.Q4_0), ("block.q8_0", (2, 2, 32), Q.Q8_0), ("block.q4_k", (2, 256), Q.Q4_K),
        ("block.q6_k", (1, 512), Q.Q6_K), ("block.iq4_xs", (1, 256), Q.IQ4_XS),
    ]
    for seed, (name, shape, kind) in enumerate(tensors):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        row_bytes = shape[-1] // block * size
        data = pattern(int(np.prod(shape[:-1], dtype=np.int64)) * row_bytes, seed).reshape(*shape[:-1], row_bytes)
        writer.add_tensor(name, data, raw_shape=data.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_split(stem: pathlib.Path) -> None:
    writer = gguf.GGUFWriter(stem, "golden", split_max_tensors=2)
    writer.add_uint32("golden.block_count", 3)
    for i in range(5):
        writer.add_tensor(f"t{i}", np.arange(3 + i, dtype=np.float32) + 10 * i)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


SAFETENSORS = [
    ("f64", torch.float64, (2,)), ("i64", torch.int64, (1, 2)), ("f32", torch.float32, (2, 3)), ("i32", torch.int32, (3,)),
    ("f16", torch.float16, (5,)), ("bf16", torch.bfloat16, (2, 2)), ("i16", torch.int16, (3,)), ("f8_e4m3", torch.float8_e4m3fn, (7,)),
    ("f8_e5m2", torch.float8_e5m2, (3,)), ("f8_e8m0", torch.float8_e8m0fnu, (3,)), ("i8", torch.int8, (5,)),
    ("u8", torch.uint8, (2, 2)), ("bool", torch.bool, (4,)), ("u16", torch.uint16, (3,)), ("u32", torch.uint32, (3,)),
    ("u64", torch.uint64, (1,)), ("empty", torch.float32, (0, 4)), ("scalar", torch.float32, ()),
]


def write_safetensors(path: pathlib.Path) -> None:
    tensors = {}
    for seed, (name, dtype, shape) in enumerate(SAFETENSORS):
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        data = pattern(n_bytes, seed) & (1 if dtype == torch.bool else 255)
        tensors[name] = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape) if n_bytes else torch.zeros(shape, dtype=dtype)
    save_file(tensors, path, metadata={"format": "pt"})


def check(path: pathlib.Path) -> None:
    if path.suffix == ".gguf":
        reader = gguf.GGUFReader(path)
        for field in reader.fields.values():
            print(f"{field.name}: {str(field.contents())[:80]}")
        for tensor in reader.tensors:
            print(f"{tensor.name} {tensor.tensor_type.name} {tensor.shape} sum of bytes {int(tensor.data.view(np.uint8).astype(np.int64).sum())}")
    else:
        with safe_open(path, "pt") as file:
            print(file.metadata())
            for name in file.keys():
                tensor = file.get_tensor(name)
                print(f"{name} {tensor.dtype} {tuple(tensor.shape)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.check:
        for file in arguments.check:
            check(file)
    else:
        TESTDATA.mkdir(exist_ok=True)
        write_gguf(TESTDATA / "golden.gguf")
        write_split(TESTDATA / "golden_split.gguf")
        write_safetensors(TESTDATA / "golden.safetensors")
