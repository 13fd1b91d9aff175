#!/usr/bin/env bash
# Installs what is missing, then runs a benchmark: bench.sh cni [--count N] [--endpoints N] [--json]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bench=${1:-}
known=$(find "$REPO/tests/bench" -name '[a-z]*.py' -printf '%f\n' | sed 's/\.py$//' | sort | paste -sd ' ')
[[ -n $bench && " $known " == *" $bench "* ]] || die "which benchmark? One of: $known"
shift
lock
setup
unlock
cd "$REPO"
exec .venv/bin/python -m "tests.bench.$bench" "$@"
