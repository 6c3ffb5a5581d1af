"""Folders that transformers and bitsandbytes write with 4 and 8 bits, tiny, and what they make of them.

src/container/testdata/{bnb_nf4,bnb_fp4}: config.json, model.safetensors as saved (nf4 with double quantization; fp4 without), and
expected.safetensors with the f32 values of the linears. Rows of 32 and 40 columns: blocks of 64 go over their ends.
src/container/testdata/bnb_int8: the same with load_in_8bit; the values are those that the layer multiplies with (`layer_weight`), and one row of a
linear is zero.
src/model/testdata/qwen3_nf4: two layers, and golden.safetensors with `tokens` (80) and the `logits` (80, vocab) of one forward pass in f32 with
the dequantized weights.
Made with transformers 5.23, bitsandbytes 0.50.2, torch 2.13 on a CPU; bnb_int8 with transformers 5.24, torch 2.14.
Run: python dev/golden/bitsandbytes_folders.py [NAME ...]
With --check FOLDER PLAIN it loads a folder that Nibble wrote with the same packages instead: the linears, dequantized, must equal those of the
plain folder PLAIN bit for bit.
"""
import argparse
import pathlib
import shutil
import tempfile

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src"
OPTIONS = dict(model_type="qwen3", hidden_size=32, intermediate_size=40, num_hidden_layers=2, vocab_size=56, max_position_embeddings=128,
               num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, rope_theta=10000.0, rms_norm_eps=1e-5)


def linears(model):
    """The dequantized weight of each quantized linear."""
    return {name + ".weight": F.dequantize_4bit(module.weight.data, module.weight.quant_state).float().contiguous()
            for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}


def layer_weight(layer):
    """The f32 weight of a Linear8bitLt: what it multiplies gradients with, which are the rows of a unit matrix here. Its other way to f32,
    int8_vectorwise_dequant, multiplies in the other order: code * SCB, and that by 1/127."""
    x = torch.zeros(layer.out_features, layer.in_features, requires_grad=True)
    layer.eval()(x).backward(torch.eye(layer.out_features))
    other = F.int8_vectorwise_dequant(layer.state.CB, layer.state.SCB)
    apart = (x.grad.view(torch.int32) - other.view(torch.int32)).abs()
    assert apart.max() <= 1, apart.max()
    return x.grad.contiguous()


def linears_8bit(model):
    return {name + ".weight": layer_weight(module) for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear8bitLt)}


def make(how, values_of, zero_row=False, **others):
    """A saved folder, the values of its linears, and the model with those."""
    torch.manual_seed(3)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**dict(OPTIONS, **others))).float()
    generator = torch.Generator().manual_seed(4)
    for parameter in plain.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = (1 + 0.1 * values if parameter.dim() == 1 else 1.5 * values * parameter.shape[-1] ** -0.5).bfloat16().float()
    if zero_row:
        plain.model.layers[0].mlp.down_proj.weight.data[3] = 0
    folder = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as saved:
        plain.save_pretrained(saved)
        quantized = AutoModelForCausalLM.from_pretrained(saved, quantization_config=how, dtype=torch.float32, device_map="cpu")
    quantized.save_pretrained(folder)
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu", attn_implementation="eager")
    values = values_of(opened)
    assert len(values) == 7 * plain.config.num_hidden_layers
    state = plain.state_dict()
    for name, value in values.items():
        assert 0 < (state[name] - value).abs().max() < 0.5
        state[name] = value
    plain.load_state_dict(state)
    plain.config._attn_implementation = "eager"
    return pathlib.Path(folder), values, plain.eval()


def keep(folder, target, **others):
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, target / name)
    for name, content in others.items():
        save_file(content, target / f"{name}.safetensors")
    print(target.name, sum(f.stat().st_size for f in target.iterdir()))


def check(folder, plain):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    ours = linears(model) | linears_8bit(model)
    expected = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).state_dict()
    different = [name for name, value in ours.items() if not torch.equal(value, expected[name])]
    print(len(ours), "linears,", len(different), "differ", different[:3])
    raise SystemExit(bool(different) or not ours)


def four_bits(kind, nested):
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested, bnb_4bit_compute_dtype=torch.float32)


def make_model():
    folder, _, model = make(four_bits("nf4", True), linears)
    tokens = torch.randint(0, OPTIONS["vocab_size"], (80,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = model(tokens[None]).logits[0]
    keep(folder, SOURCE / "model/testdata/qwen3_nf4", golden={"tokens": tokens.int(), "logits": logits.contiguous()})


def make_four_bits(kind, nested):
    folder, values, _ = make(four_bits(kind, nested), linears, num_hidden_layers=1, vocab_size=8)
    keep(folder, SOURCE / f"container/testdata/bnb_{kind}", expected=values)


def make_eight_bits():
    folder, values, _ = make(BitsAndBytesConfig(load_in_8bit=True), linears_8bit, zero_row=True, num_hidden_layers=1, vocab_size=8)
    assert not values["model.layers.0.mlp.down_proj.weight"][3].any()
    keep(folder, SOURCE / "container/testdata/bnb_int8", expected=values)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="of the folders; all of them without")
    parser.add_argument("--check", nargs=2, metavar=("FOLDER", "PLAIN"))
    arguments = parser.parse_args()
    if arguments.check:
        check(*arguments.check)
    folders = {"qwen3_nf4": make_model, "bnb_nf4": lambda: make_four_bits("nf4", True), "bnb_fp4": lambda: make_four_bits("fp4", False),
               "bnb_int8": make_eight_bits}
    for name in arguments.names or folders:
        folders[name]()


if __name__ == "__main__":
    main()
