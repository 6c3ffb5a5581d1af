#!/usr/bin/env bash
# What rounding inputs as well as weights costs: perplexity over the unquantized model's and mean KL divergence from it by the exact path, which rounds inputs
# as the kernels do. fp8-channel is there for its weights alone.
# usage: bench/rounded_inputs.sh MODEL TEXT...
#   MODEL    a Hugging Face folder
#   TEXT...  evaluation texts
# environment: CTX (256), CHUNKS (40), CALIB (text/books-calib.txt), TOKENS (8192), NIBBLE, OUT (build/rounded_inputs)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1
shift
nibble=${NIBBLE:-build/release/nibble}
out=${OUT:-build/rounded_inputs}/$(basename "$model")
mkdir -p "$out"

value() { sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | sed -n 1p; }
echo "| type | transform | method | $(for text in "$@"; do printf '%s: perplexity, KL | ' "$(basename "$text" .txt)"; done)"
echo "|---|---|---|$(for text in "$@"; do printf -- '---|'; done)"
# TYPE METHOD [TRANSFORM [OPTION...]]
row() {
  local type=$1 method=$2 transform=${3:-}
  shift; shift
  [ $# -eq 0 ] || shift
  local options=(--calib "${CALIB:-text/books-calib.txt}" --calib-tokens "${TOKENS:-8192}")
  [ -z "$transform" ] || options+=(--transform "$transform")
  rm -rf "$out/q"
  "$nibble" quantize "$model" -o "$out/q" --type "$type" --method "$method" "${options[@]}" "$@" -q >"$out/log"
  printf '| %s | %s | %s |' "$type${*:+ $*}" "${transform:--}" "$method"
  for text in "${texts[@]}"; do
    "$nibble" eval "$out/q" --reference "$model" --exact --text "$text" --ctx "${CTX:-256}" --chunks "${CHUNKS:-40}" --json "$out/eval.json" -q >/dev/null
    awk "BEGIN { printf \" %.4f %.5f |\", $(value "$out/eval.json" perplexity_exact) / $(value "$out/eval.json" perplexity_reference), $(value "$out/eval.json" kld_mean_exact) }"
  done
  echo
}
texts=("$@")
row w8a8-tensor-static rtn "" --observer minmax
row w8a8-tensor-static rtn
row w8a8-static rtn
row w8a8-static rtn smoothquant
row w8a8-static rtn smoothquant:alpha=auto
row w8a8-static rtn rotate
row w8a8-static rtn rotate:online
row w8a8 rtn
row w8a8 rtn smoothquant
row w8a8 rtn smoothquant:alpha=auto
row w8a8 gptq smoothquant:alpha=auto
row llm-int8 rtn
row zeroquant-w8a8 rtn
row zeroquant-w4a8-g128 rtn
row w4a8-g128 rtn
row w4a8-g128 gptq smoothquant:alpha=auto
row w4a4 gptq
row w4a4 gptq smoothquant
row w4a4 gptq rotate
row w4a4 gptq rotate:online
row w4a4 gptq smoothquant:alpha=auto
row fp8-channel rtn
row w8a8-fp8 rtn
row w8a8-fp8-static rtn
row w8a8-fp8-static rtn "" --observer minmax
row w8a8-fp8-block128 rtn
row w8a8-mxfp8 rtn
row w8a8-fp8 rtn smoothquant
row w8a8-fp8-static rtn smoothquant
