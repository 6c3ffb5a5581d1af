"""LoRA adapters that PEFT writes, tiny, and what it makes of them.

src/model/testdata/MODEL/lora: adapter_config.json and adapter_model.safetensors as saved, with random A and B, and golden.safetensors with the
`logits` (80, vocab) of one forward pass in f32 of the model's own golden `tokens`. llama_rope3: ranks and alphas by module, rsLoRA, an embedding and
a head beside a tied embedding; phi3: fused weights; gpt2: transposed ones, fan_in_fan_out; gpt_neox: q, k and v by head. adapter.gguf of llama_rope3 and
of phi3: what llama.cpp's convert_lora_to_gguf.py makes of the folder (of the first without the head, which the tied model has no tensor for).
Made with peft 0.21.2, transformers 5.24, torch 2.14 on a CPU, llama.cpp of 2026-08.
Run: python dev/golden/lora.py make --llama-cpp FOLDER
     python dev/golden/lora.py check BASE ADAPTER GOLDEN    loads a folder that Nibble wrote: largest difference of logits over their rms
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

DATA = pathlib.Path(__file__).resolve().parents[2] / "src/model/testdata"
CONFIGS = {
    "llama_rope3": dict(r=4, lora_alpha=6, use_rslora=True, rank_pattern={"v_proj": 2, r"layers\.1\.mlp\.down_proj": 3}, alpha_pattern={"q_proj": 3},
                        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "embed_tokens", "lm_head"]),
    "phi3": dict(r=2, lora_alpha=4, target_modules="all-linear"),
    "gpt2": dict(r=2, lora_alpha=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    "gpt_neox": dict(r=2, lora_alpha=4, target_modules="all-linear"),
}
TO_GGUF = ["llama_rope3", "phi3"]


def load_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens[None].long()).logits[0].float().contiguous()


def make(name, config, llama_cpp):
    out = DATA / name / "lora"
    model = get_peft_model(load_base(DATA / name), LoraConfig(task_type="CAUSAL_LM", **config)).eval()
    generator = torch.Generator().manual_seed(5)
    for key, value in model.named_parameters():
        if "lora_" in key:
            value.data = (torch.randn(value.shape, generator=generator) * 0.2).bfloat16().float()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        out.mkdir(exist_ok=True)
        for file in ["adapter_config.json", "adapter_model.safetensors"]:
            shutil.copyfile(pathlib.Path(folder) / file, out / file)
    saved = json.loads((out / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = name
    saved["target_modules"] = sorted(saved["target_modules"])
    (out / "adapter_config.json").write_text(json.dumps(saved, indent=1) + "\n")
    tokens = load_file(DATA / name / "golden.safetensors")["tokens"]
    save_file({"logits": logits_of(model, tokens)}, out / "golden.safetensors")
    if name in TO_GGUF:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            tensors = load_file(out / "adapter_model.safetensors")
            save_file({k: v for k, v in tensors.items() if "lm_head" not in k and "base_layer" not in k}, folder / "adapter_model.safetensors")
            (folder / "adapter_config.json").write_text(json.dumps(saved))
            base = folder / "base"
            base.mkdir()
            config = json.loads((DATA / name / "config.json").read_text()) | {"architectures": [type(model.get_base_model()).__name__]}
            (base / "config.json").write_text(json.dumps(config))
            subprocess.run([sys.executable, llama_cpp / "convert_lora_to_gguf.py", "--base", base, "--outtype", "f32", "--outfile",
                            out / "adapter.gguf", folder], check=True)


def check(base, adapter, golden):
    golden = load_file(golden)
    tokens = golden["tokens"] if "tokens" in golden else load_file(pathlib.Path(base) / "golden.safetensors")["tokens"]
    got = logits_of(PeftModel.from_pretrained(load_base(base), adapter).eval(), tokens)
    expected = golden["logits"]
    print(f"{(got - expected).abs().max() / expected.pow(2).mean().sqrt():.2e}")


parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command", required=True)
command = commands.add_parser("make")
command.add_argument("--llama-cpp", type=pathlib.Path, required=True)
command = commands.add_parser("check")
for argument in ["base", "adapter", "golden"]:
    command.add_argument(argument)
arguments = parser.parse_args()
if arguments.command == "make":
    for model_name, options in CONFIGS.items():
        make(model_name, options, arguments.llama_cpp)
else:
    check(arguments.base, arguments.adapter, arguments.golden)
