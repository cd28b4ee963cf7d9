# shellcheck shell=bash
# shellcheck disable=SC2154 # set by env.sh and world.sh
# What tests/host/run has around the host: the stand-ins for netcup and for the Kubernetes API, and foip on the other two hosts.
# Sourced after world.sh.

# services_start: both stand-ins, with the three servers and Nodes, and the failover IP routed nowhere.
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
        --dir "$work/kube" --log "$work/kube/requests"
    within 10 "the provider's stand-in is up" test -s "$work/scp/ca.pem"
    within 10 "the API's stand-in is up" test -s "$work/kube/kubeconfig"
    for node in "${nodes[@]}"; do
        kubectl "$node" POST /api/v1/nodes "$(node_object "$node")" >"$work/node.json"
    done
}

# kubectl NODE METHOD PATH [BODY]: to the API server on a host, asked from there.
kubectl() {
    local body=()
    (($# < 4)) || body=(--header "Content-Type: application/json" --data "$4")
    in_space "$name-$1" curl --silent --show-error --fail-with-body --max-time 5 --request "$2" "${body[@]}" \
        --cacert "$work/kube/ca.pem" --cert "$work/kube/client.pem" --key "$work/kube/client.key" "https://127.0.0.1:6443$3"
}

node_object() {
    local kind conditions=()
    for kind in MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True; do
        conditions+=("{\"type\": \"${kind%=*}\", \"status\": \"${kind#*=}\", \"reason\": \"Test\",
            \"lastHeartbeatTime\": \"2026-11-22T00:00:00Z\", \"lastTransitionTime\": \"2026-11-22T00:00:00Z\"}")
    done
    cat <<EOF
{"apiVersion": "v1", "kind": "Node",
 "metadata": {"name": "$1", "labels": {"kubernetes.io/hostname": "$1", "node-role.kubernetes.io/control-plane": "true"}},
 "spec": {},
 "status": {"addresses": [{"type": "InternalIP", "address": "${address[$1]}"}, {"type": "Hostname", "address": "$1"}],
            "conditions": [$(IFS=,; echo "${conditions[*]}")]}}
EOF
}

# holder: the name in the Lease.
holder() {
    kubectl node-c GET /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/foip-default |
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
    cp "$work/kube/kubeconfig" "$home/kubeconfig"
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
