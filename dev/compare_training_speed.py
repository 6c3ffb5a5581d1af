#!/usr/bin/env python3
"""A training step here and in PyTorch (transformers), in turns on one machine: medians of their speeds.

usage: compare_training_speed.py BENCH MODEL [model|block] [SEQUENCES] [TOKENS] [ROUNDS]
  BENCH  the program nibble_train_bench
  MODEL  a Hugging Face folder of a llama
PyTorch takes as many threads as there are processors; both train all weights in f32 with AdamW.
"""
import re
import statistics
import subprocess
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding


def whole(path, sequences, tokens):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).train()
    ids = torch.randint(0, model.config.vocab_size, (sequences, tokens))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step():
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()

    return step


def block(path, sequences, tokens):
    config = AutoConfig.from_pretrained(path)
    config._attn_implementation = "sdpa"
    layer = LlamaDecoderLayer(config, 0).float().train()
    x = torch.randn(sequences, tokens, config.hidden_size, requires_grad=True)
    positions = torch.arange(tokens)[None]
    rotary = LlamaRotaryEmbedding(config)(x, positions)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-6)

    def step():
        optimizer.zero_grad()
        y = layer(x, position_embeddings=rotary, position_ids=positions)
        y = y[0] if isinstance(y, tuple) else y
        ((y - x.detach()) ** 2).mean().backward()
        optimizer.step()

    return step


def main():
    bench, path = sys.argv[1:3]
    what = sys.argv[3] if len(sys.argv) > 3 else "model"
    sequences, tokens, rounds = (int(sys.argv[i]) if len(sys.argv) > i else d for i, d in ((4, 8), (5, 256), (6, 5)))
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    step = {"model": whole, "block": block}[what](path, sequences, tokens)
    step()
    ours, theirs, lines = [], [], []
    for _ in range(rounds):
        out = subprocess.run([bench, path, what, str(sequences), str(tokens), "1"], capture_output=True, text=True, check=True)
        lines.append(out.stdout.strip())
        ours.append(float(re.match(r"([\d.]+) s", out.stdout)[1]))
        start = time.perf_counter()
        step()
        theirs.append(time.perf_counter() - start)
        print(f"{lines[-1]}; PyTorch {theirs[-1]:.4f} s", flush=True)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"medians of {rounds}: {sequences * tokens / a:.0f} and {sequences * tokens / b:.0f} tokens/s, ratio {b / a:.2f}")


main()
