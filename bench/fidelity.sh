#!/usr/bin/env bash
# What fast arithmetic costs: mean KL divergence of each program's usual path from the exact f32 path of the same file.
# usage: bench/fidelity.sh LLAMA_BIN [TEXT]
#   LLAMA_BIN  folder with llama.cpp's llama-perplexity
#   TEXT       text to evaluate on (text/books-eval.txt)
# llama-perplexity prints six decimals: less than that is 0.
# environment: MODEL (models/books-7m), TYPES, CTX (256), CHUNKS (40), OUT (build/fidelity)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
llama=$1 text=${2:-text/books-eval.txt}
model=${MODEL:-models/books-7m}
types=${TYPES:-f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl iq4_xs mxfp4 q2_k q3_k_m q4_k_m q5_k_m q6_k}
ctx=${CTX:-256} chunks=${CHUNKS:-40}
out=${OUT:-build/fidelity}/$(basename "$model")
nibble=build/release/nibble
mkdir -p "$out"

value() { sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | head -n 1; }
printf '%-8s %12s %12s %8s\n' type nibble llama.cpp ratio
for type in $types; do
  gguf="$out/$type.gguf"
  "$nibble" quantize "$model" -o "$gguf" --type "$type" -q >/dev/null
  "$nibble" eval "$gguf" --reference "$gguf" --text "$text" --ctx "$ctx" --chunks "$chunks" --json "$out/$type.json" -q >/dev/null
  "$nibble" eval "$gguf" --exact --save-logits "$out/exact.logits" --text "$text" --ctx "$ctx" --chunks "$chunks" -q >/dev/null
  "$llama/llama-perplexity" -m "$gguf" --kl-divergence --kl-divergence-base "$out/exact.logits" >"$out/$type.log" 2>&1
  ours=$(value "$out/$type.json" kld_mean) peer=$(sed -n 's/.*Mean *KLD: *\([-0-9.]*\).*/\1/p' "$out/$type.log")
  printf '%-8s %12.3e %12.3e %8s\n' "$type" "$ours" "$peer" "$(awk -v ours="$ours" -v peer="$peer" 'BEGIN { if (peer > 0) printf "%.2f", ours / peer; else print "-" }')"
done
rm -f "$out/exact.logits"
