"""What torch and bitsandbytes make of some gradients: src/train/testdata/optimizers.txt.

Lines of words. Parameters and gradients are made here and in the test by the counter-based numbers of base/rng.h, so only results are stored:
  map NAME BITS...                           the 256 values of bitsandbytes' create_dynamic_map, f32 as hexadecimal bits
  run KIND SIZE LR BETA1 BETA2 EPS DECAY     20 steps, then for some of the steps
  at STEP BITS...                            every 61st parameter (f32 bits)
KIND: adamw is torch.optim.AdamW, sgd torch.optim.SGD, lion bitsandbytes' Lion; adamw8bit-nearest the formula of bitsandbytes' blockwise 8-bit
AdamW with its maps, the states rounded to the nearest level; adamw8bit-bnb its own optimizer on a CPU, which rounds to 16 bits first.
Made with bitsandbytes 0.50.2 and torch 2.14 on a CPU. Run: python dev/golden/optimizers.py
"""
import pathlib

import bitsandbytes as bnb
import bitsandbytes.functional as F
import numpy as np
import torch

FILE = pathlib.Path(__file__).resolve().parents[2] / "src/train/testdata/optimizers.txt"
STEPS, KEPT, EVERY = 20, (1, 2, 20), 61


def random_uniform(seed, stream, n):
    """base/rng.h: 24 bits of SplitMix64."""
    mask = (1 << 64) - 1

    def mix(z):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    weyl = 0x9E3779B97F4A7C15
    with np.errstate(over="ignore"):
        base = mix(np.array([(seed + weyl * (stream + 1)) & mask], dtype=np.uint64))
        bits = mix(base + np.uint64(weyl) * np.arange(1, n + 1, dtype=np.uint64))
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0 ** -24))


def centered(stream, n):
    u = random_uniform(1, stream, n) - 0.5
    return u


def gradient(step, n):
    """Heavy tails, and some zeros."""
    u = centered(step, n)
    g = u * u * u
    g[::97] = 0
    return g


def bits(values):
    return " ".join(f"{x:08x}" for x in values.detach().numpy().view(np.uint32))


def nearest(x, table, block=256):
    """Values and not codes: each block divided by its largest magnitude, rounded to the nearest entry, the lower one at equal distance."""
    table = table.double()
    middles = (table[1:] + table[:-1]) / 2
    out = torch.empty_like(x)
    for begin in range(0, len(x), block):
        part = x[begin:begin + block]
        most = part.abs().max()
        scaled = (part / most if most > 0 else part).double()
        out[begin:begin + block] = table[torch.bucketize(scaled, middles)].float() * most
    return out


class Nearest8Bit:
    def __init__(self, params, lr, betas, eps, weight_decay):
        self.p, self.lr, self.betas, self.eps, self.decay, self.step_count = params[0], lr, betas, eps, weight_decay, 0
        self.m, self.v = torch.zeros_like(self.p), torch.zeros_like(self.p)
        self.maps = F.create_dynamic_map(signed=True), F.create_dynamic_map(signed=False)

    @torch.no_grad()
    def step(self):
        self.step_count += 1
        (b1, b2), g = self.betas, self.p.grad
        self.m.lerp_(g, 1 - b1)
        self.v.mul_(b2).addcmul_(g, g, value=1 - b2)
        self.p.mul_(1 - self.lr * self.decay)
        denominator = (self.v.sqrt() / (1 - b2 ** self.step_count) ** 0.5).add_(self.eps)
        self.p.addcdiv_(self.m, denominator, value=-self.lr / (1 - b1 ** self.step_count))
        self.m, self.v = nearest(self.m, self.maps[0]), nearest(self.v, self.maps[1])


RUNS = [
    ("adamw", torch.optim.AdamW, 3000, dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    ("adamw", torch.optim.AdamW, 700, dict(lr=3e-4, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.0)),
    ("lion", bnb.optim.Lion, 3000, dict(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.3)),
    ("sgd", torch.optim.SGD, 700, dict(lr=0.5, weight_decay=0.1)),
    ("adamw8bit-nearest", Nearest8Bit, 5000, dict(lr=1e-2, betas=(0.9, 0.995), eps=1e-8, weight_decay=0.1)),
    ("adamw8bit-bnb", bnb.optim.AdamW8bit, 5000, dict(lr=1e-2, betas=(0.9, 0.995), eps=1e-8, weight_decay=0.1)),
]


def main():
    lines = []
    for name, signed in (("signed", True), ("unsigned", False)):
        lines.append(f"map {name} {bits(F.create_dynamic_map(signed=signed))}")
    for kind, make, n, options in RUNS:
        p = torch.nn.Parameter(centered(0, n))
        optimizer = make([p], **options)
        betas = options.get("betas", (0, 0))
        lines.append(f"run {kind} {n} {options['lr']} {betas[0]} {betas[1]} {options.get('eps', 0)} {options['weight_decay']}")
        for step in range(1, STEPS + 1):
            p.grad = gradient(step, n)
            optimizer.step()
            if step in KEPT:
                lines.append(f"at {step} {bits(p.data[::EVERY].contiguous())}")
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
