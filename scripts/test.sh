#!/usr/bin/env bash
# Sets up the machine, builds, and runs the tests: all of them, or with --short the ones that belong to every commit.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=release
case "${1:-}" in
  "") ;;
  --short) preset=short ;;
  *) echo "usage: scripts/test.sh [--short]" >&2; exit 2 ;;
esac
bash scripts/build.sh
ctest --preset "$preset"
