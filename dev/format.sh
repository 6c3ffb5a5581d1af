#!/usr/bin/env bash
# Formats the C++ sources in place; with --check only says which files differ.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=-i
[ "${1:-}" = --check ] && mode="--dry-run --Werror"
git ls-files 'src/*.h' 'src/*.cpp' 'fuzz/*.cpp' 'include/*.h' | xargs clang-format $mode
