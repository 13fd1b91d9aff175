#!/usr/bin/env bash
# The main job, shown step by step: Docker and CNI containers on one network, isolation between two VLANs, nothing left
# behind. Installs and starts what is missing, and stops at the end what it started. Exit status 0: all of it held.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Whatever happened, what this run started is stopped again; that failing fails the demo as well.
finish() {
    local status=$?
    if ((${#STARTED[@]})); then
        echo "Taking down what was started"
        CLOCK=$EPOCHREALTIME
        stack_down "${STARTED[@]}"
    fi
    exit "$status"
}

lock
echo "Setting up"
setup
trap finish EXIT
trap 'exit 130' INT TERM
stack_up
"$REPO/.venv/bin/python" "$REPO/devstack/demo.py" --docker-host "$(docker_host)" --image "$IMAGE" \
    --socket "$OVSNET_SOCKET_PATH" --cni-bin "$CNI_BIN" 9>&-
