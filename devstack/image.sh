#!/usr/bin/env bash
# Makes the image ovsnet/busybox:local in the docker daemon at the address given: the distribution's static busybox and
# links to its applets. Nothing is pulled. Usage: image.sh unix:///var/run/docker.sock
set -euo pipefail

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc,tmp}
cp /bin/busybox "$root/bin/busybox"
for applet in $(/bin/busybox --list); do
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
done
chmod -R u=rwX,go=rX "$root"
# The shell heeds SIGTERM, which a bare `sleep` as process 1 would not: every `docker stop` would take ten seconds.
tar --create --directory "$root" --owner=0 --group=0 --numeric-owner . |
    timeout 60 /usr/bin/docker --host "$1" import \
        --change 'CMD ["sh", "-c", "trap exit TERM; sleep 1000000 & wait"]' - ovsnet/busybox:local
