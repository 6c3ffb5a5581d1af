#!/usr/bin/env bash
# What tuning and training buy at few bits: perplexity over the unquantized model's and mean KL divergence from it, by the exact path; the same tokens spent on the 16-bit model beside them.
# usage: bench/training.sh MODEL TRAIN_TEXT CALIB_TEXT TEXT...
#   MODEL       a Hugging Face folder
#   TRAIN_TEXT  what whole models are trained on
#   CALIB_TEXT  what blocks are quantized and tuned with
#   TEXT...     evaluation texts
# environment: PARTS (blocks efficientqat qat plain), TYPES (int2-g64-asym int3-g128-asym q2_k q3_k), TOKENS (131072), STEPS (400), CTX (256), CHUNKS (40), NIBBLE, OUT (build/training)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 4 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1 train=$2 calib=$3
shift 3
nibble=${NIBBLE:-build/release/nibble}
out=${OUT:-build/training}/$(basename "$model")
mkdir -p "$out"

# NAME MODEL: a row of the table.
row() {
  printf '| %s |' "$1"
  for text in "$@"; do
    [ -f "$text" ] && [ "$text" != "$2" ] || continue
    "$nibble" eval "$2" --reference "$model" --exact --text "$text" --ctx "${CTX:-256}" --chunks "${CHUNKS:-40}" --json "$out/eval.json" -q >/dev/null
    python3 -c "import json, sys; d = json.load(open(sys.argv[1])); print(' %.4f, %.5f |' % (d['perplexity_exact'] / d['perplexity_reference'], d['kld_mean_exact']), end='')" "$out/eval.json"
  done
  echo
}
# The name of an output of that type.
output() { case $1 in q*|iq*) echo "$out/$2-$1.gguf" ;; *) echo "$out/$2-$1" ;; esac; }
quantized() { # TYPE METHOD
  local to; to=$(output "$1" "$2")
  rm -rf "$to"
  "$nibble" quantize "$model" -o "$to" --type "$1" --method "$2" --calib "$calib" --calib-tokens "${TOKENS:-131072}" -q >/dev/null
  row "$1 $2" "$to" "${texts[@]}"
}
trained() { # NAME OPTIONS...
  local name=$1; shift
  rm -rf "$out/$name" "$out/$name.run"
  "$nibble" train "$model" -o "$out/$name" --text "$train" --steps "${STEPS:-400}" -q "$@" >/dev/null
  row "$name" "$out/$name" "${texts[@]}"
}
texts=("$@")
for part in ${PARTS:-blocks efficientqat qat plain}; do
  case $part in
    blocks) for type in ${TYPES:-int2-g64-asym int3-g128-asym q2_k q3_k}; do for method in gptq autoround; do quantized "$type" "$method"; done; done ;;
    efficientqat) for type in int2-g64-asym int3-g128-asym; do trained "efficientqat-$type" --efficientqat "$type"; done ;;
    qat) for type in w4a4 int2-g64-asym; do trained "qat-$type" --qat "$type"; done ;;
    plain) trained bf16 ;;
    *) echo "no part '$part'" >&2 && exit 2 ;;
  esac
done
