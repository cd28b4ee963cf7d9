# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # used by those that source it, and set by env.sh
# The world of tests/host/run, in network namespaces of its own: three hosts, of which node-a boots in a container,
# a router whose routes follow the provider, and a client. Sourced after env.sh.
#
#     node-a .11   node-b .12   node-c .13        198.51.100.0/24
#        └────────────┼────────────┘
#                  router .1
#              ┌──────┴───────┐
#         client .2        provider .130           192.0.2.0/25, 192.0.2.128/25
#
# Documentation addresses, which exist in these namespaces only.

failover=203.0.113.63
nodes=(node-a node-b node-c)
declare -A address=([node-a]=198.51.100.11 [node-b]=198.51.100.12 [node-c]=198.51.100.13)
declare -A mac=([node-a]=02:00:00:ea:83:0a [node-b]=02:00:00:ea:83:0b [node-c]=02:00:00:ea:83:0c)
declare -A server=([node-a]=v2202600000000003 [node-b]=v2202600000000004 [node-c]=v2202600000000005)
provider_address=192.0.2.130

name=foip$$
router=$name-router client=$name-client provider=$name-provider
work=          # this run's folder
debian=        # the container's root folder
container=     # process id of its systemd, as seen from here
started=()     # processes to end
expected=      # what is being looked at

# world_begin: claims a folder, and cleans up after runs that were killed.
world_begin() {
    local dead
    for dead in "${TMPDIR:-/tmp}"/foip-host.*; do
        [[ -e $dead/lock ]] || continue
        # The kernel lets go of the lock when the run's last process has died.
        if flock --nonblock "$dead/lock" true; then
            say "cleaning up after a run that was killed ($dead)"
            remove "$dead" "$(cat "$dead/name")"
        fi
    done
    work=$(mktemp -d "${TMPDIR:-/tmp}/foip-host.XXXXXX")
    echo "$name" >"$work/name"
    exec {lock}>"$work/lock"
    flock "$lock"
    trap world_end EXIT
    trap 'exit 130' INT TERM HUP
}

# remove FOLDER NAME: a run's container, namespaces and folder.
remove() {
    local pid space
    pid=$(cat "$1/container" 2>/dev/null) || pid=
    # A number may long belong to somebody else: it is the container only if it has its namespace.
    if [[ -n $pid && $(ip netns identify "$pid" 2>/dev/null) == "$2-node-a" ]]; then
        kill -KILL "$pid"
        sleep 0.2
    fi
    for space in $(ip netns list | awk '{print $1}' | grep "^$2-" || true); do
        # shellcheck disable=SC2046 # one argument each
        kill -KILL $(ip netns pids "$space") 2>/dev/null || true
        ip netns del "$space"
    done
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
    # Their end is no news.
    disown -a
    ((${#started[@]} == 0)) || kill "${started[@]}" 2>/dev/null || true
    remove "$work" "$name"
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

in_space() { ip netns exec "$@"; }

# background NAME COMMAND...: its output goes to NAME.log; it dies with this script.
background() {
    setpriv --pdeathsig KILL "${@:2}" >"$work/$1.log" 2>&1 </dev/null {lock}>&- &
    started+=($!)
}

# world_network: the namespaces and their links.
world_network() {
    local node space
    for space in "$router" "$client" "$provider" "${nodes[@]/#/$name-}"; do
        ip netns add "$space"
        ip -n "$space" link set lo up
    done
    ip -n "$router" link add hosts type bridge forward_delay 0
    ip -n "$router" addr add 198.51.100.1/24 dev hosts
    ip -n "$router" link set hosts up
    for node in "${nodes[@]}"; do
        link "$name-$node" "${address[$node]}/24" "$node" 198.51.100.1 "${mac[$node]}"
        ip -n "$router" link set "$node" master hosts
    done
    link "$client" 192.0.2.2/25 client 192.0.2.1 02:00:00:00:00:02
    ip -n "$router" addr add 192.0.2.1/25 dev client
    link "$provider" "$provider_address/25" provider 192.0.2.129 02:00:00:00:00:03
    ip -n "$router" addr add 192.0.2.129/25 dev provider
    in_space "$router" sysctl -qw net.ipv4.ip_forward=1
}

# link SPACE ADDRESS NAME GATEWAY MAC: eth0 there, NAME in the router.
link() {
    ip -n "$router" link add "$3" type veth peer name eth0 address "$5" netns "$1"
    ip -n "$router" link set "$3" up
    ip -n "$1" addr add "$2" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" route add default via "$4"
}

# host_boot: the container, over a tree that stays as it is.
host_boot() {
    local tree nspawn
    tree=$("$root/tests/host/tree")
    debian=$work/debian
    mkdir "$work"/{upper,scratch,debian}
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/scratch" "$debian"
    background console systemd-nspawn --quiet --boot --directory="$debian" --network-namespace-path="/run/netns/$name-node-a" \
        --capability=CAP_NET_ADMIN --register=no --keep-unit --machine=node-a --console=pipe
    nspawn=${started[-1]}
    within 10 "the container's first process" test_child "$nspawn"
    container=$(pgrep --parent "$nspawn")
    echo "$container" >"$work/container"
    within 60 "the host has booted" booted
}

test_child() { pgrep --parent "$1" >/dev/null; }
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

# pings_begin: 100 in a second to the failover IP, from a process of its own.
pings_begin() {
    # Ahead of all else, or the machine's load would be taken for the host's loss.
    background ping nice -n -10 ip netns exec "$client" ping -n -i 0.01 "$failover"
    pinger=${started[-1]}
    within 5 "the client is answered" grep -q 'bytes from' "$work/ping.log"
}

# pings_end MAX: how many between the first answer and the last one were lost; fails above MAX.
pings_end() {
    sleep 0.3
    kill "$pinger"
    wait "$pinger" 2>/dev/null || true
    local counted
    counted=$(sed -n 's/.*bytes from.* icmp_seq=\([0-9]*\) .*/\1/p' "$work/ping.log" |
        awk 'NR == 1 { first = $1 } { seen[$1] = 1; last = $1 }
             END { for (i = first; i <= last; i++) lost += !(i in seen); print lost + 0, last - first + 1 }')
    echo "    ${counted% *} of ${counted#* } packets lost"
    ((${counted% *} <= $1))
}
