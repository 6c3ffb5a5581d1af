#!/usr/bin/env python3
"""Golden importance matrices for src/calib: what llama-imatrix collects from the first block of books-7m.

usage: imatrix.py BOOKS_7M_F16.gguf TEXT LLAMA_IMATRIX OUT_FOLDER
Cuts the model to its first block, so that the files stay small, and runs llama-imatrix (2 chunks of 64 tokens) on it in both
output forms: block0.gguf and block0.dat. The text's name is kept short (calib.txt), as it enters the files.
"""
import pathlib, shutil, subprocess, sys, tempfile
import gguf

source, text, program, out = sys.argv[1:]
reader = gguf.GGUFReader(source)
with tempfile.TemporaryDirectory() as folder:
    small = pathlib.Path(folder) / "block0.gguf"
    writer = gguf.GGUFWriter(small, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = 1 if field.name == "llama.block_count" else field.contents()
        kind = field.types[0]
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or tensor.name.startswith("blk.0."):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copy(text, pathlib.Path(folder) / "calib.txt")
    for form in ("gguf", "dat"):
        name = f"block0.{form}"
        subprocess.run([program, "-m", small, "-f", "calib.txt", "-o", "out." + form, "--output-format", form, "-c", "64",
                        "-b", "64", "--chunks", "2", "-t", "2", "--no-ppl"], cwd=folder, check=True)
        shutil.copy(pathlib.Path(folder) / ("out." + form), pathlib.Path(out) / name)
