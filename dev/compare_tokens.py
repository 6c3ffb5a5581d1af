#!/usr/bin/env python3
"""Our tokens beside those of others, for each vocabulary in llama.cpp's models/ggml-vocab-*.gguf: the texts and ids
that lie beside it (.inp, .out: Hugging Face's tokens) and, with its program llama-tokenize, whole texts.

usage: dev/compare_tokens.py NIBBLE_ENCODE MODELS [LLAMA_TOKENIZE TEXT...]
"""
import ast, glob, os, struct, subprocess, sys, tempfile

SEPARATOR = b"\n__ggml_vocab_test__\n"
encode, models, *others = sys.argv[1:]


def ours(vocabulary, text, plain):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/text", "wb") as file:
            file.write(text)
        done = subprocess.run([encode, vocabulary, f"{folder}/text", f"{folder}/ids", *(["plain"] if plain else [])], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()
        data = open(f"{folder}/ids", "rb").read()
        return list(struct.unpack(f"<{len(data) // 4}i", data))


def theirs(vocabulary, path):
    done = subprocess.run([others[0], "-m", vocabulary, "-f", path, "--ids", "--log-disable"], capture_output=True, text=True)
    return ast.literal_eval(done.stdout) if done.returncode == 0 else "llama-tokenize: " + done.stderr.strip().splitlines()[-1]


def first_difference(found, wanted):
    if isinstance(found, str) or isinstance(wanted, str):
        return found if isinstance(found, str) else wanted
    at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))
    return f"at {at}: {found[at:at + 4]} for {wanted[at:at + 4]}"


different = 0
for vocabulary in sorted(glob.glob(f"{models}/ggml-vocab-*.gguf")):
    name = os.path.basename(vocabulary)[len("ggml-vocab-"):-len(".gguf")]
    if os.path.exists(vocabulary + ".out"):
        texts = open(vocabulary + ".inp", "rb").read().removesuffix(SEPARATOR).split(SEPARATOR)
        wanted = [list(map(int, line.split())) for line in open(vocabulary + ".out")]
        found = [ours(vocabulary, text, True) for text in texts]
        wrong = [i for i in range(len(texts)) if found[i] != wanted[i]]
        different += len(wrong)
        print(f"{name:16} {len(texts) - len(wrong):3} of {len(texts)} texts equal" +
              (f"; text {wrong[0]} {first_difference(found[wrong[0]], wanted[wrong[0]])}" if wrong else ""), flush=True)
    for path in others[1:]:
        found, wanted = ours(vocabulary, open(path, "rb").read(), False), theirs(vocabulary, path)
        different += found != wanted
        print(f"{name:16} {os.path.basename(path)}: " + (f"{len(wanted)} ids equal" if found == wanted else first_difference(found, wanted)), flush=True)
sys.exit(different > 0)
