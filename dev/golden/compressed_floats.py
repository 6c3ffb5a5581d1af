"""Small floats as the Python package compressed-tensors compresses them: src/container/testdata/ct_{fp8,fp8_inputs,mxfp8,mxfp4,nvfp4}.

config.json and model.safetensors are the package's own: its presets FP8_DYNAMIC and FP8_BLOCK (a group each, blocks of 16 x 24), MXFP8A16, MXFP4A16, NVFP4A16, its scales
and codes. expected.safetensors holds the f32 values: the codes that its unpacking gives, times the scales in f32 (nvfp4: scale / global scale first).

ct_fp8_inputs: linears of the presets whose inputs are FP8, too (FP8_DYNAMIC, FP8, FP8_BLOCK, MXFP8). expected.safetensors also has random inputs of each, M.x (1, 3, cols),
and what the package's own forward pass rounds them to, M.rounded; and "act_quant.x" with "act_quant.rounded" and "act_quant.powers": y * s of act_quant of DeepSeek V3's
inference/kernel.py, which transformers has, too (s = max|x| / 448 of each 128, y = x / s in E4M3), and of DeepSeek V3.1's with scale_fmt "ue8m0" (s = 2^ceil(log2 s)).
Made with compressed-tensors 0.20, torch 2.14. Run: python dev/golden/compressed_floats.py
"""
import json
import pathlib
import shutil

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.mx_utils import decompress_mx_scale
from compressed_tensors.compressors.nvfp4 import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus
from compressed_tensors.quantization.lifecycle.forward import dequantize, forward_quantize
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src/container/testdata"


def magnitudes(weight, args):
    """The largest magnitude of what shares a scale, in the shape of the scales."""
    if args.strategy == "tensor":
        return weight.abs().max().reshape(1)
    if args.strategy == "channel":
        return weight.abs().amax(1, keepdim=True)
    if args.strategy == "block":
        rows, cols = args.block_structure
        padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % cols, 0, -weight.shape[0] % rows))
        return padded.unflatten(1, (-1, cols)).unflatten(0, (-1, rows)).abs().amax((1, 3))
    return weight.unflatten(1, (-1, args.group_size)).abs().amax(2)


def compress(weight, scheme):
    args = scheme.weights
    largest = magnitudes(weight, args)
    state = {"weight": weight}
    if args.strategy == "tensor_group":
        state["weight_global_scale"] = generate_gparam(-weight.abs().max().reshape(1), weight.abs().max().reshape(1))
    scale, _ = calculate_qparams(-largest, largest, args, global_scale=state.get("weight_global_scale"))
    state["weight_scale"] = scale
    packed = BaseCompressor.get_value_from_registry(scheme.format).compress(state, scheme)
    # As a model in bf16 has it.
    if packed["weight_scale"].dtype == torch.float32 and args.strategy == "channel":
        packed["weight_scale"] = packed["weight_scale"].bfloat16()
    return packed


def values_of(packed, scheme, shape):
    scale = packed["weight_scale"]
    scale = decompress_mx_scale(scale).float() if scale.dtype == torch.uint8 else scale.float()
    codes = unpack_fp4_from_uint8(packed["weight_packed"], *shape, torch.float32) if "weight_packed" in packed else packed["weight"]
    return dequantize(codes, scale, args=scheme.weights, dtype=torch.float32, global_scale=packed.get("weight_global_scale"))


def round_inputs(args, cols, generator):
    """Some inputs, their fixed scale (of the magnitudes but the largest, so that some are cut) and what they are rounded to."""
    module = torch.nn.Module()
    module.quantization_status = QuantizationStatus.FROZEN
    x = torch.randn(1, 3, cols, generator=generator) * torch.tensor([0.02, 1.0, 30.0])[:, None]
    x[0, 0, : cols // 2] = 0
    if not args.dynamic:
        largest = x.abs().max().reshape(1) * 0.8
        module.input_scale = calculate_qparams(-largest, largest, args)[0].bfloat16().float()
    expected = {"x": x, "rounded": forward_quantize(module, x, "input", args)}
    return expected, {} if args.dynamic else {"input_scale": module.input_scale.bfloat16()}


def act_quant(x, powers):
    s = x.unflatten(-1, (-1, 128)).abs().amax(-1) / 448.0
    s = torch.exp2(torch.ceil(torch.log2(s))) if powers else s
    y = (x.unflatten(-1, (-1, 128)) / s[..., None]).to(torch.float8_e4m3fn)
    return (y.float() * s[..., None]).flatten(-2)


def make(name, linears, with_inputs=False):
    """linears: module -> (shape, preset, format)."""
    generator = torch.Generator().manual_seed(9)
    tensors, expected, groups = {"norm.weight": torch.ones(4, dtype=torch.bfloat16)}, {}, {}
    for module, (shape, preset, form) in linears.items():
        scheme = preset_name_to_scheme(preset, [module])
        scheme.format = form
        if preset == "FP8_BLOCK" and not with_inputs:
            scheme.weights.block_structure = [16, 24]
        groups[f"group_{len(groups)}"] = scheme
        weight = torch.randn(shape, generator=generator) * torch.rand(shape[0], 1, generator=generator).exp() * 0.03
        weight[1] *= 1e-3
        packed = compress(weight, scheme)
        tensors |= {f"{module}.{key}": value for key, value in packed.items()}
        expected[module + ".weight"] = values_of(packed, scheme, shape)
        if with_inputs:
            values, scales = round_inputs(scheme.input_activations, shape[1], generator)
            expected |= {f"{module}.{key}": value for key, value in values.items()}
            tensors |= {f"{module}.{key}": value for key, value in scales.items()}
        print(module, preset, float((expected[module + ".weight"] - weight).norm() / weight.norm()))
    if with_inputs:
        x = torch.randn(3, 256, generator=generator) * torch.rand(3, 256, generator=generator).exp()
        expected |= {"act_quant.x": x, "act_quant.rounded": act_quant(x, False), "act_quant.powers": act_quant(x, True)}
    config = QuantizationConfig(config_groups=groups, format=next(iter(linears.values()))[2], quantization_status="compressed", ignore=["lm_head"])
    folder = SOURCE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = json.loads(json.dumps(dict(model_type="test", quantization_config=config.to_dict()), default=str))
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(name, sum(f.stat().st_size for f in folder.iterdir()))


make("ct_fp8", {"rows": ((12, 40), "FP8_DYNAMIC", "float-quantized"), "blocks": ((20, 30), "FP8_BLOCK", "float-quantized")})
make("ct_fp8_inputs", {"tokens": ((12, 40), "FP8_DYNAMIC", "float-quantized"), "fixed": ((12, 40), "FP8", "float-quantized"),
                       "blocks": ((6, 256), "FP8_BLOCK", "float-quantized"), "powers": ((12, 64), "MXFP8", "mxfp8-quantized")}, with_inputs=True)
make("ct_mxfp8", {"a": ((12, 96), "MXFP8A16", "mxfp8-quantized")})
make("ct_mxfp4", {"a": ((12, 96), "MXFP4A16", "mxfp4-pack-quantized")})
make("ct_nvfp4", {"a": ((12, 96), "NVFP4A16", "nvfp4-pack-quantized")})
