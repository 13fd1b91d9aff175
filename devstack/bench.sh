#!/usr/bin/env bash
# Installs and starts what is missing, runs a benchmark, stops what it started:
#   bench.sh cni [--count N] [--endpoints N] [--json]
#   bench.sh ipam [--count N] [--json]
#   bench.sh docker [--count N] [--containers N] [--json]
#   bench.sh spoofing [--endpoints N] [--json]
#   bench.sh api [--count N] [--endpoints N] [--clients N] [--json]
# Standard output is the benchmark's alone; everything else goes to standard error.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bench=${1:-}
known=$(find "$REPO/tests/bench" -name '[a-z]*.py' -printf '%f\n' | sed 's/\.py$//' | sort | paste -sd ' ')
[[ -n $bench && " $known " == *" $bench "* ]] || die "which benchmark? One of: $known"
shift
MESSAGES=2
lock
setup >&2
down_at_exit
case $bench in
cni)
    mkdir -p "$STATE"
    { ovs_up && ovsnetd_up && cni_up; } >&2
    ;;
esac
cd "$REPO"
.venv/bin/python -m "tests.bench.$bench" "$@" 9>&-
