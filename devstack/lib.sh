# shellcheck shell=bash
# Shared by the devstack scripts: installs what is missing, starts what is not running, and stops only what it started.
#
# What we start is recorded in $STATE/NAME.up, processes as "pid start-time", so that nothing is ever found by its name.
# A process also carries DEVSTACK_STATE in its environment, so that the children of one that was killed are found too.
# Callers: up.sh, down.sh, demo.sh, test.sh, bench.sh, soak.sh, pictures.sh and .ci/run. Sourced, never executed.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE=/run/ovsnet-devstack            # records, sockets, logs
DATA=/var/lib/ovsnet-devstack         # dockerd's images and ovsnetd's state: throw-away
LOCK=/run/ovsnet-devstack.lock
OVS_RUN=/var/run/openvswitch
OVSNET_SOCKET_PATH=/run/ovsnet/ovsnet.sock
NODE=devstack                         # ovsnetd's name for this host: marks what it owns in the switch
CNI_BIN=/opt/cni/bin
IMAGE=ovsnet/busybox:local
COMPONENTS=(image dockerd cni ovsnetd ovs-vswitchd ovsdb-server) # users before what they use
STARTED=()                            # components started by this very run

# The system's own tools first: another docker or python3 may come earlier in the caller's PATH.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
export DEBIAN_FRONTEND=noninteractive
# Our settings are the file's alone, and docker talks to nobody but the daemon that we name. The tests' numbers of cases stay.
while read -r name; do unset "$name"; done < <(compgen -e | grep -E '^(OVSNET|OVS|DOCKER)_' | grep -v '_EXAMPLES$' || true)

# ---------------------------------------------------------------------------------------------------------- messages

CLOCK=$EPOCHREALTIME
if [[ -t 1 ]]; then GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'; else GREEN='' RED='' DIM='' PLAIN=''; fi

# tick TEXT: one finished step, with the time since the last one.
tick() {
    local now=$EPOCHREALTIME ms
    ms=$(((${now/[.,]/} - ${CLOCK/[.,]/}) / 1000))
    CLOCK=$now
    printf '  %s✓%s %-62s %s%3d.%02d s%s\n' "$GREEN" "$PLAIN" "$1" "$DIM" $((ms / 1000)) $((ms % 1000 / 10)) "$PLAIN"
}

note() { printf '    %s%s%s\n' "$DIM" "$1" "$PLAIN"; }

die() {
    printf '  %s✗%s %s\n' "$RED" "$PLAIN" "$1" >&2
    exit 1
}

need_root() {
    ((EUID == 0)) || die "this needs root: sudo $0"
}

# lock: one devstack script at a time on this host, until it ends. The descriptor is closed for whatever may stay:
# daemons that we start, and services that a package starts.
lock() {
    need_root
    exec 9>"$LOCK"
    flock --timeout 900 9 || die "another devstack script has held $LOCK for 15 minutes"
}

unlock() { exec 9>&-; }

# become MODULE [ARGUMENT...]: installs what is missing, said on standard error, and goes on as that Python module.
become() {
    MESSAGES=2
    lock
    setup >&2
    unlock
    cd "$REPO"
    exec .venv/bin/python -m "$@"
}

# until_true SECONDS COMMAND...: polls until COMMAND succeeds; fails after SECONDS.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# ---------------------------------------------------------------------------------------------------------- install

PACKAGES=(
    openvswitch-switch docker.io containerd runc podman containernetworking-plugins nftables iproute2 iputils-ping
    iperf3 tcpdump busybox-static python3-venv python3-pip ca-certificates procps util-linux gcc libc6-dev
    docker-compose iptables dbus-daemon python3-dbus python3-gi chromium fonts-dejavu-core
)

# apt_install PACKAGE...: what is not installed yet, without recommended extras.
apt_install() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    note "installing: ${missing[*]}"
    local log=/var/log/ovsnet-devstack-apt.log
    local options=(-o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    if ! {
        timeout 600 apt-get "${options[@]}" update &&
            timeout 1800 apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}"
    } >"$log" 2>&1 </dev/null 9>&-; then
        tail -n 20 "$log" >&2
        die "apt-get could not install ${missing[*]}; its whole output is in $log"
    fi
}

install_packages() {
    local package wanted=()
    for package in "${PACKAGES[@]}"; do
        # Docker's own packages bring the same programs and conflict with the distribution's.
        case $package in docker.io | containerd | runc) [[ -x /usr/bin/dockerd ]] && continue ;; esac
        wanted+=("$package")
    done
    apt_install "${wanted[@]}"
    # Newer releases keep Docker's client in a package of its own.
    [[ -x /usr/bin/docker ]] || apt_install docker-cli
}

# find_python: prints the first system interpreter that is new enough.
find_python() {
    local python
    for python in /usr/bin/python3 /usr/bin/python3.{11..19}; do
        if [[ -x $python ]] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$python"
            return
        fi
    done
    return 1
}

# install_venv: .venv with ovsnet (editable) and the test tools; redone when the package's metadata changed.
install_venv() {
    local python version stamp log=$REPO/.venv/pip.log
    python=$(find_python) || die "no Python 3.11 or newer in /usr/bin: install one, such as python3.12"
    version=$("$python" -c 'import sys; print("python{}.{}".format(*sys.version_info))')
    stamp=$(cd "$REPO" && { echo "$REPO $version"; cat setup.cfg pyproject.toml; } | sha256sum)
    [[ -f $REPO/.venv/stamp && $(<"$REPO/.venv/stamp") == "$stamp" ]] && return
    note "making .venv with $version"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install "$version-venv"
    if [[ ! -x $REPO/.venv/bin/$version ]] || ! "$REPO/.venv/bin/$version" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear "$REPO/.venv"
    fi
    (cd "$REPO" && timeout 1800 .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input \
        --retries 5 --timeout 60 install --editable '.[test]') >"$log" 2>&1 </dev/null ||
        { tail -n 20 "$log" >&2 && die "pip could not fill $REPO/.venv; its whole output is in $log"; }
    echo "$stamp" >"$REPO/.venv/stamp"
}

# install_promtool: Prometheus' checker of rules and metrics into .venv; its package would start a server.
install_promtool() {
    local directory
    [[ -x $REPO/.venv/bin/promtool ]] || command -v promtool >/dev/null && return
    note "fetching promtool"
    directory=$(mktemp -d)
    if (cd "$directory" && { timeout 600 apt-get update || true; } &&
        timeout 300 apt-get -o Acquire::Retries=3 -o APT::Sandbox::User=root download prometheus) \
        >"$directory/log" 2>&1 </dev/null 9>&- &&
        dpkg-deb --fsys-tarfile "$directory"/prometheus_*.deb | tar -x -C "$directory" ./usr/bin/promtool; then
        install -m 0755 "$directory/usr/bin/promtool" "$REPO/.venv/bin/promtool"
        rm -rf "$directory"
    else
        cat "$directory/log" >&2
        rm -rf "$directory"
        die "promtool could not be fetched from the package prometheus"
    fi
}

# unpack_firewalld: for the test beside it, which is skipped where it cannot be had.
unpack_firewalld() {
    local where=$REPO/.venv/firewalld log=/var/log/ovsnet-devstack-apt.log
    [[ -x $where/usr/sbin/firewalld ]] && return
    "$REPO/devstack/firewalld.sh" "$where" >"$log" 2>&1 </dev/null 9>&- ||
        note "no firewalld for the test beside it; see $log"
}

# setup: everything that the other scripts need on this host; quick when nothing is missing.
setup() {
    install_packages
    install_venv
    install_promtool
    unpack_firewalld
    tick "packages and .venv"
}

# ---------------------------------------------------------------------------------------------------------- processes

# start_time PID: in clock ticks since boot (proc_pid_stat(5), field 22); nothing for one that only waits to be reaped.
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# record NAME PID: NAME was started by us.
record() { echo "$2 $(start_time "$2")" >"$STATE/$1.up"; }

# ours NAME: whether the recorded process lives; prints its pid.
ours() {
    local pid since
    read -r pid since 2>/dev/null <"$STATE/$1.up" || return 1
    [[ -n $since && $(start_time "$pid") == "$since" ]] && echo "$pid"
}

# spawn NAME COMMAND...: a daemon that outlives this script, with its output in $STATE/NAME.log.
spawn() {
    local name=$1
    shift
    DEVSTACK_STATE=$STATE/$name setsid "$@" >>"$STATE/$name.log" 2>&1 </dev/null 9>&- &
    record "$name" $!
    STARTED+=("$name")
}

# halt NAME SECONDS: asks the recorded process to stop, and ends it when it has not done so in time.
halt() {
    local pid
    if pid=$(ours "$1"); then
        kill -TERM "$pid"
        if ! until_true "$2" gone "$1"; then
            note "$1 did not stop within $2 s and was killed"
            kill -KILL "$pid"
            until_true 10 gone "$1" || die "process $pid ($1) cannot be killed"
        fi
    fi
}

gone() { ! ours "$1" >/dev/null; }

# kill_marked NAME: what a daemon of ours left behind when it was killed; children carry its mark in the environment.
kill_marked() {
    local proc
    for proc in $(grep -lszx "DEVSTACK_STATE=$STATE/$1" /proc/[0-9]*/environ || true); do
        kill -KILL "${proc//[!0-9]/}" 2>/dev/null || true
    done
}

# failed NAME TEXT: ends the script with the last words of NAME.
failed() {
    tail -n 30 "$STATE/$1.log" >&2 || true
    die "$2; above is the end of its log"
}

# ---------------------------------------------------------------------------------------------------------- Open vSwitch

ovsdb_answers() { ovs-vsctl --timeout=3 --no-wait get Open_vSwitch . _uuid; }
vswitchd_answers() { ovs-appctl --timeout=3 --target=ovs-vswitchd version; }

ovs_up() {
    local before=${#STARTED[@]}
    if ! ovsdb_answers >/dev/null 2>&1; then
        mkdir -p "$OVS_RUN"
        # A database of our own: the host's, if there is one, may describe bridges that are not ours to make.
        rm -f "$STATE/conf.db"
        ovsdb-tool create "$STATE/conf.db" /usr/share/openvswitch/vswitch.ovsschema
        spawn ovsdb-server ovsdb-server "$STATE/conf.db" --remote=punix:$OVS_RUN/db.sock \
            --unixctl="$STATE/ovsdb-server.ctl" --no-chdir -vconsole:info -vsyslog:off
        until_true 10 ovs-vsctl --timeout=3 --no-wait init || failed ovsdb-server "ovsdb-server does not answer"
    fi
    if ! vswitchd_answers >/dev/null 2>&1; then
        # The kernel datapath where there is one; the module stays loaded, as after the distribution's own start.
        modprobe --quiet openvswitch 2>/dev/null || true
        mkdir -p "$OVS_RUN"
        spawn ovs-vswitchd ovs-vswitchd "unix:$OVS_RUN/db.sock" --pidfile="$OVS_RUN/ovs-vswitchd.pid" \
            --no-chdir -vconsole:info -vsyslog:off
        until_true 15 vswitchd_answers || failed ovs-vswitchd "ovs-vswitchd does not answer"
    fi
    if ((${#STARTED[@]} > before)); then tick "Open vSwitch started"; else already ovs-vswitchd "Open vSwitch"; fi
}

# already NAME TEXT: says that something runs, and whose it is.
already() {
    if ours "$1" >/dev/null; then tick "$2 runs already"; else tick "$2 runs already: used as it is, left running"; fi
}

ovs_vswitchd_down() {
    # --cleanup: takes the datapath and its devices along.
    if ours ovs-vswitchd >/dev/null; then
        ovs-appctl --timeout=10 --target=ovs-vswitchd exit --cleanup >/dev/null 2>&1 || true
        until_true 10 gone ovs-vswitchd || true
    fi
    halt ovs-vswitchd 5
    vswitchd_answers >/dev/null 2>&1 || rm -f "$OVS_RUN"/ovs-vswitchd.{pid,*.ctl}
    tick "ovs-vswitchd stopped"
}

ovsdb_server_down() {
    halt ovsdb-server 10
    ovsdb_answers >/dev/null 2>&1 || rm -f "$OVS_RUN/db.sock"
    rmdir --ignore-fail-on-non-empty "$OVS_RUN" 2>/dev/null || true
    tick "ovsdb-server stopped"
}

# ---------------------------------------------------------------------------------------------------------- ovsnetd

ovsnet() { timeout 60 "$REPO/.venv/bin/ovsnet" --socket "$OVSNET_SOCKET_PATH" "$@"; }

ovsnetd_answers() { ovsnet status; }

ovsnetd_up() {
    if ovsnetd_answers >/dev/null 2>&1; then
        already ovsnetd ovsnetd
        return
    fi
    mkdir -p "$DATA/state"
    printf '# Written by devstack/up.sh.\nnode = "%s"\nstate_dir = "%s"\n' "$NODE" "$DATA/state" >"$STATE/ovsnet.toml"
    spawn ovsnetd "$REPO/.venv/bin/ovsnetd" --config "$STATE/ovsnet.toml"
    until_true 30 ready_or_dead ovsnetd ovsnetd_answers || true
    if gone ovsnetd || ! ovsnetd_answers >/dev/null 2>&1; then failed ovsnetd "ovsnetd is not ready"; fi
    tick "ovsnetd started"
}

# switch_rows TABLE: names of the rows that our ovsnetd owns.
switch_rows() {
    ovs-vsctl --timeout=10 --bare --columns=name find "$1" external_ids:ovsnet-owner="$NODE" 2>/dev/null || true
}

# ready_or_dead NAME COMMAND...: for until_true: there is nothing to wait for once the process has ended.
ready_or_dead() {
    local name=$1
    shift
    gone "$name" || "$@"
}

ovsnetd_down() {
    halt ovsnetd 20
    kill_marked ovsnetd
    rm -rf "$DATA/state"
    # A switch that was not ours to start is left without what ovsnetd made in it.
    local name
    for name in $(switch_rows Port); do ovs-vsctl --timeout=10 --if-exists del-port "$name"; done
    for name in $(switch_rows Bridge); do
        if [[ -z $(ovs-vsctl --timeout=10 list-ports "$name") ]]; then ovs-vsctl --timeout=10 del-br "$name"; fi
    done
    tick "ovsnetd stopped"
}

# ---------------------------------------------------------------------------------------------------------- CNI plugins

cni_up() {
    if [[ -x $CNI_BIN/ovsnet ]]; then
        tick "CNI plugins are in $CNI_BIN already"
        return
    fi
    mkdir -p "$CNI_BIN"
    ovsnet cni install --bin-dir "$CNI_BIN" >"$STATE/cni.log" 2>&1 || failed cni "the CNI plugins were not installed"
    touch "$STATE/cni.up"
    STARTED+=(cni)
    tick "CNI plugins installed in $CNI_BIN"
}

cni_down() {
    ovsnet cni uninstall --bin-dir "$CNI_BIN" >/dev/null
    rmdir --ignore-fail-on-non-empty --parents "$CNI_BIN" 2>/dev/null || true
    tick "CNI plugins removed"
}

# ---------------------------------------------------------------------------------------------------------- Docker

# docker_host: the address of the daemon that is used: the host's own, if one answers, else ours.
docker_host() {
    if ours dockerd >/dev/null; then echo "unix://$STATE/docker.sock"; else echo unix:///var/run/docker.sock; fi
}

docker() { timeout 60 /usr/bin/docker --host "$(docker_host)" "$@"; }

dockerd_up() {
    if docker version >/dev/null 2>&1; then
        already dockerd dockerd
        return
    fi
    mkdir -p "$DATA/docker"
    echo '{}' >"$STATE/daemon.json" # or dockerd reads the host's
    # No bridge, no rules, no forwarding switched on: the host's own network stays as it is. A cgroup of its own tells
    # its containers from everybody else's.
    spawn dockerd dockerd --config-file "$STATE/daemon.json" --host "unix://$STATE/docker.sock" \
        --pidfile "$STATE/dockerd.pid" --data-root "$DATA/docker" --exec-root "$STATE/docker" \
        --bridge none --iptables=false --ip6tables=false --ip-forward=false \
        --default-ulimit nofile=1024:1024 --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /ovsnet-devstack
    until_true 60 ready_or_dead dockerd docker version || true
    if gone dockerd || ! docker version >/dev/null 2>&1; then failed dockerd "dockerd is not ready"; fi
    tick "dockerd started (data in $DATA/docker)"
}

dockerd_down() {
    halt dockerd 30
    # Only a dockerd that was killed leaves these.
    kill_marked dockerd
    find /sys/fs/cgroup -path '*/ovsnet-devstack/*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u |
        xargs --no-run-if-empty kill -KILL 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d \( -path '*/ovsnet-devstack/*' -o -name ovsnet-devstack \) \
        -exec rmdir {} + 2>/dev/null || true
    unmount_below "$STATE/docker"
    unmount_below "$DATA/docker"
    rm -rf "$DATA/docker" "$STATE/docker"
    tick "dockerd stopped"
}

# unmount_below DIR: what is still mounted at or under DIR, the deepest first.
unmount_below() {
    awk -v dir="$1/" 'index($2 "/", dir) == 1 { print $2 }' /proc/self/mounts | sort -r |
        xargs --no-run-if-empty --max-args=1 umount --lazy
}

# image_up: an image made on the spot from the distribution's static busybox: nothing is pulled.
image_up() {
    if docker image inspect "$IMAGE" >/dev/null 2>&1; then
        tick "image $IMAGE is there already"
        return
    fi
    "$REPO/devstack/image.sh" "$(docker_host)" >/dev/null || die "docker could not import $IMAGE"
    STARTED+=(image)
    docker_host >"$STATE/image.up"
    tick "image $IMAGE made from busybox"
}

image_down() {
    local host
    read -r host <"$STATE/image.up"
    # With a daemon of ours it goes anyway.
    if [[ $host != "unix://$STATE/"* ]]; then
        timeout 60 /usr/bin/docker --host "$host" image rm --force "$IMAGE" >/dev/null ||
            note "image $IMAGE was not removed"
    fi
}

# ---------------------------------------------------------------------------------------------------------- the stack

stack_up() {
    mkdir -p "$STATE"
    ovs_up
    ovsnetd_up
    cni_up
    dockerd_up
    image_up
}

# stack_down NAME...: stops those of the components named that are ours.
stack_down() {
    local name
    for name in "${COMPONENTS[@]}"; do
        if [[ " $* " == *" $name "* && -e $STATE/$name.up ]]; then
            "${name//-/_}_down"
            rm -f "$STATE/$name.up"
        fi
    done
    if ! compgen -G "$STATE/*.up" >/dev/null; then
        rm -rf "$STATE"
        rmdir --ignore-fail-on-non-empty "$DATA" 2>/dev/null || true
    fi
}

# down_at_exit: whatever happens, what this run starts is stopped again; that failing fails the script as well.
down_at_exit() {
    trap finish EXIT
    trap 'exit 130' INT TERM
}

finish() {
    local status=$?
    if ((${#STARTED[@]})); then
        echo "Taking down what was started"
        CLOCK=$EPOCHREALTIME
        stack_down "${STARTED[@]}"
    fi >&"${MESSAGES:-1}"
    exit "$status"
}
