#!/usr/bin/env python3
"""Makes src/pipeline/testdata/stock_maps.txt: which type llama-quantize gives each tensor, for every stock mix and several
model shapes. Needs the Python packages `gguf` and `numpy` and a built llama-quantize (the first argument).

Only headers are written: the dry run reads no weights.
"""
import os
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np

QUANTIZE = sys.argv[1]
MIXES = ("q2_k q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k q8_0 q4_0 q4_1 q5_0 q5_1 iq4_xs iq4_nl mxfp4_moe f16 bf16 f32").split()


def dense(h, ff, heads, kv, head_dim=None, tied=True, vocab=512, bias=False):
    d = head_dim or h // heads
    stems = {"attn_norm.weight": (h,), "attn_q.weight": (heads * d, h), "attn_k.weight": (kv * d, h), "attn_v.weight": (kv * d, h),
             "attn_output.weight": (h, heads * d), "ffn_norm.weight": (h,), "ffn_gate.weight": (ff, h), "ffn_up.weight": (ff, h),
             "ffn_down.weight": (h, ff)}
    if bias:
        stems.update({"attn_q.bias": (heads * d,), "attn_k.bias": (kv * d,), "attn_v.bias": (kv * d,)})
    top = {"token_embd.weight": (vocab, h), "output_norm.weight": (h,)}
    if not tied:
        top["output.weight"] = (vocab, h)
    return top, stems


def moe(h, ff, heads, kv, experts):
    top, stems = dense(h, ff, heads, kv, tied=False)
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        out, cols = stems.pop(name + ".weight")
        stems[name + "_exps.weight"] = (experts, out, cols)
    stems["ffn_gate_inp.weight"] = (experts, h)
    return top, stems


def falcon(h, heads, kv):
    d = h // heads
    top = {"token_embd.weight": (512, h), "output_norm.weight": (h,), "output_norm.bias": (h,), "output.weight": (512, h)}
    stems = {"attn_norm.weight": (h,), "attn_norm.bias": (h,), "attn_qkv.weight": ((heads + 2 * kv) * d, h),
             "attn_output.weight": (h, h), "ffn_up.weight": (4 * h, h), "ffn_down.weight": (h, 4 * h)}
    return top, stems


# name: arch, layers, heads, kv heads, experts, (top tensors, block tensors)
CASES = {
    "small-tied": ("llama", 6, 8, 8, 0, dense(256, 512, 8, 8)),
    "small-gqa4-tied": ("llama", 10, 8, 2, 0, dense(256, 768, 8, 2)),
    "untied-12": ("llama", 12, 4, 4, 0, dense(256, 512, 4, 4, tied=False)),
    "rows-288": ("llama", 9, 6, 2, 0, dense(288, 800, 6, 2)),
    "rows-288-untied": ("llama", 9, 6, 6, 0, dense(288, 768, 6, 6, tied=False)),
    "rows-272": ("llama", 16, 4, 4, 0, dense(256, 272, 4, 4)),
    "gqa4-32": ("llama", 32, 8, 2, 0, dense(256, 512, 8, 2, tied=False)),
    "qwen2-24": ("qwen2", 24, 14, 2, 0, dense(896, 1152, 14, 2, bias=True)),
    "qwen3-28": ("qwen3", 28, 16, 8, 0, dense(256, 768, 16, 8, head_dim=32)),
    "llama-80": ("llama", 80, 8, 1, 0, dense(256, 256, 8, 1, tied=False)),
    "qwen2-80": ("qwen2", 80, 8, 8, 0, dense(256, 256, 8, 8, tied=False)),
    "experts-8": ("llama", 32, 8, 2, 8, moe(256, 512, 8, 2, 8)),
    "experts-4": ("llama", 17, 8, 8, 4, moe(256, 512, 8, 8, 4)),
    "falcon-32": ("falcon", 32, 8, 1, 0, falcon(256, 8, 1)),
}


def names(case):
    _, layers, _, _, _, (top, stems) = CASES[case]
    for name, shape in top.items():
        yield name, name, shape
    for stem, shape in stems.items():
        for layer in range(layers):
            yield f"blk.{layer}.{stem}", f"blk.*.{stem}", shape


def write_header(case, path):
    arch, layers, heads, kv, experts, (top, _) = CASES[case]
    hidden = top["token_embd.weight"][1]
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(512)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(512)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_layer_norm_eps(1e-5)
    w.add_vocab_size(512)
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(2)
    if arch == "qwen3":
        w.add_key_length(32)
        w.add_value_length(32)
    w.add_tokenizer_model("none")
    size = 0
    for name, _, shape in names(case):
        f32 = len(shape) == 1 or "ffn_gate_inp" in name
        dtype = np.dtype(np.float32 if f32 else np.float16)
        n = int(np.prod(shape)) * dtype.itemsize
        w.add_tensor_info(name, shape, dtype, n)
        size += (n + 31) // 32 * 32
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    os.truncate(path, (os.path.getsize(path) + 31) // 32 * 32 + size)


def write_imatrix(path):
    w = gguf.GGUFWriter(path, "none")
    w.add_type("imatrix")
    w.add_array("imatrix.datasets", ["none"])
    w.add_uint32("imatrix.chunk_count", 1)
    w.add_uint32("imatrix.chunk_size", 512)
    w.add_tensor("blk.0.none.weight.in_sum2", np.ones((1, 32), np.float32))
    w.add_tensor("blk.0.none.weight.counts", np.ones((1, 1), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def type_map(model, mix, imatrix):
    args = [QUANTIZE] + (["--imatrix", imatrix] if imatrix else []) + ["--dry-run", model, mix.upper()]
    run = subprocess.run(args, capture_output=True, text=True)
    if run.returncode != 0:
        return None
    result = {}
    for line in (run.stdout + run.stderr).splitlines():
        m = re.match(r"\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\S+), (.*)", line)
        if m:
            to = re.search(r"-> .*\((\S+)\)", m[3])
            result[m[1]] = (to[1] if to else m[2]).lower()
    return result


def runs(values):
    out = []
    for value in values:
        if out and out[-1][0] == value:
            out[-1][1] += 1
        else:
            out.append([value, 1])
    return " ".join(v if n == 1 else f"{v}*{n}" for v, n in out)


def main(out_path):
    with tempfile.TemporaryDirectory() as folder, open(out_path, "w") as out:
        imatrix = os.path.join(folder, "imatrix.gguf")
        write_imatrix(imatrix)
        out.write("# Types that llama-quantize (August 2026) chooses; made by dev/golden/recipes.py. A tensor without a line under a mix has\n"
                  "# the type named on the mix's line, or keeps its own when it is one-dimensional. '*' runs over the layers.\n")
        for case, (arch, layers, heads, kv, experts, _) in CASES.items():
            path = os.path.join(folder, case + ".gguf")
            write_header(case, path)
            out.write(f"case {case} {arch} {layers} {heads // kv} {experts}\n")
            for stem, shape in dict((s, sh) for _, s, sh in names(case)).items():
                out.write(f"tensor {stem} {'x'.join(map(str, shape))}\n")
            for with_imatrix in (False, True):
                for mix in MIXES:
                    if with_imatrix and mix not in ("q2_k_s", "q4_0", "q5_0", "iq4_xs", "iq4_nl", "q4_k_m"):
                        continue
                    types = type_map(path, mix, imatrix if with_imatrix else None)
                    if types is None:
                        print(f"{case} {mix}: refused", file=sys.stderr)
                        continue
                    assert set(types) == {n for n, _, _ in names(case)}, (case, mix, len(types))
                    stems = {}
                    for name, stem, shape in names(case):
                        if len(shape) > 1 and "ffn_gate_inp" not in name:
                            stems.setdefault(stem, []).append(types[name])
                    flat = [t for values in stems.values() for t in values]
                    common = max(sorted(set(flat)), key=flat.count)
                    out.write(f"mix {mix} {int(with_imatrix)} {common}\n")
                    for stem, values in stems.items():
                        if set(values) != {common}:
                            out.write(f"{stem} {runs(values)}\n")


main(sys.argv[2])
