#!/usr/bin/env python3
"""A configuration of src/model/testdata with rows of 256 and a vocabulary that text can be encoded in: what bench/families.sh
makes random models of.

usage: dev/widen.py CONFIG OUT
"""
import json
import math
import sys

config = json.load(open(sys.argv[1]))
config = config.get("text_config", config)
projected = config.get("word_embed_proj_dim", config.get("hidden_size")) != config.get("hidden_size")
sizes = {"hidden_size": 256, "n_embd": 256, "word_embed_proj_dim": 256, "intermediate_size": 1024, "intermediate_size_mlp": 1024, "ffn_dim": 1024, "ffn_hidden_size": 1024,
         "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512, "shared_intermediate_size": 512, "n_inner": 1024,
         "q_lora_rank": 256, "kv_lora_rank": 256, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64, "vocab_size": 384, "head_dim": 32, "query_pre_attn_scalar": 32}
heads = config.get("num_attention_heads", config.get("n_head"))
config |= {key: size for key, size in sizes.items() if config.get(key) is not None}
if projected:
    config["word_embed_proj_dim"] = 128
config |= {key: 8 for key in ("num_attention_heads", "n_head") if key in config}
if "num_key_value_heads" in config:
    config["num_key_value_heads"] = 8 if config["num_key_value_heads"] == heads else 2
if config["model_type"] == "olmoe":  # which llama.cpp knows without shared keys only
    config["num_key_value_heads"] = 8
if config["model_type"] in ("mistral", "mixtral", "qwen2_moe", "qwen3_moe", "ministral", "qwen2", "starcoder2", "phi3"):  # whose windows llama.cpp leaves out
    config["sliding_window"] = 4096
rope = config.get("rope_scaling") or {}
if "short_factor" in rope:  # llama.cpp chooses by its context, which is a multiple of 256
    config["original_max_position_embeddings"], config["max_position_embeddings"] = 512, 1024
    rope.pop("original_max_position_embeddings", None)
    pairs = int(32 * config.get("partial_rotary_factor", 1)) // 2
    rope["short_factor"] = [1 + i / 40 for i in range(pairs)]
    rope["long_factor"] = [1 + i / 8 for i in range(pairs)]
if rope.get("truncate") is False:  # llama.cpp knows the usual turns only and rounds the ramp's ends outwards: from below 0 to 5 pairs
    rope |= {"original_max_position_embeddings": 200, "beta_fast": 32, "beta_slow": 1}
    config["rope_theta"] = (200 / (2 * math.pi)) ** (config["head_dim"] / (2 * 4.99999))
json.dump(config, open(sys.argv[2], "w"), indent=1)
