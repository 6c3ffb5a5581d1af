#!/usr/bin/env bash
# What the weight-only methods lose on integers and codebooks: mean KL divergence from the unquantized model by the exact path.
# usage: bench/weight_only.sh MODEL TEXT...
#   MODEL    a Hugging Face folder
#   TEXT...  evaluation texts
# environment: PARTS (grids awq adaround codebooks), CTX (256), CHUNKS (40), CALIB (text/books-calib.txt), TOKENS (16384), NIBBLE, OUT (build/weight_only)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1
shift
texts=()
for text in "$@"; do texts+=(--text "$text"); done
out=${OUT:-build/weight_only}/$(basename "$model")
mkdir -p "$out"

# The rows of one sweep.
sweep() {
  "${NIBBLE:-build/release/nibble}" sweep "$model" "${texts[@]}" --ctx "${CTX:-256}" --chunks "${CHUNKS:-40}" --calib "${CALIB:-text/books-calib.txt}" \
    --calib-tokens "${TOKENS:-16384}" -q "$@"
}
for part in ${PARTS:-grids awq adaround codebooks}; do
  case $part in
    grids) sweep --types int4-g128,int3-g128,int2-g128,int4-channel,int3-channel,int2-channel --methods rtn,gptq ;;
    awq) sweep --types int4-g128,int3-g128 --methods rtn,gptq --transforms awq ;;
    adaround) sweep --types int4-g128,int3-g128 --methods adaround ;;
    codebooks) sweep --types int4-g64,nf4,nf4-dq --methods rtn && sweep --types kmeans4-g512,kmeans4-g768 --methods kmeans ;;
    *) echo "no part '$part'" >&2 && exit 2 ;;
  esac | tee "$out/$part.md"
done
