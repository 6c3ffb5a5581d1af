"""Golden logits of tiny random models, made by transformers: src/model/testdata/<case>/{config.json, model.safetensors, golden.safetensors}.

golden.safetensors holds `tokens` (80) and `logits` (80, vocab) of one forward pass in f32; the weights are rounded to bf16 first.
Made with transformers 5.23, torch 2.13. Run: python dev/golden/models.py [CASE...]
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

OUT = pathlib.Path(__file__).resolve().parents[2] / "src/model/testdata"
BASE = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, vocab_size=56, max_position_embeddings=128,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, rope_theta=10000.0, rms_norm_eps=1e-5)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
CASES = {
    "llama_mha": dict(model_type="llama", num_key_value_heads=4),
    "llama_rope3": dict(model_type="llama", num_attention_heads=8, head_dim=8, tie_word_embeddings=True, rope_theta=500000.0,
                        rope_scaling=LLAMA3),
    "llama_linear": dict(model_type="llama", attention_bias=True, mlp_bias=True, rope_scaling=dict(type="linear", factor=4.0)),
    "llama_yarn": dict(model_type="llama", rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama_dynamic": dict(model_type="llama", max_position_embeddings=48, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama_longrope": dict(model_type="llama", rope_scaling=dict(
        rope_type="longrope", short_factor=[1.0, 1.1, 1.2, 1.4], long_factor=[1.0, 2.0, 3.0, 5.0], factor=4.0,
        original_max_position_embeddings=32)),
    "mistral": dict(model_type="mistral", head_dim=12, sliding_window=24),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True, use_sliding_window=True, sliding_window=20, max_window_layers=1),
    "qwen3": dict(model_type="qwen3", head_dim=16, rope_theta=1000000.0),
}
GEMMA = dict(head_dim=12, tie_word_embeddings=True, rms_norm_eps=1e-6)
LONGROPE = dict(rope_type="longrope", short_factor=[1.0, 1.1, 1.3], long_factor=[1.0, 2.0, 4.0])
IDS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
FAMILIES = {
    "phi3": dict(model_type="phi3", sliding_window=24),
    "phi3_longrope": dict(model_type="phi3", num_attention_heads=4, partial_rotary_factor=0.75, original_max_position_embeddings=96,
                          max_position_embeddings=256, rope_scaling=LONGROPE, tie_word_embeddings=True),
    "gemma": dict(GEMMA, model_type="gemma", num_key_value_heads=1, hidden_activation="gelu_pytorch_tanh"),
    "gemma2": dict(GEMMA, model_type="gemma2", num_hidden_layers=4, sliding_window=16, query_pre_attn_scalar=12, attn_logit_softcapping=2.0,
                   final_logit_softcapping=3.0, hidden_activation="gelu_pytorch_tanh"),
    "gemma3": dict(GEMMA, model_type="gemma3_text", num_hidden_layers=7, hidden_size=24, num_attention_heads=2, num_key_value_heads=1, intermediate_size=20, sliding_window=16, query_pre_attn_scalar=12,
                   hidden_activation="gelu_pytorch_tanh", rope_theta=1000000.0),
    "gpt2": dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=96, n_ctx=96, intermediate_size=None, tie_word_embeddings=True, layer_norm_epsilon=1e-5,
                 activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "opt": dict(model_type="opt", ffn_dim=40, word_embed_proj_dim=32, max_position_embeddings=96, tie_word_embeddings=True, dropout=0.0,
                activation_function="relu", do_layer_norm_before=True),
    "gpt_neox": dict(model_type="gpt_neox", rotary_pct=0.25, layer_norm_eps=1e-5, use_parallel_residual=True, hidden_act="gelu"),
    "gpt_neox_sequential": dict(model_type="gpt_neox", rotary_pct=0.5, layer_norm_eps=1e-5, use_parallel_residual=False, hidden_act="gelu"),
    "phi": dict(model_type="phi", partial_rotary_factor=0.5, layer_norm_eps=1e-5, hidden_act="gelu_new", num_key_value_heads=4, intermediate_size=128),
    "phi_norms": dict(model_type="phi", partial_rotary_factor=0.5, layer_norm_eps=1e-5, hidden_act="gelu_new", num_key_value_heads=4, intermediate_size=40,
                      qk_layernorm=True),
    "falcon": dict(model_type="falcon", max_position_embeddings=2048, num_kv_heads=1, multi_query=True, tie_word_embeddings=True, bias=False, parallel_attn=True, new_decoder_architecture=False,
                   alibi=False, intermediate_size=None),
    "falcon_grouped": dict(model_type="falcon", max_position_embeddings=2048, num_kv_heads=2, tie_word_embeddings=True, bias=False, parallel_attn=True, new_decoder_architecture=True,
                           alibi=False, ffn_hidden_size=128, intermediate_size=None),
    "falcon_rw": dict(model_type="falcon", num_attention_heads=6, hidden_size=36, multi_query=False, tie_word_embeddings=True, bias=True,
                      parallel_attn=False, new_decoder_architecture=False, alibi=True, intermediate_size=None),
    "starcoder2": dict(model_type="starcoder2", norm_epsilon=1e-5, sliding_window=24, tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh",
                       use_bias=True, residual_dropout=0.0, embedding_dropout=0.0),
    "stablelm": dict(model_type="stablelm", partial_rotary_factor=0.25, layer_norm_eps=1e-5, use_qkv_bias=True, use_parallel_residual=False),
    "stablelm_parallel": dict(model_type="stablelm", partial_rotary_factor=0.5, layer_norm_eps=1e-5, use_parallel_residual=True),
    "stablelm_norms": dict(model_type="stablelm", partial_rotary_factor=0.25, layer_norm_eps=1e-5, use_parallel_residual=True, qk_layernorm=True),
    "olmo2": dict(model_type="olmo2", rope_theta=500000.0),
    "olmo3": dict(model_type="olmo3", num_hidden_layers=4, sliding_window=16, rope_theta=500000.0, intermediate_size=24,
                  rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)),
    "granite": dict(model_type="granite", embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5,
                    attention_bias=True, mlp_bias=True),
    "cohere": dict(model_type="cohere", layer_norm_eps=1e-5, logit_scale=0.25, tie_word_embeddings=True),
    "cohere_norms": dict(model_type="cohere", layer_norm_eps=1e-5, logit_scale=0.25, tie_word_embeddings=True, use_qk_norm=True),
    "cohere2": dict(model_type="cohere2", num_hidden_layers=4, layer_norm_eps=1e-5, logit_scale=0.25, tie_word_embeddings=True, sliding_window=16,
                    rotary_pct=1.0, intermediate_size=24),
    "smollm3": dict(model_type="smollm3", num_hidden_layers=4, tie_word_embeddings=True, rope_theta=50000.0, intermediate_size=24),
    "arcee": dict(model_type="arcee", hidden_act="relu2", attention_bias=True, mlp_bias=True),
    "opt_after": dict(model_type="opt", ffn_dim=40, word_embed_proj_dim=20, max_position_embeddings=96, tie_word_embeddings=True, dropout=0.0,
                      activation_function="relu", do_layer_norm_before=False),
    "ministral3": dict(model_type="ministral3", head_dim=12, rope_theta=None, rope_parameters=dict(
        type="yarn", rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
        mscale_all_dim=1.0, llama_4_scaling_beta=0.1)),
    "ministral": dict(model_type="ministral", head_dim=12, sliding_window=24, layer_types=["full_attention", "sliding_attention"]),
}
MOE = dict(num_experts_per_tok=2, router_jitter_noise=0.0, output_router_logits=False)
FAMILIES |= {
    "mixtral": dict(MOE, model_type="mixtral", intermediate_size=24, num_local_experts=4),
    "qwen2_moe": dict(MOE, model_type="qwen2_moe", num_experts=5, moe_intermediate_size=20, shared_expert_intermediate_size=28, norm_topk_prob=False),
    "qwen3_moe": dict(MOE, model_type="qwen3_moe", head_dim=12, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=20, norm_topk_prob=True),
}
FAMILIES |= {
    "granite_moe": dict(model_type="granitemoe", num_experts_per_tok=2, intermediate_size=24, num_local_experts=4, embedding_multiplier=3.0,
                        residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5, attention_bias=True),
    "granite_moe_shared": dict(model_type="granitemoeshared", num_experts_per_tok=3, intermediate_size=20, num_local_experts=5, shared_intermediate_size=28,
                               embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=2.5, tie_word_embeddings=True),
    "olmoe": dict(model_type="olmoe", num_experts=5, num_experts_per_tok=2, intermediate_size=20, norm_topk_prob=False),
    "gpt_oss": dict(model_type="gpt_oss", head_dim=16, intermediate_size=20, num_local_experts=4, num_experts_per_tok=2, sliding_window=24,
                    rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=1.0, truncate=False)),
    "llama4": dict(model_type="llama4_text", num_hidden_layers=4, head_dim=8, intermediate_size=12, intermediate_size_mlp=20, num_local_experts=3, num_experts_per_tok=1,
                   interleave_moe_layer_step=2, rope_theta=500000.0, rope_scaling=LLAMA3),
    "llama4_chunks": dict(model_type="llama4_text", num_hidden_layers=4, head_dim=8, intermediate_size=12, intermediate_size_mlp=20, num_local_experts=3,
                          num_experts_per_tok=2, moe_layers=[0, 3], no_rope_layers=[1, 0, 1, 1], use_qk_norm=False, attention_chunk_size=24, floor_scale=16, attn_scale=0.5),
}
# Text models of larger ones: their config.json and the names in their files.
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8)
LARGER = {
    "gemma3_larger": dict(FAMILIES["gemma3"], larger=dict(model_type="gemma3", mm_tokens_per_image=4, image_token_index=55, boi_token_index=54,
                                                          eoi_token_index=53, vision_config=dict(VISION, model_type="siglip_vision_model"))),
    "ministral3_larger": dict(FAMILIES["ministral3"], larger=dict(model_type="mistral3", image_token_index=55, tie_word_embeddings=False,
                                                                  vision_config=dict(VISION, model_type="pixtral", head_dim=8))),
}
FAMILIES |= LARGER
LATENT = dict(MOE, num_key_value_heads=4, rms_norm_eps=1e-6, moe_intermediate_size=12, n_routed_experts=6, n_shared_experts=2, first_k_dense_replace=1, q_lora_rank=20,
              kv_lora_rank=24, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=14, n_group=3, topk_group=2, routed_scaling_factor=1.5)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, mscale=0.8, mscale_all_dim=0.8, beta_fast=32, beta_slow=1)
FAMILIES |= {
    "deepseek_v2": dict(LATENT, model_type="deepseek_v2", topk_method="group_limited_greedy", norm_topk_prob=False),
    "deepseek_v2_lite": dict(LATENT, model_type="deepseek_v2", q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1, norm_topk_prob=False, rope_scaling=YARN),
    "deepseek_v3": dict(LATENT, model_type="deepseek_v3", norm_topk_prob=True, scoring_func="sigmoid", topk_method="noaux_tc", rope_scaling=YARN),
}
CASES |= {name: IDS | options for name, options in FAMILIES.items()}
SCALES = dict(sinks=15, gate_up_proj=2, gate_up_proj_bias=5, down_proj_bias=5)  # so that they matter, and some numbers are clamped
NULLS = {"q_lora_rank"}  # whose absence means something else
NEW_STYLE = {"llama_rope3", "qwen3"}  # config.json as transformers 5 writes it, with rope_parameters


def is_norm(key):
    return key.endswith(".weight") and ("norm" in key or ".ln_" in key)


def check_cached(model, tokens, logits):
    """transformers' own cached decode agrees with the whole pass, so that one golden serves both."""
    if isinstance(getattr(model.config, "rope_parameters", None), dict) and model.config.rope_parameters.get("rope_type") in ("dynamic", "longrope"):
        return
    out = model(tokens[None, :64], use_cache=True)
    for i in range(64, 80):
        out = model(tokens[None, i : i + 1], past_key_values=out.past_key_values, use_cache=True)
        difference = float((out.logits[0, -1] - logits[i]).abs().max())
        assert difference < 1e-4 * float(logits.abs().max()), (i, difference)


# A family's own key takes the place of the usual one.
RENAMED = dict(n_embd="hidden_size", n_layer="num_hidden_layers", n_head="num_attention_heads", n_positions="max_position_embeddings",
               n_inner="intermediate_size", ffn_dim="intermediate_size", layer_norm_epsilon="rms_norm_eps", layer_norm_eps="rms_norm_eps", norm_epsilon="rms_norm_eps")


def make(name, options):
    larger = options.get("larger")
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {key: value for key, value in {**BASE, **options}.items() if (value is not None or key in NULLS) and key != "larger"}
    for own, usual in RENAMED.items():
        if own in options:
            written.pop(usual, None)
    whole = written if larger is None else {**larger, "text_config": written}
    config = AutoConfig.for_model(**json.loads(json.dumps(whole)))
    config._attn_implementation = "sdpa" if written.get("alibi") else "eager"  # Falcon's eager attention adds ALiBi twice
    torch.manual_seed(1)
    model = (AutoModelForCausalLM if larger is None else AutoModelForImageTextToText).from_config(config).float().eval()
    generator = torch.Generator().manual_seed(2)
    centre = 0.0 if written["model_type"].startswith("gemma") else 1.0  # Gemma's norms scale by 1 + weight
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            values = torch.randn(tensor.shape, generator=generator)
            scale = 0.1 if tensor.dim() == 1 else 1.5 * tensor.shape[-1] ** -0.5
            if written["model_type"] == "gpt_oss":
                scale *= SCALES.get(key.split(".")[-1], 1)
            tensor.copy_((values * scale + (centre if is_norm(key) else 0.0)).bfloat16().float())
        for key, tensor in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                tensor.copy_((0.3 * torch.randn(tensor.shape, generator=generator)).bfloat16().float())
    tokens = torch.randint(0, written["vocab_size"], (80,), generator=generator)
    with torch.no_grad():
        logits = model(tokens[None]).logits[0]
        check_cached(model, tokens, logits)
    tied = written["tie_word_embeddings"]
    with tempfile.TemporaryDirectory() as saved:  # names as files have them
        model.save_pretrained(saved)
        state = {k: v.bfloat16().contiguous() for k, v in load_file(saved + "/model.safetensors").items() if not (tied and k == "lm_head.weight")}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"tokens": tokens.int(), "logits": logits.contiguous()}, folder / "golden.safetensors")
    content = config.to_dict() if name in NEW_STYLE else whole
    (folder / "config.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
    print(name, sum(f.stat().st_size for f in folder.iterdir()), float(logits.std()), sorted(state)[:3])


for case in sys.argv[1:] or CASES:
    make(case, CASES[case])
