#!/usr/bin/env bash
# Makes the pictures of README.md anew, of what there really is: a private stack with containers of Docker and CNI, its page in
# a browser, and the answers of the `ovsnet` command:
#   pictures.sh [DIRECTORY]        by default docs/pictures
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

become tests.pictures "$@"
