# shellcheck shell=bash
# shellcheck disable=SC2154 # set by env.sh and world.sh
# What tests/host/run has around the host: the stand-ins for netcup and for the Kubernetes API, and foip on the other two hosts.
# Sourced after world.sh.

# services_start: both stand-ins, with three servers and Nodes; the failover IP is routed nowhere.
services_start() {
    local node servers=() listen=()
    for node in "${nodes[@]}"; do
        servers+=("{\"id\": 1110${server[$node]: -2}, \"name\": \"${server[$node]}\", \"nickname\": \"$node\",
            \"mac\": \"${mac[$node]}\", \"ipv4\": [\"${address[$node]}/24\"]}")
        listen+=("$node=$name-$node@0.0.0.0:6443")
    done
    mkdir "$work"/{scp,kube}
    cat >"$work/scp/setup.json" <<EOF
{"servers": [$(IFS=,; echo "${servers[*]}")],
 "failover_ips": [{"id": 333001, "ip": "$failover", "server": null}],
 "refresh_tokens": [], "knobs": {"person": "approve", "device_interval_s": 1}}
EOF
    # What the provider calls at each switch: FAILOVER-IP SERVER-or-dash.
    {
        echo "#!/bin/sh"
        echo "case \$2 in"
        for node in "${nodes[@]}"; do echo "${server[$node]}) via=${address[$node]} ;;"; done
        echo "*) exec ip -n $router route flush exact \$1/32 ;;"
        echo "esac"
        echo "exec ip -n $router route replace \$1/32 via \$via"
    } >"$work/switch"
    chmod 755 "$work/switch"

    background scp ip netns exec "$provider" "$standins/scp-standin" --setup "$work/scp/setup.json" \
        --listen "$provider_address:443" --dir "$work/scp" --log "$work/scp/calls" --on-route "$work/switch"
    background kube ip netns exec "$provider" "$standins/kube-standin" --listen "$(IFS=,; echo "${listen[*]}")" \
        --nodes "$(for node in "${nodes[@]}"; do echo "$node=${address[$node]}"; done | paste -sd,)" \
        --dir "$work/kube" --log "$work/kube/requests"
    within 10 "the provider's stand-in is up" test -S "$work/scp/scp.sock" -a -s "$work/scp/url"
    within 10 "the API's stand-in is up" test -s "$work/kube/node-c.kubeconfig"
    # k3s' kubeconfig names the local API server.
    sed -i 's#server: .*#server: https://127.0.0.1:6443#' "$work"/kube/*.kubeconfig
    local part
    for part in certificate key; do
        sed -n "s/ *client-$part-data: //p" "$work/kube/node-c.kubeconfig" | base64 -d >"$work/kube/$part.pem"
    done
}

# holder: the name in the Lease.
holder() {
    local api=https://127.0.0.1:6443/apis/coordination.k8s.io/v1
    in_space "$name-node-c" curl --silent --show-error --fail --max-time 5 --cacert "$work/kube/ca.pem" \
        --cert "$work/kube/certificate.pem" --key "$work/kube/key.pem" "$api/namespaces/kube-system/leases/foip-default" |
        sed -n 's/.*"holderIdentity": *"\([^"]*\)".*/\1/p'
}

# route_calls: how many reached the provider.
route_calls() { grep -c '"kind":"route"' "$work/scp/calls" || true; }

# routed_to NODE: by what the router does.
routed_to() { ip -n "$router" route show "$failover" | grep -q "via ${address[$1]} "; }

# configuration: what is written into the packaged file, for all hosts alike.
provider_settings() {
    echo "url = \"https://$provider_address/scp-core\""
    echo "auth_url = \"https://$provider_address/realms/scp\""
    echo "ca_file = \"$1\""
}

# neighbour NODE: foip as a plain process on one of the other hosts.
neighbour() {
    local home=$work/$1
    mkdir -p "$home"/{state,run}
    cat /proc/sys/kernel/random/uuid >"$home/boot_id"
    cp "$work/kube/$1.kubeconfig" "$home/kubeconfig"
    {
        echo '[provider]'
        echo 'api = "rest"'
        provider_settings "$work/scp/ca.pem"
        printf '[[failover_ip]]\naddress = "%s"\n[node]\nname = "%s"\n' "$failover" "$1"
    } >"$home/foip.toml"
    beside "$1" "$debian/usr/bin/foip" --config "$home/foip.toml" login >"$home/login" 2>&1
    # The package's files go when it is purged, and with them the binary: this process keeps it open.
    # shellcheck disable=SC2016 # for the inner shell
    background "$1" ip netns exec "$name-$1" sh -c 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' "$home/boot_id" \
        env "STATE_DIRECTORY=$home/state" "RUNTIME_DIRECTORY=$home/run" "FOIP_KUBECONFIG=$home/kubeconfig" \
        "$debian/usr/bin/foip" --config "$home/foip.toml" run
}

# beside NODE COMMAND...: in the surroundings of that host's foip.
beside() {
    in_space "$name-$1" env "STATE_DIRECTORY=$work/$1/state" "RUNTIME_DIRECTORY=$work/$1/run" \
        "FOIP_KUBECONFIG=$work/$1/kubeconfig" "${@:2}"
}
