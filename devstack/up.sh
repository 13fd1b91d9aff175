#!/usr/bin/env bash
# Installs what is missing, then starts what is not running: Open vSwitch, ovsnetd, dockerd. Can be repeated.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lock
setup
stack_up
if ((${#STARTED[@]})); then
    note "started: ${STARTED[*]}; devstack/down.sh stops it"
else
    note "everything was up: nothing changed"
fi
note "docker --host $(docker_host) network create -d ovsnet --ipam-driver ovsnet --subnet 10.42.0.0/24 blue"
note "$REPO/.venv/bin/ovsnet endpoint ls"
