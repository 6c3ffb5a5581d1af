#!/usr/bin/env bash
# Runs clang-tidy over the sources (or the files given) with the settings of .clang-tidy; needs a configured release build.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh clang-tidy
if [ $# -gt 0 ]; then files=("$@"); else mapfile -t files < <(git ls-files 'src/*.cpp' | grep -v -e _test.cpp -e avx); fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -p build/release --quiet
