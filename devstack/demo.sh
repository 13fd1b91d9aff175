#!/usr/bin/env bash
# The main job, shown step by step: Docker and CNI containers on one network, isolation between two VLANs, nothing left
# behind. Installs and starts what is missing, and stops at the end what it started. Exit status 0: all of it held.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lock
echo "Setting up"
setup
down_at_exit
stack_up
"$REPO/.venv/bin/python" "$REPO/devstack/demo.py" --docker-host "$(docker_host)" --image "$IMAGE" \
    --socket "$OVSNET_SOCKET_PATH" --cni-bin "$CNI_BIN" 9>&-
