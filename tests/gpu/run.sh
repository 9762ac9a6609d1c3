#!/usr/bin/env bash
# Everything that only a GPU can prove, in less than eight minutes on one: its tests, the benchmarks'
# rows at real sizes, and a profile. Without a GPU, or with --tiny, the same at sizes that prove
# nothing but that all of it still runs. One JSON file and one table: build/gpu/.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec python tests/gpu/run.py "$@"
