"""Losses of short trainings by torch: src/train/testdata/training.txt.

Lines of words: `run MODEL LOSS...`, the loss of each of 50 steps of torch.optim.AdamW from the weights in src/model/testdata/MODEL, all in f32, before
the step. Matrices decay, vectors do not. Step t, counted from 0, learns from sequences 4t .. 4t + 3; token i of sequence s is floor(u * u * vocab) of
the number u of base/rng.h with seed 11, stream s, index i, so that there is something to learn: some tokens are frequent.
Made with transformers 5.24, torch 2.14 on a CPU. Run: python dev/golden/training.py
"""
import pathlib

import torch
from transformers import AutoModelForCausalLM

from optimizers import random_uniform

DATA = pathlib.Path(__file__).resolve().parents[2] / "src"
MODELS = ("llama_mha", "qwen2", "gemma2", "gpt2")
STEPS, SEQUENCES, LENGTH = 50, 4, 64


def tokens(sequence, vocab):
    u = random_uniform(11, sequence, LENGTH)
    return (u * u * vocab).floor().long()


def losses(name):
    model = AutoModelForCausalLM.from_pretrained(DATA / "model/testdata" / name, dtype=torch.float32, attn_implementation="eager")
    model.eval()  # no dropout
    model.get_input_embeddings().padding_idx = None  # the rows of all tokens learn
    groups = [dict(params=[p for p in model.parameters() if (p.ndim > 1) == decays], weight_decay=0.01 if decays else 0.0) for decays in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    for step in range(STEPS):
        batch = torch.stack([tokens(SEQUENCES * step + i, model.config.vocab_size) for i in range(SEQUENCES)])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def main():
    torch.manual_seed(0)
    lines = [f"run {name} " + " ".join(f"{loss:.6f}" for loss in losses(name)) for name in MODELS]
    (DATA / "train/testdata/training.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
