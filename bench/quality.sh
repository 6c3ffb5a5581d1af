#!/usr/bin/env bash
# Quality of Nibble's files against llama.cpp's at the same type and the same importance matrix: mean KL divergence from the
# unquantized model, both by the exact f32 path, on text neither has seen, with a paired bootstrap over chunks.
# usage: bench/quality.sh MODEL LLAMA_BIN [TEXT...]
#   MODEL      a Hugging Face folder
#   LLAMA_BIN  folder with llama.cpp's llama-imatrix and llama-quantize
#   TEXT...    evaluation texts (default: text/books-eval.txt)
# environment: TYPES, CTX (256), CHUNKS (150), CALIB (text/books-calib.txt), CALIB_CHUNKS (250), OUT (build/quality)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1 llama=$2
shift 2
texts=("${@:-text/books-eval.txt}")
types=${TYPES:-q2_k q3_k_m q4_0 iq4_xs q4_k_m q5_k_m q6_k}
ctx=${CTX:-256} chunks=${CHUNKS:-150}
out=${OUT:-build/quality}/$(basename "$model")
nibble=build/release/nibble
mkdir -p "$out"

"$nibble" convert "$model" -o "$out/f16.gguf" --type f16 -q >/dev/null
if [ ! -f "$out/imatrix.gguf" ]; then
  "$llama/llama-imatrix" -m "$out/f16.gguf" -f "${CALIB:-text/books-calib.txt}" -c "$ctx" --chunks "${CALIB_CHUNKS:-250}" \
    -o "$out/imatrix.gguf" >"$out/imatrix.log" 2>&1
fi

# Figure number $3 (default 1) under key $2 of JSON file $1.
value() { sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | sed -n "${3:-1}p"; }
printf '%-10s %-16s %10s %10s %11s %11s %7s  %s\n' type text bytes peer KL "KL peer" ratio "95 % interval"
for type in $types; do
  "$nibble" quantize "$model" -o "$out/$type.gguf" --type "$type" --imatrix "$out/imatrix.gguf" -q >/dev/null
  "$llama/llama-quantize" --imatrix "$out/imatrix.gguf" "$out/f16.gguf" "$out/peer-$type.gguf" "$type" >"$out/peer-$type.log" 2>&1
  for text in "${texts[@]}"; do
    json="$out/$type-$(basename "$text" .txt).json"
    "$nibble" eval "$out/$type.gguf" --versus "$out/peer-$type.gguf" --reference "$model" --exact --text "$text" --ctx "$ctx" \
      --chunks "$chunks" --json "$json" -q >/dev/null
    printf '%-10s %-16s %10d %10d %11s %11s %7s  %s\n' "$type" "$(basename "$text" .txt)" "$(stat -c %s "$out/$type.gguf")" \
      "$(stat -c %s "$out/peer-$type.gguf")" "$(value "$json" kld_mean_exact)" "$(value "$json" kld_mean_exact 2)" \
      "$(value "$json" kld_ratio_exact)" "$(value "$json" kld_ratio_low_exact) .. $(value "$json" kld_ratio_high_exact)"
  done
done
