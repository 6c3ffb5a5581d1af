#!/usr/bin/env bash
# From a fresh machine to a measured quantized model: sets up, builds, quantizes the bundled model to Q4_K_M, measures before
# and after, and writes a paragraph with the result.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/build.sh nibble

nibble=build/release/nibble
model=models/books-7m
out=build/demo
mkdir -p "$out"

echo; echo "== an importance matrix from calibration text"
"$nibble" imatrix "$model" --text text/books-calib.txt --ctx 256 --chunks 100 -o "$out/books-7m.imatrix.gguf"
echo; echo "== 16 bits, and Q4_K_M"
"$nibble" convert "$model" -o "$out/books-7m-f16.gguf" --type f16
"$nibble" quantize "$model" -o "$out/books-7m-q4_k_m.gguf" --type q4_k_m --imatrix "$out/books-7m.imatrix.gguf"

for type in f16 q4_k_m; do
  "$nibble" eval "$out/books-7m-$type.gguf" --text text/books-eval.txt --ctx 256 --chunks 100 --reference "$model" \
    --json "$out/eval-$type.json" >/dev/null
  "$nibble" bench "$out/books-7m-$type.gguf" -p 128 -n 64 --roofline-bytes 0 --json "$out/bench-$type.json" >/dev/null
done

# Value of a top-level key of one of our JSON files.
value() { sed -n "s/^  \"$2\": \([^,]*\),\{0,1\}$/\1/p" "$out/$1.json"; }
echo; echo "== before and after (books never seen; KL divergence against the original in exact f32)"
printf '%-8s %12s %8s %12s %14s %8s %12s %12s\n' type bytes "bits/w" perplexity "KL (nats)" "top-1" "prefill t/s" "decode t/s"
for type in f16 q4_k_m; do
  printf '%-8s %12d %8.2f %12.3f %14.6f %7.2f%% %12.0f %12.0f\n' "$type" "$(stat -c %s "$out/books-7m-$type.gguf")" \
    "$(value "eval-$type" bits_per_weight)" "$(value "eval-$type" perplexity)" "$(value "eval-$type" kld_mean)" \
    "$(awk "BEGIN { print 100 * $(value "eval-$type" top1) }")" \
    "$(value "bench-$type" prefill_tok_s)" "$(value "bench-$type" decode_tok_s)"
done

echo; echo "== a paragraph by the quantized model"
"$nibble" run "$out/books-7m-q4_k_m.gguf" -p "The old house stood at the end of the lane, and" -n 120 --temp 0.8 --seed 7
