#!/usr/bin/env bash
# Stops what up.sh started and removes what it made; leaves everything else alone. Can be repeated.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lock
if [[ -d $STATE ]]; then stack_down "${COMPONENTS[@]}"; else note "nothing of ours is up"; fi
