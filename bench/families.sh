#!/usr/bin/env bash
# Whether llama.cpp computes from our files of every architecture what we compute: a model of random weights for each
# case of src/model/testdata, widened to rows of 256, as GGUF f32 and q8_0; perplexity of both programs, our exact path;
# of f32 the share of predictions whose most likely token is the same, of those that are decided by more than 0.01.
# And whether q4_k_m gives every tensor the type that llama-quantize gives it.
# usage: bench/families.sh LLAMA_BIN TEXT [CASE...]
# environment: OUT (build/families), PYTHON (python3, with numpy and gguf)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
llama=$1 text=$2
shift 2
out=${OUT:-build/families} python=${PYTHON:-python3} nibble=build/release/nibble
cases=("$@")
[ $# -gt 0 ] || cases=($(ls src/model/testdata | grep -v README))
mkdir -p "$out"
head -c 12000 "$text" >"$out/text.txt"
value() { sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | head -n 1; }
# All in f32: a rounding may send a token to other experts. "-": llama.cpp does not load the file.
perplexity() {
  local save=()
  [ "$2" = f32 ] && save=(--save-all-logits "$out/peer.logits")
  "$llama/llama-perplexity" -m "$1" -f "$out/text.txt" -c 64 -t 1 -fa off -ctk f32 -ctv f32 --chunks 8 "${save[@]}" >"$out/peer.log" 2>&1 || true
  grep -q Final "$out/peer.log" && sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$out/peer.log" || echo -
}

printf '%-20s %12s %12s %8s %12s %12s %s\n' case 'f32 ours' 'f32 peer' 'top-1 %' 'q8_0 ours' 'q8_0 peer' 'q4_k_m types'
for case in "${cases[@]}"; do
  "$python" dev/widen.py "src/model/testdata/$case/config.json" "$out/shape.json"
  if ! "$nibble" synth "$out/shape.json" -o "$out/$case.f32.gguf" --dtype f32 -q >/dev/null 2>"$out/synth.log"; then
    printf '%-20s %s\n' "$case" "$(tail -n 1 "$out/synth.log")"  # an option that GGUF has no key for
    continue
  fi
  "$nibble" quantize "$out/$case.f32.gguf" -o "$out/$case.q8_0.gguf" --type q8_0 -q >/dev/null
  "$nibble" quantize "$out/$case.f32.gguf" -o "$out/$case.q4_k_m.gguf" --type q4_k_m --method rtn -q >/dev/null
  row=$case
  for type in f32 q8_0; do
    save=()
    [ $type = f32 ] && save=(--save-logits "$out/ours.logits")
    "$nibble" eval "$out/$case.$type.gguf" --text "$out/text.txt" --ctx 64 --chunks 8 --exact "${save[@]}" --json "$out/eval.json" -q >/dev/null
    peer=$(perplexity "$out/$case.$type.gguf" $type)
    row+=" $(value "$out/eval.json" perplexity_exact) $peer"
    [ $type = f32 ] || continue
    top1=$("$python" dev/compare_logits.py "$out/ours.logits" "$out/peer.logits" 2>/dev/null || true)
    [ "$peer" = - ] && row+=" -" || row+=" $(sed -n 's/.*of them \([0-9.]*\) %.*/\1/p' <<<"$top1")"
    rm -f "$out"/*.logits
  done
  types=unknown
  if "$llama/llama-quantize" "$out/$case.f32.gguf" "$out/$case.peer.gguf" q4_k_m 1 >"$out/quantize.log" 2>&1; then
    types=$("$python" dev/compare_types.py "$out/$case.q4_k_m.gguf" "$out/$case.peer.gguf" || true)
  fi
  printf '%-20s %12.4f %12s %8s %12.4f %12s %s\n' $row "$types"
  rm -f "$out/$case".*.gguf
done
