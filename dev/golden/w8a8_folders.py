"""Folders of W8A8 as llm-compressor writes them, tiny, and what compressed-tensors makes of them.

src/container/testdata/{ct_w8a8,ct_w8a8_static,ct_w8a8_asym}: a llama of one block by the preset W8A8 (inputs a scale a token), with fixed scales of
the inputs, and with those and zero points. config.json and model.safetensors as saved; expected.safetensors: the f32 weight of each linear M as the
package decompresses it with its scales in f32 (M.weight), and of fixed ones random inputs (3, cols) and what they are rounded to (M.x, M.rounded).
Made with llm-compressor 0.14, compressed-tensors 0.20, transformers 5.24, torch 2.14. Run: python dev/golden/w8a8_folders.py
"""
import json
import pathlib
import shutil
import tempfile

import torch
from compressed_tensors.compressors.naive_quantized import IntQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

DATA = pathlib.Path(__file__).resolve().parents[2] / "src/container/testdata"
VOCABULARY = 8
OPTIONS = dict(model_type="llama", hidden_size=32, intermediate_size=40, num_hidden_layers=1, vocab_size=VOCABULARY, max_position_embeddings=128,
               num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)


def save_plain(folder):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**OPTIONS)).bfloat16()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape).mul(parameter.shape[-1] ** -0.5).bfloat16()
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0").save_pretrained(folder)


def fixed(symmetric):
    weights = QuantizationArgs(num_bits=8, type="int", strategy="channel", symmetric=True, dynamic=False)
    inputs = QuantizationArgs(num_bits=8, type="int", strategy="tensor", symmetric=symmetric, dynamic=False)
    return dict(config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)})


def expected_of(folder):
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    (scheme,) = QuantizationConfig.model_validate(quantization).config_groups.values()
    inputs, tensors, expected = scheme.input_activations, load_file(folder / "model.safetensors"), {}
    for name in [name[: -len(".weight_scale")] for name in tensors if name.endswith(".weight_scale")]:
        state = {"weight": tensors[name + ".weight"], "weight_scale": tensors[name + ".weight_scale"].float()}
        expected[name + ".weight"] = IntQuantizationCompressor.decompress(state, scheme)["weight"].contiguous()
        if inputs.dynamic:
            continue
        scale, zero = tensors[name + ".input_scale"].float(), tensors.get(name + ".input_zero_point")
        x = torch.randn(3, state["weight"].shape[1]) * 40
        x = (x.clamp(-126, 126) - (0 if zero is None else zero.float())) * scale
        expected[name + ".x"] = x
        expected[name + ".rounded"] = fake_quantize(x, scale, zero, inputs)
    return expected


def make(name, plain, **how):
    torch.manual_seed(4)
    tokens = torch.randint(0, VOCABULARY, (4, 32)).tolist()
    model, work = AutoModelForCausalLM.from_pretrained(plain), pathlib.Path(tempfile.mkdtemp())
    oneshot(model=model, dataset=Dataset.from_dict({"input_ids": tokens, "attention_mask": [[1] * 32] * 4}), num_calibration_samples=4,
            max_seq_length=32, recipe=QuantizationModifier(ignore=["lm_head"], **how))
    model.save_pretrained(work, save_compressed=True)
    target = DATA / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (target / file).write_bytes((work / file).read_bytes())
    expected = expected_of(target)
    assert sum(tensor.endswith(".weight") for tensor in expected) == 7
    save_file(expected, work / "expected.safetensors")
    (target / "expected.safetensors").write_bytes((work / "expected.safetensors").read_bytes())
    print(name, sum(file.stat().st_size for file in target.iterdir()))


def main():
    plain = tempfile.mkdtemp()
    save_plain(plain)
    make("ct_w8a8", plain, scheme="W8A8", targets=["Linear"])
    make("ct_w8a8_static", plain, **fixed(True))
    make("ct_w8a8_asym", plain, **fixed(False))


if __name__ == "__main__":
    main()
