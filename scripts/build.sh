#!/usr/bin/env bash
# Sets up the machine and builds the release preset into build/release. Arguments: targets (default: everything).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
cmake --preset release >/dev/null
cmake --build --preset release ${1:+--target "$@"}
