"""nf4 and fp4 by the package that defines them: src/encoding/testdata/codebook.bin.

Records: u8 length and name ("nf4-dq-b64/3x50"), u32 number of floats and of bytes; the f32 weights (rows, columns) and what they dequantize
to (left out of large ones); the bytes of the codes, scales and, with double quantization, super scales and offset.
The last one has scales that the package, which rounds what it looks up in the dynamic map to 16 bits first, does not give the nearest value.
The mean that double quantization takes off is a sum of f32 in PyTorch's own order: only tensors are taken for which it is the correctly
rounded one.
Made with bitsandbytes 0.50.2 and torch 2.13 on a CPU. Run: python dev/golden/codebook.py
"""
import pathlib
import struct

import bitsandbytes.functional as F
import numpy as np
import torch

FILE = pathlib.Path(__file__).resolve().parents[2] / "src/encoding/testdata/codebook.bin"
CASES = [
    ("nf4", (4, 128)), ("nf4", (3, 50)), ("nf4", (7, 9)), ("nf4-b32", (5, 48)), ("nf4-b4096", (3, 100)), ("nf4-b128", (2, 96)),
    ("fp4", (4, 128)), ("fp4", (3, 50)), ("fp4-b256", (2, 200)),
    ("nf4-dq", (9, 96)), ("nf4-dq-b32", (64, 130)), ("fp4-dq", (7, 37)), ("nf4-dq-b512", (3, 700)),
    ("nf4-dq-b32", (90, 128)),
]
ROUNDED = CASES[-1]


def weights(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator) * 0.02 * torch.rand(shape[0], 1, generator=generator).exp()
    if seed % 3 == 1:
        w = w.to(torch.bfloat16).float()
    flat = w.reshape(-1)
    flat[1] = 0.0
    if flat.numel() > 400:
        flat[128:192] = 0.0
        flat[200:210] *= 1e-6
        flat[250] = 0.7
    return w


def quantize(kind, block, double, w, rounded):
    packed, state = F.quantize_4bit(w, blocksize=block, compress_statistics=double, quant_type=kind)
    parts = [packed.numpy().tobytes(), state.absmax.numpy().tobytes()]
    if double:
        absmax = torch.ops.bitsandbytes.quantize_4bit.default(w, block, kind, torch.uint8)[1]
        if np.float32(absmax.double().mean().item()) != state.offset.numpy():
            return None
        parts_of = (absmax - state.offset) / state.state2.absmax.repeat_interleave(256)[: absmax.numel()]
        middles = (state.state2.code[1:] + state.state2.code[:-1]) / 2
        if rounded == torch.equal(torch.bucketize(parts_of, middles).to(torch.uint8), state.absmax.reshape(-1)):
            return None
        parts += [state.state2.absmax.numpy().tobytes(), state.offset.numpy().tobytes()]
    return b"".join(parts), F.dequantize_4bit(packed, state).reshape(w.shape)


def main():
    out = b""
    for at, (name, shape) in enumerate(CASES):
        kind, *rest = name.split("-")
        block = next((int(r[1:]) for r in rest if r[0] == "b"), 64)
        seed = 100 * at
        while (made := quantize(kind, block, "dq" in rest, w := weights(shape, seed), (name, shape) == ROUNDED)) is None:
            seed += 3
        data, decoded = made
        values = w.numpy().tobytes() + (decoded.numpy().tobytes() if w.numel() < 3000 else b"")
        key = f"{name}/{shape[0]}x{shape[1]}".encode()
        out += struct.pack("B", len(key)) + key + struct.pack("<II", len(values) // 4, len(data)) + values + data
        print(key.decode(), seed, len(values) // 4, len(data))
    FILE.write_bytes(out)
    print(FILE, len(out))


if __name__ == "__main__":
    main()
