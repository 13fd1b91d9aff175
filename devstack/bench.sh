#!/usr/bin/env bash
# Installs what is missing, then runs a benchmark: bench.sh cni [--count N] [--endpoints N] [--json]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bench=${1:-}
[[ $bench =~ ^[a-z_]+$ && -f $REPO/tests/bench/$bench.py ]] ||
    die "which benchmark? One of: $(cd "$REPO/tests/bench" && printf '%s\n' [a-z]*.py | sed 's/\.py$//' | paste -sd ' ')"
shift
lock
setup
unlock
cd "$REPO"
exec .venv/bin/python -m "tests.bench.$bench" "$@"
