"""Already quantized Hugging Face folders, tiny, and what other code makes of them.

src/container/testdata/{fp8,mxfp4}: config.json, model.safetensors as published models have them, and expected.safetensors with the f32 values: of FP8
by PyTorch (float8_e4m3fn times its scale, whole blocks and partial ones at the edges), of MXFP4 by transformers' own dequantizer.
src/model/testdata/*_fp8*: folders that transformers itself opens and dequantizes; golden.safetensors holds `tokens` (80) and the `logits`
(80, vocab) of one forward pass in f32, as models.py makes them, and `plain_logits`, those of inputs as they are: for `logits` the inputs of each
quantized linear are rounded as the kernels of transformers do (y * s of act_quant: s = max|x| / 448 of a token and the columns of a block, or fixed; y = x / s in E4M3),
but for latent attention's kv_b_proj, which DeepSeek's own code and vLLM multiply dequantized.
Made with transformers 5.23, accelerate 1.15, torch 2.13. Run: python dev/golden/quantized_sources.py
"""
import json
import pathlib
import shutil
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src"
E4M3 = torch.float8_e4m3fn


def spread(scale, shape, block):
    """The scale of each weight."""
    for dim, size in ((-2, block[0]), (-1, block[1])):
        scale = scale.repeat_interleave(size, dim)
    return scale[..., : shape[-2], : shape[-1]]


def to_fp8(weight, block):
    """As published models are made: the largest magnitude of a block becomes 448."""
    rows, cols = weight.shape[-2:]
    block = (block[0] or rows, block[1] or cols)
    tiles = torch.nn.functional.pad(weight, (0, -cols % block[1], 0, -rows % block[0]))
    tiles = tiles.unflatten(-1, (-1, block[1])).unflatten(-3, (-1, block[0]))
    scale = (tiles.abs().amax((-3, -1)) / 448).clamp(min=1e-12)
    return (weight / spread(scale, weight.shape, block)).to(E4M3), scale


def write(folder, config, tensors, **others):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in others.items():
        save_file({k: v.contiguous() for k, v in content.items()}, folder / f"{name}.safetensors")
    print(folder.name, sum(f.stat().st_size for f in folder.iterdir()))


def container_fp8():
    generator = torch.Generator().manual_seed(5)
    tensors, expected = {}, {}
    for name, shape in {"exact": (32, 48), "edges": (40, 50), "small": (3, 5), "row": (1, 60), "stacked": (3, 17, 25)}.items():
        block = (16, 24)
        weight = torch.randn(shape, generator=generator) * torch.rand(shape[-2], 1, generator=generator)
        code, scale = to_fp8(weight, block)
        if name == "small":
            code = torch.tensor([0x00, 0x80, 0x01, 0x81, 0x07, 0x08, 0x7E, 0xFE, 0x38, 0xB8, 0x40, 0x77, 0x0F, 0xF0, 0x3F], dtype=torch.uint8)
            code = code.view(E4M3).reshape(3, 5)
        key = name if name == "stacked" else name + ".weight"
        tensors |= {key: code, key + "_scale_inv": scale}
        expected[key] = code.float() * spread(scale, shape, block)
    tensors["norm.weight"] = torch.ones(4, dtype=torch.bfloat16)
    tensors["lm_head.weight"] = torch.ones(2, 4, dtype=torch.bfloat16)
    tensors["exact.activation_scale"] = torch.tensor(1.0)
    config = dict(model_type="test", quantization_config=dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[16, 24],
                                                             modules_to_not_convert=["lm_head"]))
    write(SOURCE / "container/testdata/fp8", config, tensors, expected=expected)


def container_mxfp4():
    generator = torch.Generator().manual_seed(6)
    tensors, expected = {}, {}
    for name, (experts, rows, blocks) in {"gate_up_proj": (3, 6, 2), "down_proj": (2, 4, 3)}.items():
        key = f"model.layers.0.mlp.experts.{name}"
        codes = torch.randint(0, 256, (experts, rows, blocks, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(110, 132, (experts, rows, blocks), generator=generator, dtype=torch.uint8)
        scales[0, 0, 0] = 0  # the smallest: half of its codes are not normal numbers
        scales[-1, -1, -1] = 252  # the largest whose codes are all finite
        tensors |= {key + "_blocks": codes, key + "_scales": scales, key + "_bias": torch.randn(experts, rows, generator=generator).bfloat16()}
        # It gives (experts, columns, rows), what the model multiplies by from the right.
        expected[key] = convert_moe_packed_tensors(codes, scales, dtype=torch.float32).transpose(1, 2)
    config = dict(model_type="gpt_oss", quantization_config=dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "lm_head"]))
    write(SOURCE / "container/testdata/mxfp4", config, tensors, expected=expected)


OPTIONS = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=56, max_position_embeddings=128, num_attention_heads=4,
               num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, rope_theta=10000.0, rms_norm_eps=1e-5)


def rounded(x, group, scale):
    if scale is not None:
        return (x / scale).clamp(-448, 448).to(E4M3).float() * scale
    groups = x.unflatten(-1, (-1, group))
    s = groups.abs().amax(-1, keepdim=True) / 448
    return ((groups / s).nan_to_num(0).to(E4M3).float() * s).flatten(-2)


def logits_with_rounded_inputs(opened, tokens, quantized, block, scale):
    """Every product with a weight of `quantized` (names) takes its inputs rounded, the experts' too."""
    opened.set_experts_implementation("eager")
    memory = lambda tensor: tensor.untyped_storage().data_ptr()
    storages = {memory(tensor) for key, tensor in opened.state_dict().items() if key in quantized or ".experts." in key}
    linear = torch.nn.functional.linear
    seen = set()

    def product(x, weight, bias=None):
        if memory(weight) in storages:
            seen.add(memory(weight))
            x = rounded(x, block[1] if block else None, scale)
        return linear(x, weight, bias)

    torch.nn.functional.linear = product
    try:
        logits = opened(tokens[None]).logits[0]
    finally:
        torch.nn.functional.linear = linear
    assert seen == storages
    return logits


def model(name, block, scale_dtype=torch.float32, model_type="qwen3", **others):
    options = dict(OPTIONS, model_type=model_type, **others)
    torch.manual_seed(1)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options)).float()
    with tempfile.TemporaryDirectory() as saved:  # names as files have them
        plain.save_pretrained(saved)
        names = {k: v.shape for k, v in load_file(saved + "/model.safetensors").items()}
    generator = torch.Generator().manual_seed(2)
    tensors, exact = {}, {}
    for key, shape in names.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            tensors[key] = (1 + 0.1 * values).bfloat16()
        elif key.endswith("_proj.weight"):
            code, scale = to_fp8(1.5 * values * shape[-1] ** -0.5, block or (0, 0))
            scale = scale.to(scale_dtype)
            exact[key] = code.float() * spread(scale.float(), shape, block or shape)
            tensors |= {key: code, key + "_scale_inv": scale if block else scale.reshape(())}
            if not block:
                tensors[key.removesuffix("weight") + "activation_scale"] = torch.tensor(0.01)
        else:
            tensors[key] = (1.5 * values * shape[-1] ** -0.5).bfloat16()
    quantization = dict(quant_method="fp8", activation_scheme="dynamic" if block else "static", weight_block_size=block, modules_to_not_convert=["lm_head"])
    folder = SOURCE / "model/testdata" / name
    write(folder, dict(options, architectures=[type(plain).__name__], quantization_config=quantization), tensors)
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                  quantization_config=FineGrainedFP8Config(**{k: v for k, v in quantization.items() if k != "quant_method"},
                                                                                           dequantize=True)).float().eval()
    for key, values in opened.state_dict().items():  # transformers rounded nothing, and has the same blocks
        if key.endswith("experts.down_proj"):
            expert = [exact[key.replace("experts.", f"experts.{i}.") + ".weight"] for i in range(values.shape[0])]
            assert torch.equal(values, torch.stack(expert))
        assert key not in exact or torch.equal(values, exact[key])
    tokens = torch.randint(0, options["vocab_size"], (80,), generator=generator)
    quantized = {key for key in exact if "kv_b_proj" not in key}
    with torch.no_grad():
        plain_logits = opened(tokens[None]).logits[0]
        logits = logits_with_rounded_inputs(opened, tokens, quantized, block, None if block else 0.01)
    save_file({"tokens": tokens.int(), "logits": logits.contiguous(), "plain_logits": plain_logits.contiguous()}, folder / "golden.safetensors")
    print(name, float(logits.std()), float((logits - plain_logits).std()))


def mxfp4_model(name):
    """Opened by transformers as plain tensors: dequantized by its own function and put into the model."""
    options = dict(OPTIONS, model_type="gpt_oss", intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=24,
                   rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=1.0, truncate=False))
    torch.manual_seed(1)
    config = AutoConfig.for_model(**json.loads(json.dumps(options)))
    config._attn_implementation = "eager"
    plain = AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(2)
    tensors, exact = {}, {}
    for key, value in plain.state_dict().items():
        values = torch.randn(value.shape, generator=generator)
        if key.endswith(("gate_up_proj", "down_proj")):
            experts, cols, rows = value.shape
            codes = torch.randint(0, 256, (experts, rows, cols // 32, 16), generator=generator, dtype=torch.uint8)
            scales = torch.randint(123, 126, (experts, rows, cols // 32), generator=generator, dtype=torch.uint8)
            tensors |= {key + "_blocks": codes, key + "_scales": scales}
            exact[key] = convert_moe_packed_tensors(codes, scales, dtype=torch.float32)
        else:
            norm = key.endswith("norm.weight")
            tensors[key] = (float(norm) + values * (0.2 if value.dim() == 1 else value.shape[-1] ** -0.5)).bfloat16()
            exact[key] = tensors[key].float()
    plain.load_state_dict(exact)
    quantization = dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"])
    folder = SOURCE / "model/testdata" / name
    write(folder, dict(options, architectures=[type(plain).__name__], quantization_config=quantization), tensors)
    tokens = torch.randint(0, options["vocab_size"], (80,), generator=generator)
    with torch.no_grad():
        logits = plain(tokens[None]).logits[0]
    save_file({"tokens": tokens.int(), "logits": logits.contiguous()}, folder / "golden.safetensors")
    print(name, float(logits.std()))


container_fp8()
container_mxfp4()
mxfp4_model("gpt_oss_mxfp4")
model("qwen3_fp8", [16, 8])
model("qwen3_fp8_tensor", None, torch.bfloat16)
model("qwen3_moe_fp8", [16, 8], model_type="qwen3_moe", num_experts=5, num_experts_per_tok=3, moe_intermediate_size=16, norm_topk_prob=True)
model("deepseek_v3_fp8", [16, 8], model_type="deepseek_v3", rms_norm_eps=1e-6, num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=6, n_shared_experts=1,
      num_experts_per_tok=2, first_k_dense_replace=1, n_group=3, topk_group=2, q_lora_rank=32, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, head_dim=8, v_head_dim=12)
