#!/usr/bin/env bash
# What each type of KV cache costs: memory of a token, perplexity over that of the unquantized model and KL divergence from it, by the exact path (weights
# and arithmetic in f32, so that the cache is all that differs), and the speed of decoding behind a long context.
# usage: bench/kv_cache.sh MODEL TEXT...
#   MODEL    a Hugging Face folder
#   TEXT...  evaluation texts
# environment: PARTS (quality speed), TYPES, CTX (256), CHUNKS (0: all), NIBBLE, OUT (build/kv_cache); of types with fixed scales CALIB (text/books-calib.txt),
#   which they are learned from, PLAIN (bf16), the type of the model's weights, OBSERVER (minmax); of the speed SHAPE (llama-3.2-1b), LAYERS (0: its own),
#   WEIGHTS (q4_0), DEPTH (8192), GENERATE (16), ROUNDS (3), THREADS (2)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
nibble=${NIBBLE:-build/release/nibble}
read -ra types <<< "${TYPES:-f32 f16 q8_0 int8 int8-h int8-static fp8 fp8-h fp8-static int4 int4-h}"
model=$1
shift
out=${OUT:-build/kv_cache}
mkdir -p "$out"

# An expression over `d`, the JSON that a command writes.
figure() {
  local expression=$1
  shift
  "$nibble" "$@" -q --json - | python3 -c 'import json, math, sys; d = json.load(sys.stdin); print(eval(f"({sys.argv[1]})"))' "$expression"
}
bytes() { figure 'int(d["kv_bytes_per_token"])' plan "$model" --kv-cache "$1"; }

# The folder that brings a cache with fixed scales, for other types the model itself.
with_cache() {
  local folder=$out/$(basename "$model")-$1-${OBSERVER:-minmax}
  [[ $1 == *-static ]] || { echo "$model"; return; }
  [ -e "$folder" ] || "$nibble" quantize "$model" -o "$folder" --type "${PLAIN:-bf16}" --kv-cache "$1" --observer "${OBSERVER:-minmax}" \
    --calib "${CALIB:-text/books-calib.txt}" -q > "$out/log"
  echo "$folder"
}

quality() {
  local text type full
  full=$(bytes f16)
  for text in "$@"; do
    printf '\n%s, %s\n\n' "$(basename "$model")" "$(basename "$text")"
    echo '| cache | bytes a token | smaller than f16 | perplexity ratio | KL divergence | its 99.9 % | same top token |'
    echo '|---|---:|---:|---:|---:|---:|---:|'
    for type in "${types[@]}"; do
      printf '| %s | %s | ' "$type" "$(bytes "$type")"
      figure "f\"{$full / $(bytes "$type"):.2f} | {math.exp(d['ln_ppl_ratio_exact']):.5f} ± {d['ln_ppl_ratio_error_exact']:.5f} | {d['kld_mean_exact']:.6f} | \"
        f\"{d['kld_p999_exact']:.5f} | {100 * d['top1_exact']:.2f} % |\"" \
        eval "$(with_cache "$type")" -r "$model" -t "$text" -c "${CTX:-256}" --chunks "${CHUNKS:-0}" --exact --kv-cache "$type"
    done
  done
}

# Types in turn, each once a round, and the median of the rounds: a busy machine meets all alike.
speed() {
  local shape=${SHAPE:-llama-3.2-1b} weights=${WEIGHTS:-q4_0} layers=()
  local file=$out/$shape-${LAYERS:-0}-$weights.gguf
  [ "${LAYERS:-0}" = 0 ] || layers=(--layers "$LAYERS")
  if [ ! -e "$file" ]; then
    "$nibble" synth "$shape" -o "$out/plain.gguf" "${layers[@]}" -q > "$out/log"
    "$nibble" quantize "$out/plain.gguf" -o "$file" --type "$weights" -q >> "$out/log"
    rm "$out/plain.gguf"
  fi
  rm -f "$out"/speed-*
  local own=()  # without a folder there are no fixed scales
  for type in "${types[@]}"; do [[ $type == *-static ]] || own+=("$type"); done
  for _ in $(seq "${ROUNDS:-3}"); do
    for type in "${own[@]}"; do
      figure 'd["decode_tok_s"]' bench "$file" -p 0 -n "${GENERATE:-16}" -d "${DEPTH:-8192}" -r 1 --kv-cache "$type" --threads "${THREADS:-2}" --roofline-bytes 0 \
        >> "$out/speed-$type"
    done
  done
  printf '\n%s, decoding behind %s tokens, %s threads\n\n| cache | tokens/s | rounds |\n|---|---:|---|\n' "$(basename "$file")" "${DEPTH:-8192}" "${THREADS:-2}"
  for type in "${own[@]}"; do
    python3 -c 'import statistics, sys; r = [float(x) for x in open(sys.argv[2])]; print(f"| {sys.argv[1]} | {statistics.median(r):.1f} |", *(f"{x:.1f}" for x in r), "|")' \
      "$type" "$out/speed-$type"
  done
}

for part in ${PARTS:-quality speed}; do
  case $part in
    quality) quality "$@" ;;
    speed) speed ;;
    *) echo "no part '$part'" >&2 && exit 2 ;;
  esac
done
