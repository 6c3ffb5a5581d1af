"""Folders of quantized weights as the packages that define their formats decode them, beside what Nibble makes of the same folders, bit by bit.

For each format MODEL is quantized (`nibble quantize --format F --type T --method rtn`), dequantized to f32 by Nibble (`nibble convert --type f32`) and by:
  compressed-tensors  the package's decompressor, and transformers: the model is loaded and its logits are compared with those of the f32 folder
                      (weights alone: inputs that a config says are quantized are left as they are); of small floats also the config, as the package
                      writes that of its own preset (but for observers, which ask for a calibration)
  fp8                 transformers' own dequantizer, and the model that it loads; with --llama-cpp also llama.cpp's converter to GGUF
  gptq, gptq_v2       GPTQModel's torch layer; with --llama-cpp also llama.cpp's converter to GGUF
  bnb                 8 bits: what bitsandbytes' layer multiplies gradients with (code * (SCB * 1/127)) in the model that transformers loads
  awq                 AutoAWQ's own unpacking (a copy of its packing_utils.py is named with --autoawq), and the AWQ converter of compressed-tensors
  kv_cache_scheme     (--caches) the config as the package reads it; its scales of what transformers' model caches on the calibration text, within the 8 bits of
                      bf16; the perplexity of that model with keys and values that the package rounds by the folder's scales, beside Nibble's
All in f32: scale * (code - zero) rounded once. Made for compressed-tensors 0.20, transformers 5.24, GPTQModel 7.7, AutoAWQ 0.2.9.
Run: python dev/compare_quantized.py build/release/nibble MODEL [--llama-cpp DIR] [--autoawq packing_utils.py] [--formats fp8 ...] [--types fp8-block128 ...] [--caches fp8-static ...]
"""
import argparse
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file

TYPES = {
    "compressed-tensors": ["int4-g128", "int4-g32-asym", "int3-channel-asym", "int8-channel", "int2-g64-asym", "int5-channel", "int4-tensor",
                           "w8a8", "w4a8-g96", "zeroquant-w8a8", "fp8-tensor", "fp8-channel", "fp8-block128", "w8a8-fp8", "w8a8-fp8-static", "w8a8-fp8-block128", "w8a8-mxfp8",
                           "mxfp8", "mxfp4", "nvfp4"],
    "fp8": ["fp8-block128", "fp8-block64", "fp8-block128-e8m0", "w8a8-fp8-block128"],
    "gptq": ["int4-g128", "int4-g64-asym", "int8-channel", "int2-g32-asym", "int3-g128-asym"],
    "gptq_v2": ["int4-g128", "int4-g64-asym", "int3-g128-asym", "int2-g64"],
    "awq": ["int4-g128", "int4-g64-asym"],
    "bnb": ["llm-int8", "w8a8"],
}


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def stems(tensors, suffix):
    return [name[: -len(suffix)] for name in tensors if name.endswith(suffix)]


PRESETS = {"w8a8-fp8": "FP8_DYNAMIC", "w8a8-fp8-static": "FP8", "w8a8-fp8-block128": "FP8_BLOCK", "w8a8-mxfp8": "MXFP8", "mxfp8": "MXFP8A16", "mxfp4": "MXFP4A16", "nvfp4": "NVFP4A16",
           "w8a8": "W8A8", "int4-g128": "W4A16"}


def floats_by_compressed_tensors(folder, arguments):
    """The package's values in f32: its codes and its way to divide and multiply, where its decompressors round to the type of the scales."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.mx_utils import decompress_mx_scale
    from compressed_tensors.compressors.nvfp4 import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    config = QuantizationConfig.model_validate(json.loads((folder / "config.json").read_text())["quantization_config"])
    (scheme,) = config.config_groups.values()
    tensors = tensors_of(folder)
    for stem in stems(tensors, ".weight_scale"):
        state = {name[len(stem) + 1 :]: value for name, value in tensors.items() if name.startswith(stem + ".")}
        scale = state["weight_scale"]
        scale = decompress_mx_scale(scale).float() if scale.dtype == torch.uint8 else scale.float()
        packed = state.get("weight_packed")
        codes = state["weight"] if packed is None else unpack_fp4_from_uint8(packed, packed.shape[0], 2 * packed.shape[1], torch.float32)
        exact = dequantize(codes, scale, args=scheme.weights, dtype=torch.float32, global_scale=state.get("weight_global_scale"))
        own = BaseCompressor.get_value_from_registry(scheme.format).decompress(state, scheme)["weight"]
        assert (own.float() - exact).abs().max() <= exact.abs().max() * 2**-7  # it holds what the decompressor gives in 16 bits
        yield stem, exact


def config_by_compressed_tensors(folder, kind):
    """Is what the package writes of its preset what stands in the folder? But for observers: calibration is done."""
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme

    ours = json.loads((folder / "config.json").read_text())["quantization_config"]
    again = QuantizationConfig.model_validate(ours).to_dict()
    scheme = preset_name_to_scheme(PRESETS[kind], ["Linear"])
    scheme.format = again["format"]
    theirs = QuantizationConfig(config_groups={"group_0": scheme}, format=again["format"], quantization_status="compressed", ignore=again["ignore"]).to_dict()
    plain = lambda value: json.loads(json.dumps(value, default=str))
    drop = lambda value: {k: drop(v) for k, v in value.items() if v is not None and k != "observer"} if isinstance(value, dict) else value
    return drop(plain(again)) == drop(plain(theirs)) and drop(plain(theirs)["config_groups"]) == drop(ours["config_groups"])


def by_transformers_fp8(folder, arguments):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    tensors = tensors_of(folder)
    for stem in stems(tensors, ".weight_scale_inv"):
        yield stem, Fp8Dequantize(None)._dequantize_one(tensors[stem + ".weight"], tensors[stem + ".weight_scale_inv"], torch.float32)


def by_compressed_tensors(folder, arguments):
    if any(group["weights"]["type"] == "float" for group in json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()):
        yield from floats_by_compressed_tensors(folder, arguments)
        return
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    (group,) = config["config_groups"].values()
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**group["weights"]))
    tensors = tensors_of(folder)
    if config["format"] == "int-quantized":
        from compressed_tensors.compressors import BaseCompressor

        for stem in stems(tensors, ".weight_scale"):
            state = {"weight": tensors[stem + ".weight"], "weight_scale": tensors[stem + ".weight_scale"].float()}
            yield stem, BaseCompressor.get_value_from_registry("int-quantized").decompress(state, scheme)["weight"]
    for stem in stems(tensors, ".weight_packed"):
        state = {name[len(stem) + 1 :]: value for name, value in tensors.items() if name.startswith(stem + ".")}
        state["weight_scale"] = state["weight_scale"].float()
        yield stem, PackedQuantizationCompressor.decompress(state, scheme)["weight"]


def by_gptqmodel(folder, arguments):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    config = json.loads((folder / "quantize_config.json").read_text())
    tensors = tensors_of(folder)
    for stem in stems(tensors, ".qweight"):
        cols, rows = tensors[stem + ".g_idx"].numel(), tensors[stem + ".scales"].shape[1]
        group = config["group_size"] if config["group_size"] > 0 else cols
        layer = TorchLinear(bits=config["bits"], group_size=group, sym=config["sym"], desc_act=config["desc_act"], in_features=cols, out_features=rows, bias=False,
                            pack_dtype=torch.int32, register_buffers=True)
        for part in ("qweight", "qzeros", "g_idx"):
            getattr(layer, part).copy_(tensors[f"{stem}.{part}"])
        layer.scales = tensors[stem + ".scales"].float()
        if config["checkpoint_format"] == "gptq":
            convert_gptq_v1_to_v2_format_module(layer, bits=config["bits"], pack_dtype=torch.int32)
        layer.train()  # the plain path without caches
        yield stem, layer.dequantize_weight().T


def by_autoawq(folder, arguments):
    if not arguments.autoawq:
        return
    spec = importlib.util.spec_from_file_location("packing_utils", arguments.autoawq)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tensors = tensors_of(folder)
    for stem in stems(tensors, ".qweight"):
        qweight, qzeros, scales = (tensors[f"{stem}.{part}"] for part in ("qweight", "qzeros", "scales"))
        yield stem, module.dequantize_gemm(qweight, qzeros, scales.float(), 4, qweight.shape[0] // scales.shape[0]).T


def by_converter_of_compressed_tensors(folder, arguments):
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    converter = AutoAWQConverter.from_autoawq_config(config)
    (scheme,) = converter._build_quant_config().config_groups.values()
    tensors = converter.process(tensors_of(folder))
    for stem in stems(tensors, ".weight_packed"):
        state = {name[len(stem) + 1 :]: value for name, value in tensors.items() if name.startswith(stem + ".")}
        state["weight_scale"] = state["weight_scale"].float()
        yield stem, PackedQuantizationCompressor.decompress(state, scheme)["weight"]


def by_bitsandbytes(folder, arguments):
    from bitsandbytes.nn import Linear8bitLt
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu").eval()
    threshold = json.loads((folder / "config.json").read_text())["quantization_config"]["llm_int8_threshold"]
    for name, layer in model.named_modules():
        if isinstance(layer, Linear8bitLt):
            assert layer.state.threshold == threshold
            x = torch.zeros(layer.out_features, layer.in_features, requires_grad=True)
            layer(x).backward(torch.eye(layer.out_features))
            yield name, x.grad


def by_llama_cpp(folder, arguments):
    """llama.cpp's converter makes GGUF names; its values are looked up by the names of Nibble's own GGUF file."""
    sys.path.insert(0, str(pathlib.Path(arguments.llama_cpp) / "gguf-py"))
    from gguf import GGUFReader

    files = {}
    for who, command in {"theirs": [sys.executable, f"{arguments.llama_cpp}/convert_hf_to_gguf.py", folder, "--outtype", "f32", "--outfile"],
                         "ours": [arguments.nibble, "convert", folder, "-q", "--type", "f32", "-o"]}.items():
        path = folder.parent / f"{who}.gguf"
        subprocess.run([*map(str, command), str(path)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        files[who] = {t.name: torch.from_numpy(t.data.copy()) for t in GGUFReader(path).tensors}
    same = sum(torch.equal(files["ours"][name].float(), value.float()) for name, value in files["theirs"].items())
    return same, len(files["theirs"])


def logits_by_transformers(folder, tokens):
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig, FineGrainedFP8Config

    options = {}
    quantization = json.loads((folder / "config.json").read_text()).get("quantization_config", {})
    if quantization.get("quant_method") == "fp8":
        options["quantization_config"] = FineGrainedFP8Config(**{k: v for k, v in quantization.items() if k not in ("quant_method", "fmt")}, dequantize=True)
    if any(group["weights"]["type"] == "float" for group in quantization.get("config_groups", {}).values()):
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    if (folder / "model.safetensors").exists() and any(name.endswith("weight_zero_point") for name in tensors_of(folder)):
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)  # its other way makes no room for packed zero points
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        return model(tokens).logits


def chunks_of(arguments, text, count, length):
    """Of a text, as Nibble cuts it: each chunk begins with the first token."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(arguments.model)(pathlib.Path(text).read_text()[: 40 * count * length])["input_ids"]
    chunks = torch.tensor(tokens[: count * length]).reshape(count, length)
    chunks[:, 0] = tokens[0]
    return chunks


def cache_by_compressed_tensors(kind, arguments, folder):
    """Yields (label, good, total)."""
    from unittest import mock

    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM
    from transformers.cache_utils import DynamicCache

    length, scheme = 256, QuantizationConfig.model_validate(json.loads((folder / "config.json").read_text())["quantization_config"]).kv_cache_scheme
    wanted = QuantizationArgs(num_bits=8, type="float" if kind == "fp8-static" else "int", strategy="tensor", symmetric=True, dynamic=False)
    yield "config", int(scheme == wanted), 1
    model, update, tensors, ranges = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval(), DynamicCache.update, tensors_of(folder), {}
    names = {(layer, side): f"model.layers.{layer}.self_attn.{side}_scale" for layer in range(model.config.num_hidden_layers) for side in "kv"}

    def watch(cache, keys, values, layer, *rest, **options):
        for side, states in (("k", keys), ("v", values)):
            ranges[layer, side] = torch.stack([*ranges.get((layer, side), ()), *states.aminmax()]).aminmax()
        return update(cache, keys, values, layer, *rest, **options)

    def rounded(cache, keys, values, layer, *rest, **options):
        scales = [tensors[names[layer, side]].float() for side in "kv"]
        return update(cache, *(fake_quantize(x, scale, torch.zeros(1), wanted) for x, scale in zip((keys, values), scales)), layer, *rest, **options)

    def perplexity(chunks, instead):
        with mock.patch.object(DynamicCache, "update", instead), torch.no_grad():
            logits = model(chunks, use_cache=True, past_key_values=DynamicCache()).logits[:, length // 2 : -1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), chunks[:, length // 2 + 1 :].flatten()).exp().item()

    perplexity(chunks_of(arguments, arguments.calib, 1024 // length, length), watch)
    scales = {at: calculate_qparams(*ranges[at], wanted)[0] for at in names}
    yield "scales", sum(bool((tensors[names[at]].float() - scales[at]).abs() <= scales[at] * 2**-8) for at in names), len(names)
    yield "form of scales", sum(tensors[name].shape == (1,) and tensors[name].dtype == torch.bfloat16 for name in names.values()), len(names)
    chunks = chunks_of(arguments, arguments.text, 4, length)
    for cache, instead in (("f32", update), (kind, rounded)):
        command = [arguments.nibble, "eval", folder, "-t", arguments.text, "-c", length, "--chunks", 4, "--exact", "--kv-cache", cache, "-q", "--json", "-"]
        ours = json.loads(subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout)["perplexity_exact"]
        theirs = perplexity(chunks, instead)
        print(f"  cache {cache}: perplexity {ours:.5f}, by transformers {theirs:.5f}")
        yield f"perplexity, {cache}", int(abs(ours / theirs - 1) < 1e-4), 1


def compare_cache(kind, arguments):
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work) / "quantized"
        command = ["quantize", arguments.model, "-o", folder, "--type", "bf16", "--kv-cache", kind, "--calib", arguments.calib, "--calib-tokens", 1024, "--calib-ctx", 256]
        subprocess.run([arguments.nibble, *map(str, command), "-q"], check=True, stdout=subprocess.DEVNULL)
        return all([report(f"kv_cache_scheme {kind}: {what}", good, total, "of these") for what, good, total in cache_by_compressed_tensors(kind, arguments, folder)])


def report(label, good, total, unit="linears"):
    print(f"{label:<58} {good} of {total} {unit} the same{'' if good == total else '   DIFFERENT'}", flush=True)
    return good == total and total > 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nibble")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--calib", default="text/books-calib.txt", help="for types with fixed scales of inputs")
    parser.add_argument("--text", default="text/books-eval.txt", help="for perplexities")
    parser.add_argument("--caches", nargs="*", default=["fp8-static", "int8-static"], choices=["fp8-static", "int8-static"])
    parser.add_argument("--llama-cpp")
    parser.add_argument("--autoawq")
    parser.add_argument("--formats", nargs="*", default=list(TYPES))
    parser.add_argument("--types", nargs="*", help="only these")
    arguments = parser.parse_args()
    decoders = {"compressed-tensors": [by_compressed_tensors], "fp8": [by_transformers_fp8], "gptq": [by_gptqmodel], "gptq_v2": [by_gptqmodel], "awq": [by_autoawq, by_converter_of_compressed_tensors],
                "bnb": [by_bitsandbytes]}
    fine = all([compare_cache(kind, arguments) for kind in arguments.caches])
    for form in arguments.formats:
        for kind in (kind for kind in TYPES[form] if not arguments.types or kind in arguments.types):
            with tempfile.TemporaryDirectory() as work:
                folder, plain = pathlib.Path(work) / "quantized", pathlib.Path(work) / "plain"
                learned = ["--calib", arguments.calib, "--calib-tokens", 1024] if kind.endswith("static") else []
                for command in (["quantize", arguments.model, "-o", folder, "--type", kind, "--method", "rtn", "--format", form, *learned],
                                ["convert", folder, "-o", plain, "--type", "f32"]):
                    subprocess.run([arguments.nibble, *map(str, command), "-q"], check=True, stdout=subprocess.DEVNULL)
                ours = tensors_of(plain)
                for decoder in decoders[form]:
                    results = [torch.equal(ours[stem + ".weight"], values) for stem, values in decoder(folder, arguments)]
                    if results:
                        fine &= report(f"{form} {kind}: {decoder.__name__}", sum(results), len(results))
                if form == "compressed-tensors" and kind in PRESETS:
                    fine &= report(f"{form} {kind}: config_by_compressed_tensors", int(config_by_compressed_tensors(folder, kind)), 1, "config")
                if form in ("compressed-tensors", "fp8", "bnb"):
                    tokens = torch.arange(1, 65)[None]
                    theirs, own = logits_by_transformers(folder, tokens), logits_by_transformers(plain, tokens)
                    print(f"  transformers loads it; largest difference of logits {(theirs - own).abs().max():.2e}, of their size {own.abs().max():.1f}")
                if form in ("gptq", "gptq_v2", "fp8") and arguments.llama_cpp and not re.match("int3|.*e8m0", kind):
                    fine &= report(f"{form} {kind}: by_llama_cpp", *by_llama_cpp(folder, arguments), "tensors")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
