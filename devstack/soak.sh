#!/usr/bin/env bash
# Installs what is missing, then lets containers come and go while parts of the host fail:
#   soak.sh --minutes 10 [--seed N] [--every SECONDS] [--logs DIRECTORY]
# Exit status 0 if all that has to hold has held. The host is a network namespace of its own.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

become tests.soak "$@"
