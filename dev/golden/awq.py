"""What AutoAWQ's own search chooses for two blocks of models/books-7m: src/transform/testdata/awq.safetensors.

Blocks 0 and 5 of the unquantized model, int4 in groups of 128 with zero points, 4 sequences of 256 tokens of text/books-calib.txt:
  tokens                   (4, 256) i32
  LAYER.CONSUMER.inputs    the factors of a link, duo_scaling off (the form of llm-awq), (channels)
  LAYER.CONSUMER.both      the same with duo_scaling
  LAYER.down_proj.largest  the clip search's largest magnitudes, (rows, groups), for the weights as they are
CONSUMER is q_proj (with k_proj, v_proj), gate_proj (with up_proj) or down_proj; v_proj to o_proj is not scaled there where heads share values.
Made with AutoAWQ 0.2.9 (its sources named with --autoawq: the package itself no longer imports), transformers 5.24, torch 2.14 on a CPU.
Run: python dev/golden/awq.py --autoawq autoawq-0.2.9/awq
"""
import argparse
import pathlib
import sys
import types

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYERS = (0, 5)


def quantizer_of(folder):
    """AwqQuantizer from its file, with what it never uses here left empty."""
    def module(name, path=None, **names):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(path)] if path else []
        sys.modules[name].__dict__.update(names)

    linears = {name: type(name, (), {}) for name in ("WQLinear_GEMM", "WQLinear_GEMV", "WQLinear_Marlin", "WQLinear_GEMVFast")}
    module("awq", folder)
    module("awq.modules")
    module("awq.modules.linear", **linears)
    module("awq.quantize.scale", apply_scale=None, apply_clip=None)
    module("awq.utils", folder / "utils")
    module("awq.utils.calib_data", get_calib_dataset=None)
    from awq.quantize.quantizer import AwqQuantizer

    torch.Tensor.cpu = torch.Tensor.clone  # what it keeps of the weights must be a copy on a CPU, too

    quantizer = AwqQuantizer.__new__(AwqQuantizer)
    quantizer.w_bit, quantizer.group_size, quantizer.zero_point = 4, 128, True
    quantizer.n_parallel_calib_samples, quantizer.max_chunk_memory = None, 1 << 30
    return quantizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--autoawq", type=pathlib.Path, required=True)
    quantizer = quantizer_of(parser.parse_args().autoawq)
    import sentencepiece
    from transformers import AutoModelForCausalLM

    text = (ROOT / "text/books-calib.txt").read_text()[:20000]
    ids = sentencepiece.SentencePieceProcessor(model_file=str(ROOT / "models/books-7m/tokenizer.model")).encode(text)[:1024]
    tokens = torch.tensor(ids).view(4, 256)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "models/books-7m", dtype=torch.float32).eval()
    out = {"tokens": tokens.to(torch.int32)}
    with torch.no_grad():
        for layer in LAYERS:
            block, inputs, calls = model.model.layers[layer], {}, {}
            hooks = [module.register_forward_pre_hook(lambda m, args, name=name: inputs.__setitem__(name, args[0].clone()))
                     for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)]
            hooks.append(block.self_attn.register_forward_pre_hook(lambda m, args, kwargs: calls.update(kwargs), with_kwargs=True))
            model(tokens, use_cache=False)
            for hook in hooks:
                hook.remove()
            calls = {name: calls[name] for name in ("position_embeddings", "attention_mask")}
            attention, mlp = block.self_attn, block.mlp
            for duo in (False, True):
                quantizer.duo_scaling = duo
                for name, previous, layers, inspect, kwargs in (
                    ("self_attn.q_proj", block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj], attention, calls),
                    ("mlp.gate_proj", block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj], mlp, {}),
                    ("mlp.down_proj", mlp.up_proj, [mlp.down_proj], None, {}),
                ):
                    found = quantizer._search_best_scale(block, previous, layers, inputs[name], inspect, dict(kwargs))[2]
                    out[f"{layer}.{name.split('.')[1]}.{'both' if duo else 'inputs'}"] = found.float()
            largest = quantizer._compute_best_clip(mlp.down_proj.weight, inputs["mlp.down_proj"], n_sample_token=1 << 30)
            out[f"{layer}.down_proj.largest"] = largest.squeeze(-1).float()
    out = {name: value.contiguous() for name, value in out.items()}
    save_file(out, ROOT / "src/transform/testdata/awq.safetensors")
    for name, value in out.items():
        print(name, tuple(value.shape), value.flatten()[:3].tolist())


if __name__ == "__main__":
    main()
