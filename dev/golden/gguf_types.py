#!/usr/bin/env python3
"""Does Nibble read every type of a file made by llama.cpp as the gguf package does, bit by bit?

usage: gguf_types.py <model-f16.gguf> <imatrix> <folder of llama-quantize> <work folder> <command...>
The command is run as `command IN.gguf OUT.gguf` and writes all tensors of IN as f32 (`nibble convert --type f32 IN -o OUT`
given as "nibble convert --type f32 {in} -o {out}"). mxfp4 is written by the gguf
package, nvfp4 (which neither quantizes) with random bytes. Types that need an importance matrix get the tied embedding, which
has none, as q4_K.
"""
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

MADE = ("F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K_S Q4_K_S Q5_K_S Q6_K IQ4_NL IQ4_XS IQ2_XXS IQ2_XS IQ2_M IQ3_XXS IQ3_S "
        "IQ1_S IQ1_M TQ1_0 TQ2_0").split()
WRITTEN = ["MXFP4", "NVFP4"]


def copy_as(source, kind, out):
    """The model again with its matrices as `kind`, quantized by the gguf package."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        data = tensor.data
        if len(tensor.shape) == 2:
            if kind == gguf.GGMLQuantizationType.NVFP4:
                shape = gguf.quants.quant_shape_to_byte_shape(data.shape, kind)
                data = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
            else:
                data = gguf.quants.quantize(np.asarray(data, np.float32), kind)
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, np.asarray(data, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(name, theirs_path, ours_path):
    ours = {t.name: t for t in gguf.GGUFReader(ours_path).tensors}
    kinds, bad = set(), 0
    theirs = gguf.GGUFReader(theirs_path).tensors
    for tensor in theirs:
        kinds.add(tensor.tensor_type.name)
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).ravel()
        got = np.asarray(ours[tensor.name].data, np.float32).ravel()
        bad += not np.array_equal(expected.view(np.uint32), got.view(np.uint32))
    print(f"{name:8} {len(theirs)} tensors of {'+'.join(sorted(kinds))}: {'identical' if not bad else f'{bad} DIFFER'}")
    return bad == 0


def main():
    model, imatrix, binaries, work = sys.argv[1:5]
    command = sys.argv[5]
    Path(work).mkdir(exist_ok=True)
    good = True
    for name in MADE + WRITTEN:
        made, out = f"{work}/{name}.gguf", f"{work}/{name}-f32.gguf"
        if name in WRITTEN:
            copy_as(model, gguf.GGMLQuantizationType[name], made)
        else:
            # --pure leaves no fallback types, so that every matrix has the type asked for.
            embedding = ["--token-embedding-type", "q4_K"] if name.startswith(("IQ1", "IQ2")) else []
            run = subprocess.run([f"{binaries}/llama-quantize", "--pure", "--imatrix", imatrix, *embedding, model, made, name, "1"],
                                 capture_output=True, text=True)
            if run.returncode:
                print(f"{name:8} llama-quantize fails: {run.stderr.strip().splitlines()[-1]}")
                continue
        filled = command.replace("{in}", made).replace("{out}", out)
        subprocess.run(filled, shell=True, check=True, stdout=subprocess.DEVNULL)
        good &= compare(name, made, out)
        Path(made).unlink()
        Path(out).unlink()
    sys.exit(not good)


if __name__ == "__main__":
    main()
