# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # used by those that source it, and set by env.sh
# The world of tests/host/run: the lab's, of whose three hosts the first boots in a container. Sourced after env.sh.

work=          # this run's folder
debian=        # the container's root folder
container=     # process id of its systemd, as seen from here
started=()     # processes to end
expected=      # what is being looked at
declare -A lab # what the lab says of its world: namespace, home, ca_file, url, auth_url, failover

# world_begin: claims a folder, and cleans up after runs that were killed.
world_begin() {
    local dead
    for dead in "${TMPDIR:-/tmp}"/foip-host.*; do
        [[ -e $dead/lock ]] || continue
        # The kernel lets go of the lock when the run's last process has died.
        if flock --nonblock "$dead/lock" true; then
            say "cleaning up after a run that was killed ($dead)"
            remove "$dead"
        fi
    done
    work=$(mktemp -d "${TMPDIR:-/tmp}/foip-host.XXXXXX")
    exec {lock}>"$work/lock"
    flock "$lock"
    trap world_end EXIT
    trap 'exit 130' INT TERM HUP
}

# remove FOLDER: a run's container and folder. The lab cleans up after itself when its input ends.
remove() {
    local pid
    pid=$(cat "$1/container" 2>/dev/null) || pid=
    # A number may long belong to somebody else: it is the container only if it has its namespace.
    if [[ -n $pid && $(ip netns identify "$pid" 2>/dev/null) == "$(cat "$1/namespace")" ]]; then
        kill -KILL "$pid"
        sleep 0.2
    fi
    ! mountpoint --quiet "$1/debian" || umount --lazy "$1/debian"
    rm -rf "$1"
}

world_end() {
    local status=$?
    trap - EXIT INT TERM HUP
    if ((status != 0)); then
        [[ -z $expected ]] || say "not so: $expected"
        tell_more
    fi
    # The lab ends with its input, and the container with its namespace.
    if [[ -n ${LAB_PID:-} ]]; then
        local input=${LAB[1]}
        exec {input}>&-
        wait "$LAB_PID" 2>/dev/null || true
    fi
    # Their end is no news.
    disown -a
    ((${#started[@]} == 0)) || kill "${started[@]}" 2>/dev/null || true
    remove "$work"
    exit "$status"
}

# What one wants to see of a run that failed.
tell_more() {
    local log
    [[ -z $container ]] || inside journalctl --no-pager --lines 60 --unit 'foip*' || true
    for log in "$work"/*.log; do
        [[ ! -s $log ]] || { echo "== ${log##*/}"; tail -n 20 "$log"; }
    done
}

# background NAME COMMAND...: its output goes to NAME.log; it dies with this script.
background() {
    setpriv --pdeathsig KILL "${@:2}" >"$work/$1.log" 2>&1 </dev/null {lock}>&- &
    started+=($!)
}

# world_build: the lab's namespaces, provider, Kubernetes API and client; foip runs on none of the hosts yet.
world_build() {
    local line
    coproc LAB { exec "$target/debug/examples/lab" hold --foip "$release/foip" 2>"$work/lab.log" {lock}>&-; }
    while read -r -t 60 -u "${LAB[0]}" line && [[ $line != ready ]]; do
        lab[${line%%=*}]=${line#*=}
    done
    [[ $line == ready ]] || die "the lab has not come up"
    echo "${lab[namespace]}" >"$work/namespace"
}

# ask QUESTION...: the lab's answer.
ask() {
    local answer
    echo "$*" >&"${LAB[1]}"
    read -r -t 60 -u "${LAB[0]}" answer || die "the lab does not answer to '$*'"
    echo "$answer"
}

# asked ANSWER QUESTION...: is that the lab's answer?
asked() { [[ $(ask "${@:2}") == "$1" ]]; }

# host_boot: the container, over a tree that stays as it is.
host_boot() {
    local tree nspawn
    tree=$("$root/tests/host/tree")
    debian=$work/debian
    mkdir "$work"/{upper,scratch,debian}
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/scratch" "$debian"
    # A container's programs get no Landlock by default; a host's do.
    background console systemd-nspawn --quiet --boot --directory="$debian" --network-namespace-path="/run/netns/${lab[namespace]}" \
        --bind="${lab[home]}/trace:/srv/trace" --capability=CAP_NET_ADMIN --register=no --keep-unit --machine=node-a --console=pipe \
        --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    nspawn=${started[-1]}
    within 60 "the container's first process" first_process "$nspawn" >/dev/null
    container=$(first_process "$nspawn")
    echo "$container" >"$work/container"
    within 60 "the host has booted" booted
}

# first_process NSPAWN: its child that is number 1 in the container. Before that it has one that only prepares things.
first_process() {
    local pid
    for pid in $(pgrep --parent "$1"); do
        if grep -qP '^NSpid:.*\t1$' "/proc/$pid/status" 2>/dev/null; then
            echo "$pid"
            return
        fi
    done
    return 1
}

booted() { inside systemctl is-system-running 2>/dev/null | grep -qE '^(running|degraded)$'; }

# inside COMMAND...: on the host.
inside() {
    nsenter --target "$container" --all env -i LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null
}

# not COMMAND...: a function, since the shell does not stop at a `!` that is not so.
not() { if "$@"; then return 1; fi; }

# within SECONDS WHAT COMMAND...: until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    until "${@:3}"; do
        ((SECONDS < deadline)) || die "not within $1 s: $2"
        sleep 0.05
    done
}

# expect WHAT COMMAND...: not in a condition, so that the command's own `set -e` holds.
expect() {
    expected=$1
    "${@:2}"
    expected=
    echo "ok: $1"
}

# lost_since MOMENT: tells how many of the client's pings, one each 10 ms, were lost since; fails if any was.
lost_since() {
    local lost sent
    read -r lost sent < <(ask lost "$1")
    echo "    $lost of $sent packets lost"
    ((lost == 0 && sent > 100))
}
