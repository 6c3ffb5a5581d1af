#!/usr/bin/env bash
# Nibble's best file of a stock GGUF type against llama-quantize with llama-imatrix's matrix of the same text: bytes, mean KL
# divergence from the unquantized model by the exact f32 path, and as llama.cpp's own llama-perplexity measures both files.
# usage: bench/stock.sh MODEL LLAMA_BIN [TEXT...]
#   MODEL      a Hugging Face folder
#   LLAMA_BIN  folder with llama.cpp's llama-imatrix, llama-quantize and llama-perplexity
#   TEXT...    evaluation texts (default: text/books-eval.txt)
# environment: MIX (auto: types chosen at the peer's size; stock: the peer's types), TYPES, CTX (256), CHUNKS (150),
#   CALIB (text/books-calib.txt), TOKENS (32768), NIBBLE, OUT (build/stock)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1 llama=$2
shift 2
texts=("${@:-text/books-eval.txt}")
types=${TYPES:-q2_k q3_k_m q4_0 iq4_xs q4_k_m}
ctx=${CTX:-256} chunks=${CHUNKS:-150} tokens=${TOKENS:-32768} mix=${MIX:-auto} calib=${CALIB:-text/books-calib.txt}
out=${OUT:-build/stock}/$(basename "$model")
nibble=${NIBBLE:-build/release/nibble}
mkdir -p "$out"

"$nibble" convert "$model" -o "$out/f16.gguf" --type f16 -q >/dev/null
if [ ! -f "$out/imatrix.gguf" ]; then
  "$llama/llama-imatrix" -m "$out/f16.gguf" -f "$calib" -c "$ctx" --chunks 250 -o "$out/imatrix.gguf" \
    >"$out/imatrix.log" 2>&1
fi
for text in "${texts[@]}"; do
  base="$out/$(basename "$text" .txt).kld"
  [ -f "$base" ] || "$llama/llama-perplexity" -m "$out/f16.gguf" -f "$text" -c "$ctx" --chunks "$chunks" \
    --kl-divergence-base "$base" >"$base.log" 2>&1
done

# Figure number $3 (default 1) under key $2 of JSON file $1.
value() { sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | sed -n "${3:-1}p"; }
# Mean KL divergence of file $1 on text $2, as llama.cpp has it; "-" where it says none three times over.
peer_kld() {
  local mean try
  for try in 1 2 3; do
    mean=$("$llama/llama-perplexity" -m "$1" -f "$2" -c "$ctx" --chunks "$chunks" --kl-divergence-base "$out/$(basename "$2" .txt).kld" \
      --kl-divergence 2>&1 | sed -n 's/^Mean *KLD: *\([0-9.e-]*\).*/\1/p') || true
    [ -z "$mean" ] || break
  done
  echo "${mean:--}"
}
ratio() { case "$1$2" in *-) echo - ;; -*) echo - ;; *) awk "BEGIN { printf \"%.3f\", $1 / $2 }" ;; esac; }
printf '%-8s %-16s %9s %9s | %9s %9s %6s | %9s %9s %6s %8s\n' type text bytes peer exact peer ratio llama.cpp peer ratio seconds
for type in $types; do
  "$llama/llama-quantize" --imatrix "$out/imatrix.gguf" "$out/f16.gguf" "$out/peer-$type.gguf" "$type" >"$out/peer-$type.log" 2>&1
  wanted=(--type "$type")
  [ "$mix" = stock ] || wanted=(--type auto --size "$(stat -c %s "$out/peer-$type.gguf")")
  start=$(date +%s.%N)
  "$nibble" quantize "$model" -o "$out/$type.gguf" "${wanted[@]}" --method gptq --calib "$calib" --calib-tokens "$tokens" -q \
    >"$out/$type.log"
  seconds=$(awk "BEGIN { printf \"%.0f\", $(date +%s.%N) - $start }")
  for text in "${texts[@]}"; do
    json="$out/$type-$(basename "$text" .txt).json"
    "$nibble" eval "$out/$type.gguf" --versus "$out/peer-$type.gguf" --reference "$model" --exact --text "$text" --ctx "$ctx" \
      --chunks "$chunks" --json "$json" -q >/dev/null
    ours=$(peer_kld "$out/$type.gguf" "$text") theirs=$(peer_kld "$out/peer-$type.gguf" "$text")
    printf '%-8s %-16s %9d %9d | %9.6f %9.6f %6.3f | %9s %9s %6s %8s\n' "$type" "$(basename "$text" .txt)" \
      "$(stat -c %s "$out/$type.gguf")" "$(stat -c %s "$out/peer-$type.gguf")" "$(value "$json" kld_mean_exact)" \
      "$(value "$json" kld_mean_exact 2)" "$(value "$json" kld_ratio_exact)" "$ours" "$theirs" "$(ratio "$ours" "$theirs")" "$seconds"
  done
done
