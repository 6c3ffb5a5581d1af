"""Hugging Face folders whose weights are integers, tiny, and their values.

src/container/testdata/{gptq*,awq,auto_round,ct_*}: config.json, model.safetensors, and expected.safetensors with the f32 values. Those of
compressed-tensors are compressed and dequantized by the package itself. Those of GPTQ, AWQ and AutoRound are packed here bit by bit from random codes,
zeros and scales, as the layers of GPTQModel and AutoAWQ pack them.
Made with compressed-tensors 0.20, torch 2.13. Run: python dev/golden/quantized_integers.py
"""
import json
import pathlib
import shutil

import numpy as np
import torch
from compressed_tensors.compressors.naive_quantized import IntQuantizationCompressor
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

DATA = pathlib.Path(__file__).resolve().parents[2] / "src/container/testdata"
RANDOM = np.random.default_rng(7)
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def write(name, quantization, tensors, expected):
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(model_type="test", quantization_config=quantization), indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(name, sum(f.stat().st_size for f in folder.iterdir()))


def stream(values, bits):
    """(length, columns) -> (length * bits / 32, columns): down each column one stream of bits, lowest first."""
    length, columns = values.shape
    words = np.zeros((length * bits // 32, columns), dtype=np.uint32)
    for i in range(length):
        for b in range(bits):
            at = i * bits + b
            words[at // 32] |= ((values[i].astype(np.uint32) >> b) & 1) << (at % 32)
    return words.view(np.int32)


def awq_words(values):
    """(rows, columns) -> (rows, columns / 8)."""
    words = np.zeros((values.shape[0], values.shape[1] // 8), dtype=np.uint32)
    for i, column in enumerate(AWQ_ORDER):
        words |= values[:, column::8].astype(np.uint32) << (4 * i)
    return words.view(np.int32)


def qweight(rows, cols, bits, group, *, symmetric=False, order=False, awq=False, less=1):
    """A linear: its tensors and its values."""
    group = cols if group == -1 else group
    groups = -(-cols // group)
    codes = RANDOM.integers(0, 1 << bits, (cols, rows))
    zeros = np.full((groups, rows), 1 << (bits - 1)) if symmetric else RANDOM.integers(less, 1 << bits, (groups, rows))
    scales = (RANDOM.random((groups, rows)) * 0.02).astype(np.float16)
    index = np.arange(cols) // group
    if order:
        index = RANDOM.permutation(index)
    values = scales.astype(np.float32)[index] * (codes - zeros[index]).astype(np.float32)
    pack = awq_words if awq else lambda x: stream(x, bits)
    tensors = dict(qweight=pack(codes), scales=scales, qzeros=awq_words(zeros) if awq else stream((zeros - less).T, bits).T)
    if not awq:
        tensors["g_idx"] = index.astype(np.int32)
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, torch.from_numpy(np.ascontiguousarray(values.T))


def qweights(name, quantization, linears, plain=()):
    tensors, expected = {}, {}
    for module, linear in linears.items():
        own, values = linear
        tensors |= {f"{module}.{part}": value for part, value in own.items()}
        expected[module + ".weight"] = values
    for module in plain:
        tensors[module + ".weight"] = torch.randn(8, 8).to(torch.float16)
        expected[module + ".weight"] = tensors[module + ".weight"].float()
    write(name, quantization, tensors, expected)


def gptq(name, bits, group, linears, plain=(), **others):
    qweights(name, dict(quant_method="gptq", bits=bits, group_size=group, **others), linears, plain)


def all_gptq():
    gptq("gptq_v1", 4, 32, {"a": qweight(16, 64, 4, 32, symmetric=True), "b": qweight(24, 80, 4, 32, symmetric=True)}, ["head"], sym=True, desc_act=False)
    gptq("gptq_act", 4, 16, {"a": qweight(16, 64, 4, 16, order=True), "b": qweight(8, 48, 4, 16)}, sym=False, desc_act=True, checkpoint_format="gptq")
    gptq("gptq_v2", 3, 32, {"a": qweight(32, 96, 3, 32, less=0), "b": qweight(64, 32, 3, 32, less=0, order=True)}, sym=False, checkpoint_format="gptq_v2")
    mixed = {"layers.0.a": qweight(16, 64, 2, 64, less=1), "layers.0.b": qweight(12, 64, 8, -1), "layers.1.a": qweight(32, 32, 3, 16)}
    mixed["layers.0.b"][0].pop("g_idx")
    dynamic = {"+:layers\\.0\\.b": dict(bits=8, group_size=-1), r"layers\.1\..*": dict(bits=3, group_size=16), "-:.*router": {}}
    gptq("gptq_mixed", 2, 64, mixed, ["layers.0.router"], dynamic=dynamic, checkpoint_format="gptq")


def all_awq():
    linears = {"a": qweight(16, 64, 4, 32, awq=True, less=0), "b": qweight(8, 96, 4, 32, awq=True, less=0)}
    qweights("awq", dict(quant_method="awq", bits=4, group_size=32, version="GEMM", zero_point=True, modules_to_not_convert=None), linears, ["head"])
    linears = {"a": qweight(16, 64, 4, 32), "b": qweight(8, 64, 8, 16)}
    extra = {"b": dict(bits=8, group_size=16)}
    qweights("auto_round", dict(quant_method="auto-round", packing_format="auto_round:auto_gptq", bits=4, group_size=32, data_type="int", extra_config=extra), linears)


def compressed(compressor, shape, dtype, **args):
    args = QuantizationArgs(type="int", observer="minmax", **args)
    weight = torch.randn(shape) * 0.05
    groups = weight.reshape(shape[0], -1, args.group_size) if args.strategy == "group" else weight.reshape(shape[0], 1, -1)
    low, high = groups.amin(-1), groups.amax(-1)
    if args.strategy == "tensor":
        low, high = low.amin().reshape(1), high.amax().reshape(1)
    scale, zero = calculate_qparams(low, high, args)
    state = dict(weight=weight, weight_scale=scale.to(dtype))
    if not args.symmetric:
        state["weight_zero_point"] = zero.to(torch.int8)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    state = compressor.compress(state, scheme)
    exact = dict(state, weight_scale=state["weight_scale"].float())
    return state, compressor.decompress(exact, scheme)["weight"], args


def all_compressed():
    kinds = {
        "pack": (PackedQuantizationCompressor, "pack-quantized", [
            ((16, 64), torch.bfloat16, dict(num_bits=4, strategy="group", group_size=32, symmetric=True)),
            ((20, 50), torch.float16, dict(num_bits=3, strategy="channel", symmetric=False)),
            ((9, 96), torch.float32, dict(num_bits=2, strategy="group", group_size=16, symmetric=False)),
            ((6, 37), torch.bfloat16, dict(num_bits=5, strategy="tensor", symmetric=True)),
            ((6, 40), torch.bfloat16, dict(num_bits=6, strategy="tensor", symmetric=False)),
            ((7, 33), torch.bfloat16, dict(num_bits=7, strategy="channel", symmetric=True)),
            ((8, 64), torch.bfloat16, dict(num_bits=8, strategy="group", group_size=64, symmetric=False))]),
        "int": (IntQuantizationCompressor, "int-quantized", [
            ((16, 64), torch.bfloat16, dict(num_bits=8, strategy="channel", symmetric=True)),
            ((9, 30), torch.float32, dict(num_bits=8, strategy="tensor", symmetric=False)),
            ((8, 16), torch.bfloat16, dict(num_bits=4, strategy="channel", symmetric=True))])}
    for kind, (compressor, form, linears) in kinds.items():
        tensors, expected, groups = {}, {}, {}
        for i, (shape, dtype, args) in enumerate(linears):
            state, values, args = compressed(compressor, shape, dtype, **args)
            tensors |= {f"m{i}.{part}": value for part, value in state.items()}
            expected[f"m{i}.weight"] = values
            groups[f"group_{i}"] = dict(targets=[f"m{i}"], weights=json.loads(args.model_dump_json()), input_activations=None)
        write("ct_" + kind, dict(quant_method="compressed-tensors", format=form, config_groups=groups, ignore=["head"]), tensors, expected)


torch.manual_seed(3)
all_gptq()
all_awq()
all_compressed()
