#!/usr/bin/env bash
# Whether llama.cpp computes from our files what we compute: perplexities of both programs on one text, ours by the fast and by
# the exact path, and for f32 and f16 the most likely token of every scored prediction.
# usage: bench/agreement.sh LLAMA_BIN TEXT
#   LLAMA_BIN  folder with llama.cpp's llama-perplexity
#   TEXT       text to evaluate on
# environment: MODEL (models/books-7m), TYPES, CTX (256), CHUNKS (all), THREADS (1: a small model gains nothing from more), EXACT (1; 0: our fast path alone), OUT (build/agreement),
#   PYTHON (python3, with numpy)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
llama=$1 text=$2
model=${MODEL:-models/books-7m}
types=${TYPES:-f32 f16 q8_0 q4_0 q4_k_m q6_k iq4_xs}
ctx=${CTX:-256}
out=${OUT:-build/agreement}/$(basename "$model")
nibble=build/release/nibble
mkdir -p "$out"

# Figure under key $2 of JSON file $1.
value() { sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | head -n 1; }
differs() { awk -v ours="$1" -v peer="$2" 'BEGIN { printf "%+.4f %%", 100 * (ours / peer - 1) }'; }
paths=(fast)
[ "${EXACT:-1}" = 0 ] || paths+=(exact)
printf '%-8s %12s' type llama.cpp
printf ' %12s %11s' $(printf '%s differs ' "${paths[@]}")
printf '\n'
for type in $types; do
  gguf="$out/$type.gguf" peer="$out/$type-peer.logits"
  save_peer=()
  case $type in f32 | f16) save_peer=(--save-all-logits "$peer") ;; esac
  "$nibble" quantize "$model" -o "$gguf" --type "$type" -q >/dev/null
  "$llama/llama-perplexity" -m "$gguf" -f "$text" -c "$ctx" -t "${THREADS:-1}" --chunks "${CHUNKS:--1}" "${save_peer[@]}" >"$out/$type.log" 2>&1
  ppl=$(sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$out/$type.log")
  printf '%-8s %12s' "$type" "$ppl"
  for path in "${paths[@]}"; do
    options=() suffix=
    [ "$path" = fast ] || options=(--exact) suffix=_exact
    [ ${#save_peer[@]} -eq 0 ] || options+=(--save-logits "$out/$type-$path.logits")
    "$nibble" eval "$gguf" --text "$text" --ctx "$ctx" --chunks "${CHUNKS:-0}" "${options[@]}" --json "$out/$type.json" -q >/dev/null
    ours=$(value "$out/$type.json" "perplexity$suffix")
    printf ' %12.4f %11s' "$ours" "$(differs "$ours" "$ppl")"
  done
  printf '\n'
  [ ${#save_peer[@]} -eq 0 ] && continue
  for path in "${paths[@]}"; do
    printf '%-8s %s path: %s\n' "$type" "$path" "$("${PYTHON:-python3}" dev/compare_logits.py "$out/$type-$path.logits" "$peer" || true)"
  done
  rm "$out/$type"-*.logits
done
