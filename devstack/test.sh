#!/usr/bin/env bash
# Installs what is missing, then runs the tests: all of them, or what the arguments (pytest's own) choose.
# The system tests bring their own Open vSwitch, ovsnetd and dockerd, in a network namespace of their own.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lock
setup
unlock
cd "$REPO"
(($#)) || set -- -n 2 --dist worksteal # each process has a host of its own; more only wait for each other
exec .venv/bin/python -m pytest "$@"
