#!/usr/bin/env bash
# Speed against llama.cpp on the llama-3.2-1b shape with random weights, both programs in turn in one run, medians of ROUNDS:
# quantizing f16 to Q4_K_M with an importance matrix (whole command and sync, warm page cache), then prefill and decode.
# usage: bench/speed.sh LLAMA_BIN
# environment: ROUNDS (3), THREADS (2), SHAPE (llama-3.2-1b), TYPES (q4_0 q4_k_m q8_0), OUT (build/speed; needs about 6 GB)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
llama=$1
rounds=${ROUNDS:-3} threads=${THREADS:-2} shape=${SHAPE:-llama-3.2-1b} types=${TYPES:-q4_0 q4_k_m q8_0} out=${OUT:-build/speed}
nibble=build/release/nibble
mkdir -p "$out"
source=$out/$shape-f16.gguf
[ -f "$source" ] || "$nibble" synth "$shape" -o "$source" -q
imatrix=$out/$shape-imatrix.gguf
[ -f "$imatrix" ] || "$nibble" imatrix "$source" --text text/books-calib.txt --ctx 128 --chunks 4 -o "$imatrix" -q >/dev/null

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
# Appends the wall seconds of a command to a file.
timed() {
  local log=$1 start
  shift
  start=$(date +%s.%N)
  "$@" >/dev/null 2>&1
  awk "BEGIN { print $(date +%s.%N) - $start }" >>"$log"
}
row() { printf '%-8s %-10s %12s %12s %8s\n' "$1" "$2" "$3" "$4" "$(awk "BEGIN { printf \"%.2f\", $5 }")"; }

quantize_ours() { "$nibble" quantize "$source" -o "$out/ours.gguf" --type q4_k_m --imatrix "$imatrix" --threads "$threads" -q && sync "$out/ours.gguf"; }
quantize_peer() { "$llama/llama-quantize" --imatrix "$imatrix" "$source" "$out/peer.gguf" q4_k_m "$threads" && sync "$out/peer.gguf"; }

printf '%-8s %-10s %12s %12s %8s\n' type what nibble peer ratio
rm -f "$out"/*.times
cat "$source" >/dev/null
for _ in $(seq "$rounds"); do
  timed "$out/ours.times" quantize_ours
  timed "$out/peer.times" quantize_peer
done
ours=$(median <"$out/ours.times") peer=$(median <"$out/peer.times")
row q4_k_m "quantize s" "$ours" "$peer" "$peer / $ours"

for type in $types; do
  file=$out/$shape-$type.gguf
  [ -f "$file" ] || "$nibble" quantize "$source" -o "$file" --type "$type" -q >/dev/null
  rm -f "$out"/*.speeds
  for _ in $(seq "$rounds"); do
    "$nibble" bench "$file" -p 512 -n 32 -r 1 --threads "$threads" --json "$out/bench.json" -q >/dev/null
    for what in prefill decode; do sed -n "s/^ *\"${what}_tok_s\": \([^,]*\),\{0,1\}$/\1/p" "$out/bench.json" >>"$out/ours-$what.speeds"; done
    "$llama/llama-bench" -m "$file" -t "$threads" -p 512 -n 32 -r 1 2>/dev/null |
      awk -F'|' -v out="$out" '$7 ~ /pp/ { print $8 + 0 >> (out "/peer-prefill.speeds") } $7 ~ /tg/ { print $8 + 0 >> (out "/peer-decode.speeds") }'
  done
  for what in prefill decode; do
    ours=$(median <"$out/ours-$what.speeds") peer=$(median <"$out/peer-$what.speeds")
    row "$type" "$what t/s" "$ours" "$peer" "$ours / $peer"
  done
done
