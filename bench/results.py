#!/usr/bin/env python3
"""Speed on a shape with random weights: every type beside the machine's measured limits and beside other programs, in turn in one run.

usage: bench/results.py LLAMA_BIN [--ik IK_BIN] [--shape llama-3.2-1b [--layers N]] [--threads 2] [--rounds 3] [--types q4_0,q4_k_m,...]
                        [--parts quantize,types,threads,batch,context,first] [--work build/speed] [--out FILE.md]

LLAMA_BIN and IK_BIN are the folders with the programs of llama.cpp and ik_llama.cpp. Writes a page of tables in Markdown, by default to
bench/results/<processor>-<instruction set>.md; NIBBLE_ISA chooses our instruction set. Needs about 12 GB under --work. Speeds are medians
over the rounds; the limits are the best of two measurements around them.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
NIBBLE = ROOT / "build/release/nibble"
TYPES = "q4_0 q4_k_m q8_0 f16 q4_1 q5_0 q5_1 q2_k q3_k_m q5_k_m q6_k iq4_nl iq4_xs mxfp4 bf16".split()


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = pathlib.Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.lines = []
        self.name = f"{args.shape}-{args.layers}layers" if args.layers else args.shape
        self.source = self.work / f"{self.name}-f16.gguf"

    def say(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def file(self, type_name):
        path = self.work / f"{self.name}-{type_name}.gguf"
        if not self.source.exists() and not path.exists():
            run(NIBBLE, "synth", self.args.shape, "--layers", self.args.layers, "-o", self.source, "-q")
        if not path.exists():
            run(NIBBLE, "quantize", self.source, "-o", path, "--type", type_name, "-q")
        return path

    def bench(self, path, *options, peers=(), threads=None):
        threads = threads or self.args.threads
        command = [NIBBLE, "bench", path, "--threads", threads, "-r", self.args.rounds, "-q", "--json", "-", *options]
        for peer in peers:
            command += ["--compare", peer]
        return json.loads(run(*command))

    def peers(self, path, prompt, generate, ik=True):
        options = f"-m '{path}' -t {self.args.threads} -p {prompt} -n {generate} -r 1 -o json 2>/dev/null"
        found = [f"'{self.args.llama}/llama-bench' {options}"]
        if ik and self.args.ik:
            found.append(f"'{self.args.ik}/llama-bench' -rtr 1 {options}")
        return found

    def quantize(self):
        args = self.args
        self.file("f16")
        imatrix = self.work / f"{self.name}-imatrix.gguf"
        if not imatrix.exists():
            run(NIBBLE, "imatrix", self.source, "--text", ROOT / "text/books-calib.txt", "--ctx", 128, "--chunks", 4, "-o", imatrix, "-q")
        ours, peer = self.work / "ours.gguf", self.work / "peer.gguf"

        def nibble(type_name, *options):
            run(NIBBLE, "quantize", self.source, "-o", ours, "--type", type_name, "--threads", args.threads, "-q", *options)
            run("sync", ours)

        def stock(type_name):
            run(f"{args.llama}/llama-quantize", "--imatrix", imatrix, self.source, peer, type_name, args.threads)
            run("sync", peer)

        def copy(n_bytes):  # reading all, writing as much as the result has
            with open(self.source, "rb") as source, open(peer, "wb") as target:
                while block := source.read(1 << 22):
                    target.write(block[: max(0, n_bytes)])
                    n_bytes -= len(block)
            run("sync", peer)

        self.say("## Quantizing, seconds, warm page cache, written to disk\n")
        self.say("| from f16 to | nibble | compared with | seconds | ratio |")
        self.say("|---|---|---|---|---|")
        for type_name in ("q4_k_m", "q4_0", "q8_0"):
            options = ("--imatrix", imatrix) if type_name == "q4_k_m" else ()
            size = self.file(type_name).stat().st_size
            other = (lambda: stock(type_name)) if options else (lambda: copy(size))
            times = [(seconds_of(lambda: nibble(type_name, *options)), seconds_of(other)) for _ in range(args.rounds)]
            a, b = (statistics.median(column) for column in zip(*times))
            name = "llama-quantize, same importance matrix" if options else "copying as many bytes"
            self.say(f"| {type_name} | {a:.2f} | {name} | {b:.2f} | {b / a:.2f} |")
        ours.unlink()
        peer.unlink()
        self.say()

    def types(self):
        self.say("## Every type: prefill of 512 tokens, decode of 32\n")
        header = ["type", "GB", "prefill t/s", "of its peak", "of int8 peak", "decode t/s", "of bandwidth", "llama.cpp prefill", "decode"]
        if self.args.ik:
            header += ["ik_llama.cpp prefill", "decode"]
        self.say("| " + " | ".join(header) + " |")
        self.say("|---" * len(header) + "|")
        for type_name in self.args.types.split(","):
            path = self.file(type_name)
            got = self.bench(path, "-p", 512, "-n", 32, peers=self.peers(path, 512, 32))
            self.limits = got
            cells = [type_name, f"{got['file_bytes'] / 1e9:.2f}", f"{got['prefill_tok_s']:.1f}", f"{got['prefill_peak_fraction']:.2f}",
                     f"{got['prefill_gops'] / got['int8_peak_gops']:.2f}", f"{got['decode_tok_s']:.1f}", f"{got['decode_bandwidth_fraction']:.2f}"]
            for peer in got["compare"]:
                for what in ("prefill", "decode"):
                    cells.append(f"{peer[what + '_tok_s']:.1f} ({peer[what + '_ratio']:.2f}x)")
            self.say("| " + " | ".join(cells) + " |")
        tiles = f", bf16 tiles {got['bf16_tile_peak_gflops']:.0f} GFLOPS" if "bf16_tile_peak_gflops" in got else ""
        self.say(f"\nLimits: read {got['read_gb_s']:.1f} GB/s, int8 {got['int8_peak_gops']:.0f} GOPS, f32 {got['f32_peak_gflops']:.0f} GFLOPS{tiles}.\n")

    def threads(self):
        self.say("## One thread and more\n\n| type | threads | prefill t/s | of peak | decode t/s | of bandwidth |\n|---|---|---|---|---|---|")
        for type_name in ("q4_0", "q4_k_m"):
            for threads in range(1, self.args.threads + 1):
                got = self.bench(self.file(type_name), "-p", 512, "-n", 32, threads=threads)
                self.say(f"| {type_name} | {threads} | {got['prefill_tok_s']:.1f} | {got['prefill_peak_fraction']:.2f} | "
                         f"{got['decode_tok_s']:.1f} | {got['decode_bandwidth_fraction']:.2f} |")
        self.say()

    def batch(self):
        self.say("## Sequences that decode together\n\n| type | sequences | decode t/s | times one |\n|---|---|---|---|")
        for type_name in ("q4_0", "q4_k_m"):
            one = None
            for batch in (1, 2, 4, 5, 8, 16):
                speed = self.bench(self.file(type_name), "-p", 0, "-n", 16, "-b", batch)["decode_tok_s"]
                one = one or speed
                self.say(f"| {type_name} | {batch} | {speed:.1f} | {speed / one:.2f} |")
        self.say()

    def context(self):
        self.say("## Decode behind 8192 tokens\n\n| type | cache | decode t/s | of bandwidth |\n|---|---|---|---|")
        for cache in ("f16", "q8_0"):
            got = self.bench(self.file("q4_k_m"), "-p", 0, "-n", 16, "-d", 8192, "--kv-cache", cache)
            self.say(f"| q4_k_m | {cache} | {got['decode_tok_s']:.1f} | {got['decode_bandwidth_fraction']:.2f} |")
        self.say()

    def first(self):
        path = self.file("q4_k_m")
        command = [NIBBLE, "run", path, "-p", "one two three four", "-n", 1, "--threads", self.args.threads, "-q", "--json", "-"]
        tokens = json.loads(run(*command)).get("prompt_tokens", 0)
        best = [seconds_of(lambda: run(*command)) for _ in range(max(3, self.args.rounds))]
        self.say(f"From start to first token, q4_k_m, {tokens} tokens of prompt, warm page cache: {statistics.median(best):.2f} s.\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama")
    parser.add_argument("--ik")
    parser.add_argument("--shape", default="llama-3.2-1b")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--parts", default="quantize,types,threads,batch,context,first")
    parser.add_argument("--work", default=str(ROOT / "build/speed"))
    parser.add_argument("--out")
    args = parser.parse_args()
    bench = Bench(args)
    machine = bench.bench(bench.file(args.types.split(",")[0]), "-p", 1, "-n", 1)
    bench.say(f"# {bench.name}, {args.threads} threads of {machine['cpu']}, {machine['isa']}\n")
    bench.say(f"`bench/results.py`, rounds: {args.rounds}. A ratio above 1 means that nibble is faster.\n")
    for part in args.parts.split(","):
        getattr(bench, part)()
    slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['isa']}".lower()).strip("-")
    out = pathlib.Path(args.out or ROOT / "bench/results" / f"{slug}.md")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(bench.lines).rstrip() + "\n")


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
