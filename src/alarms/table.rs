//! The table itself, by code: severity, `MESSAGE_ID`, title, and the paragraph of foip-alarms(7).
//!
//! The text of an alarm says what is wrong here and now; the paragraph says what that means in general. `…` in
//! backticks is set in bold. A new `MESSAGE_ID` is made with `journalctl --new-id128` and never changed.

alarms! {
    "address" Error "9ad1d76aff3544bcaa9a3bcea816b197" {
        "the kernel refuses an address";
        meaning:
            "The kernel refused to put an address on the network interface, for the reason that the alarm \
             quotes.";
        danger:
            "Packets that netcup routes to this server are not answered. The address is tried again every few \
             seconds.";
        action:
            "Mend what the reason names: IPv6 that is switched off, an interface that is down or part of a \
             bridge, a missing capability after the unit was edited.";
    }

    "address-fight" Error "615339836af1462f9197f8b0acb3aacf" {
        "something keeps removing the address";
        meaning:
            "An address that foip puts on the interface was removed by something else more than three times in a \
             row.";
        danger:
            "Each time packets are lost until the address is back, within a second at first and later after a \
             growing pause.";
        action:
            "Find what flushes the interface: systemd-networkd (`KeepConfiguration=yes` in its .network file \
             keeps it from doing so), ifupdown, NetworkManager, a script, a second failover agent.";
    }

    "alone" Warning "d6f45a111c46446cbe7b75c8af0a0e1e" {
        "no other node runs foip";
        meaning: "No other node has written a record for 30 seconds since this node reached the Kubernetes API.";
        danger: "When this server dies, nobody takes its failover IPs over.";
        action:
            "Install foip on the other k3s server nodes with the same list of failover IPs and the same \
             `namespace`, and look at `foip status` there.";
    }

    "api-denied" Error "78f28f4c7a7a46079607d991e8769577" {
        "the Kubernetes API denies a request";
        meaning:
            "The API server said no to a request of foip and will say so again: wrong or expired credentials, or \
             missing rights. The alarm quotes it.";
        danger:
            "Without its Lease this node can neither hold nor take over a failover IP. What is routed here stays \
             routed here, with its address.";
        action:
            "For 401: look at the kubeconfig that foip uses and whether `foip-kubeconfig.service` copied it. For \
             403: give the account of the kubeconfig the rights on Leases and on its own Node in foip's \
             namespace.";
    }

    "api-list" Warning "18b8092ea67c4ad3aa45cf22518684b4" {
        "the list of Leases cannot be read";
        meaning:
            "Listing the Leases of foip's namespace fails, for the reason that the alarm quotes, while single \
             Leases may be read well.";
        danger:
            "Other nodes' records may be old: this node may see no successor, or rank bids badly. Failover \
             itself goes on, as it needs single Leases only.";
        action:
            "Look at the reason. Where the answer is too large, remove the Leases with the label \
             `app.kubernetes.io/managed-by=foip` that foip did not write.";
    }

    "api-lost" Error "1343a0f90aa049baac4939c04249d718" {
        "the Kubernetes API does not answer";
        meaning: "No API server has answered this node for five seconds; each server of the cluster was tried.";
        danger:
            "While it lasts nothing is moved. Addresses stay where they are and go on serving, but a server that \
             dies now is replaced by nobody.";
        action:
            "Look at k3s on this server with `systemctl status k3s`, and at etcd's quorum: with two of three \
             servers gone there is none. The last error of each way is in the journal.";
    }

    "api-read" Warning "d73cc0bd4bfb43049cc987bacdadd954" {
        "a Lease cannot be read";
        meaning:
            "Reading a Lease of foip's fails, for the reason that the alarm quotes, while the API server answers \
             other requests.";
        danger: "This node does not see who holds the group, so it takes nothing over.";
        action:
            "Look at the reason: missing rights on that Lease, an object that the datastore cannot decode, an \
             API server that is half up.";
    }

    "api-write" Error "b25ff352afc74bd78d298c7d454e3f56" {
        "the Kubernetes API refuses writes";
        meaning: "Reading from the API server works, and writing does not, for the reason that the alarm quotes.";
        danger:
            "This node can hold no Lease: what it holds it loses after the Lease's duration, and it takes \
             nothing over.";
        action:
            "Look at the reason: a full disk or an alarm of etcd (`k3s etcd-snapshot ls`, etcd's NOSPACE), an \
             admission webhook that is down, missing rights.";
    }

    "budget" Error "964a7bb6220049a5847ea1eab971d0f7" {
        "a route call has to wait";
        meaning:
            "A failover IP should be routed to another server, and may not yet: netcup takes 10 calls in 5 \
             minutes and 20 in 60 minutes for an account, or foip waits after calls that failed.";
        danger: "The IP stays where it is routed until the time that the alarm names, even if that server is dead.";
        action:
            "Wait; the call is made at the first allowed moment, which `foip status` shows. Find out what spent \
             the calls: moves by hand, another program with the same account, a flapping node.";
    }

    "call-failed" Error "c039a4927c6d494382e08dee85391717" {
        "netcup refuses or fails route calls";
        meaning:
            "netcup answers questions, but refuses the call that would route an IP here, or its tasks fail; the \
             alarm quotes it.";
        danger: "This node cannot take over an IP, and hands its Lease over to a node that can.";
        action:
            "Look at the reason: missing rights of the token, a server that is suspended or locked by a running \
             task, another site than the IP's; with 429 something that limits this host alone.";
    }

    "check" Warning "7051cd266d2949568d3d3bff1cea6690" {
        "a check of this node fails";
        meaning:
            "A check of the configuration, `[[check]]`, failed as often as its `fall` says; the alarm has its \
             name and what it answered.";
        danger: "This node counts as less healthy: what it holds moves to a healthier node, and it takes over last.";
        action: "Mend what the check looks at, or the check itself.";
    }

    "cloned" Error "702bacd82c5d4fef858de7f7df42f8c0" {
        "two machines have one identity";
        meaning:
            "Another machine writes the record of this node's name, or has this node's `host-id`: a disk was \
             cloned, or two machines use one node name.";
        danger:
            "Two machines that take themselves for the same node may fight for a Lease; foip refuses what it \
             can, so a failover may not work.";
        action:
            "Stop foip on one of them, give it another node name, remove `host-id` from its state directory \
             (/var/lib/foip) and start it again.";
    }

    "differs" Warning "2165b74d62614ee085d51d7331b528d5" {
        "the nodes differ in configuration or version";
        meaning:
            "The holder of a group has another account, other failover IPs or another version of foip's protocol \
             than this node.";
        danger: "This node bids last: a failover to it takes 20 seconds longer.";
        action:
            "Make the configuration of all nodes the same, install the same version, and run `systemctl reload \
             foip`.";
    }

    "drift" Warning "b0fa1925577d4576be9b48051e63334f" {
        "a route was changed by somebody else";
        meaning:
            "netcup says that a failover IP was routed to another server, or nowhere, and no foip of this \
             cluster did it: a person in the control panel, or another program.";
        danger:
            "With `drift = \"correct\"` (the default) it is routed back within the budget. With `drift = \
             \"report\"` it stays there, and foip does not serve it.";
        action:
            "If it was meant, stop foip or set `drift = \"report\"` before; if not, find who did it: every \
             program with access to the account can.";
    }

    "epoch-forged" Error "62e93e1535e24f6e913d3471612118da" {
        "a Lease has an impossible epoch";
        meaning:
            "A Lease or the ledger carries an epoch far above anything that terms can have reached: somebody \
             wrote it.";
        danger:
            "Terms are bounded, so that it does no lasting harm; until it is mended this node may not trust the \
             Lease.";
        action:
            "Find who may write Leases in foip's namespace. Mend it with `kubectl -n kube-system delete lease \
             foip-GROUP` (or in the `namespace` that is configured); the holder writes it anew, without a move.";
    }

    "ipv6-next-hop" Warning "4a328383bac9464dbb4629b1196d1622" {
        "netcup cannot reach the server over IPv6";
        meaning:
            "The server has no IPv6 address that is made of its MAC (EUI-64) out of its own /64. netcup sends \
             the packets of an IPv6 failover /64 to that address.";
        danger:
            "An IPv6 failover IP that is routed here gets no packets, though netcup, the Lease and the interface \
             look well.";
        action:
            "Add the address that the alarm names to the host's network configuration, or let the kernel make \
             it: `net.ipv6.conf.eth0.addr_gen_mode=0`.";
    }

    "kubeconfig" Warning "0afefa698f5e46b793c8ccfd0925d133" {
        "the kubeconfig is no good now";
        meaning:
            "The kubeconfig cannot be read or used as it is on the disk now, for the reason that the alarm quotes. \
             foip goes on with what it read before.";
        danger:
            "After a restart of foip, or when k3s has new certificates, this node has no way to the Kubernetes API: \
             it could neither hold nor take over.";
        action:
            "Mend the file that the alarm names: `systemctl restart k3s` writes its kubeconfig anew, `systemctl \
             restart foip-kubeconfig` copies it.";
    }

    "lease-edited" Warning "44a594177d5c47b2a39d76e48ce397b2" {
        "somebody changed a Lease";
        meaning: "The Lease of a group was changed by something that is not foip, for instance with `kubectl edit`.";
        danger:
            "The holder puts it right at once. Without a holder the change is waited out like a running Lease, \
             so a failover takes longer, by 60 seconds at most.";
        action: "Nothing; find who did it. To move a group, cordon its holder.";
    }

    "ledger-lost" Error "34092a3748b44dbbb8dc075af2531df5" {
        "the ledger of route calls is lost";
        meaning:
            "The Lease with the list of recent route calls is gone, and netcup's own list of calls cannot be had \
             to put it together again.";
        danger: "Nothing is routed before one of the two is there, as the calls could exceed what netcup takes.";
        action:
            "Look at why netcup does not answer (`foip status`, the journal). foip writes the ledger anew as \
             soon as it can.";
    }

    "ledger-unreadable" Warning "d236da113dee43859a50638982cc46b7" {
        "the ledger of route calls cannot be read";
        meaning: "The Lease with the list of recent route calls has content that is not foip's.";
        danger:
            "foip puts it together again from this node's copy and netcup's list; until then calls may have to \
             wait.";
        action: "Find who writes Leases named foip-ledger-... in foip's namespace and keep them from it.";
    }

    "left-out" Warning "93c3a13f2ef84e81921772aef2bc2939" {
        "Leases are left out";
        meaning:
            "Leases carry the label `app.kubernetes.io/managed-by=foip` that are too many, too large or no Leases; \
             the alarm names the first. They are not looked at.";
        danger: "None for failover: foip's own Leases are read one by one. The record of a new node may be seen late.";
        action: "Delete the Leases that are not foip's, and find who writes them.";
    }

    "link" Error "2126aedb6a6e4421bf387ff8c1c0207c" {
        "the network interface has no link";
        meaning: "The kernel says that the interface of the failover IPs is down or has no carrier.";
        danger: "This node takes nothing over, and what it holds moves to a node that is well.";
        action: "Look at the interface with `ip link`, and at the server in netcup's control panel.";
    }

    "list" Error "79bee2c435424b74bd4c14a31c16c6b2" {
        "netcup's list says nothing of use about an IP";
        meaning:
            "netcup's list of the account's failover IPs could not be read, or its entry for this IP could not, or \
             netcup does not let this IP be routed; the alarm quotes what was answered.";
        danger: "Nothing is done about this IP: it stays where it is. Other IPs are served and moved as usual.";
        action:
            "Look at the answer. An error of netcup's ends by itself; an entry that cannot be read is worth a report \
             to foip's authors.";
    }

    "move-waits" Warning "e9e27479e64c40b68f4c008696703d09" {
        "a planned move is wanted and does not start";
        meaning:
            "Another node is healthier than the holder, or the holder is cordoned, and the move waits for the \
             reason that the alarm names: the reserve of route calls, a successor that is not ready, a pause.";
        danger: "The failover IP goes on being served by a node that should not serve it.";
        action: "Mend the reason. Nothing is lost while it waits; the holder's death moves the IP in any case.";
    }

    "no-clock" Error "cca27473c960422894e3c54a76a670c6" {
        "netcup's answers carry no time";
        meaning:
            "netcup's answers have no usable `Date` header, and the ledger of route calls counts in netcup's \
             time.";
        danger: "The budget cannot be counted, so nothing is routed.";
        action:
            "Look for a proxy on the way (`url` under `[provider]`) that takes the header out. If netcup itself \
             left it out, wait.";
    }

    "no-default-route" Error "aa83dec350a14cc8a5ccb39d1a0ec6d4" {
        "no default route";
        meaning: "The main routing table has no default route over the interface of the failover IPs.";
        danger:
            "Answers of this server would not reach the clients: it takes nothing over, and hands over what it \
             holds to a node that has a route.";
        action:
            "Look at `ip route` and `ip -6 route`, and at what should have set the route: systemd-networkd, \
             ifupdown, cloud-init.";
    }

    "no-node" Error "f05acb57611a4eb2a7a4f9c6e6b1ab86" {
        "there is no Node of this name";
        meaning:
            "The cluster has no Node object of the name that this foip has: k3s runs with `--disable-agent`, the \
             Node was deleted, or the name is wrong.";
        danger: "This server takes no failover IP.";
        action:
            "Compare `kubectl get nodes` with the name in `foip status`. If the name is wrong, set `name` under \
             `[node]`; if the server has no agent on purpose, take foip off it.";
    }

    "no-successor" Error "5cd2ee6f80e3473e800697c9747729b3" {
        "no other node could take over";
        meaning: "No other node is able to take over from this holder now; the alarm gives each node's reason.";
        danger: "When this server dies, its failover IPs are served by nobody until one of the reasons ends.";
        action: "Mend the reasons, the one that is easiest first: one able node is enough.";
    }

    "node-address" Error "f9863107caf54adabdb5c519336e7b11" {
        "k3s uses the failover IP as the Node's own address";
        meaning:
            "The Node object lists a failover IP among its own addresses. k3s took it for the server's address \
             when it started.";
        danger: "When the IP moves, the cluster loses the way to this node; etcd may lose its peer.";
        action:
            "Set `node-ip` in /etc/rancher/k3s/config.yaml to the server's own addresses and restart k3s on this \
             server.";
    }

    "node-silent" Warning "724fdd81d93a4d2593932bf230a07afa" {
        "nothing is heard of another node";
        meaning: "A node that has run foip has not renewed its record for half a minute.";
        danger: "That machine or its foip is down, or it has no way to the Kubernetes API: it cannot take over.";
        action:
            "Look at it: `systemctl status foip k3s` there. A server that is gone for good is forgotten when its \
             Node object and its Lease foip-node-NAME are deleted.";
    }

    "not-listed" Error "bcac7fdecb8c4fde86e8636fb9ed4bd2" {
        "netcup does not list a failover IP";
        meaning: "netcup's list of the account's failover IPs was read and does not have this one.";
        danger: "Nothing is done about this IP: it is neither routed nor served by foip.";
        action:
            "Check the address in the configuration, and whether the token or the login belongs to the account \
             that owns the IP.";
    }

    "provider" Error "16b16e045dc24bb784a2f26165f46b67" {
        "netcup keeps foip from calling";
        meaning: "netcup answers in a way that forbids route calls for a while; the alarm quotes it.";
        danger: "No route can be changed until it ends.";
        action: "Look at the reason, and at netcup's status page.";
    }

    "provider-auth" Error "23c43b80bebf4681ba7ba08aa4375b67" {
        "netcup refuses the login";
        meaning:
            "netcup does not accept foip's credentials; the alarm quotes the answer. For REST: the token was \
             revoked, the password was changed with \"sign out from other devices\", or the token was not used \
             for 30 days. A 401 on a good token can also be netcup's allow-list of addresses. For SOAP: the login \
             name or the webservice password is wrong.";
        danger:
            "No route can be changed. What is routed stays routed, with its address; a server that dies now is \
             not replaced by this node.";
        action:
            "REST: run `foip login` on this node; the service picks the token up by itself. Look at the \
             allow-list in the Server Control Panel. SOAP: correct `login_name` or /etc/foip/soap-password and \
             restart foip.";
    }

    "provider-config" Error "cf9e44a204374d699996b0b7530b1dd6" {
        "netcup says that the configuration is wrong";
        meaning:
            "netcup answers that what is asked for does not exist or does not fit: an unknown server, a site \
             other than the IP's, a dead interface (SOAP ended; `api = \"rest\"` is the one that is left).";
        danger: "No route can be changed from this node.";
        action: "Correct what the alarm names in /etc/foip.toml and run `systemctl reload foip`.";
    }

    "provider-lost" Error "a5bfebf25c194355bac6aa2ec64f5052" {
        "netcup does not answer";
        meaning: "No answer of netcup's interface has come for 20 seconds; the alarm quotes the last failure.";
        danger: "Everything stays as it is, and nothing can be moved by this node.";
        action:
            "Try `curl -sI https://www.servercontrolpanel.de` from this server. Look at DNS, at the default \
             route, at the host's firewall, and at netcup's status page.";
    }

    "provider-slow" Warning "c832c4ec653042fba50ce72fdf7eb1b3" {
        "netcup answers too slowly";
        meaning:
            "netcup took more than five seconds to say where an IP is routed. An answer that old is not acted \
             upon.";
        danger: "A route call waits until netcup answers faster.";
        action: "Look at the way to netcup. Nothing else can be done here.";
    }

    "record-unreadable" Warning "fa45a078cbc344d38c8c86a9fd2fd2a8" {
        "a node's record cannot be read";
        meaning: "The Lease foip-node-NAME of another node has content that is not foip's.";
        danger: "That node counts as silent, and so as no successor, until it writes a new record.";
        action:
            "Nothing, if it ends by itself: its foip writes every few seconds. Else delete that Lease, and find \
             who edited it.";
    }

    "refused" Error "af40cb46c0d342d3b8fe3cfa6185836c" {
        "netcup refused to route an IP";
        meaning:
            "netcup refused the last call for this IP for what it asked; the alarm quotes it. The same call is \
             not repeated for ten minutes.";
        danger:
            "The IP stays where it is routed. After 20 seconds the Lease goes to a node that may be luckier, if \
             there is one.";
        action:
            "Look at the reason: IP and server have to be at the same site and in the same account, and the \
             server's MAC has to be right (SOAP). After an edit run `systemctl reload foip`.";
    }

    "renamed" Error "4e31824cd6c74acd90b02a72bc99f8a5" {
        "k3s calls this node something else";
        meaning: "k3s' kubelet has a certificate for another node name than the one that foip uses.";
        danger:
            "foip looks after a Node that k3s keeps no longer: it counts as dead or missing, though the machine \
             is well.";
        action:
            "Run `systemctl restart foip`, or correct `name` under `[node]` if it is set there. Delete the old \
             Node if it is still there.";
    }

    "split" Error "178a112b8e1545dbbaed0e1e584339bb" {
        "an IP is in two groups";
        meaning: "Another node has a failover IP in another group than this node has, so two Leases rule one IP.";
        danger:
            "Two holders would route the IP in turns and spend netcup's budget. foip does not route it until the \
             nodes agree.";
        action: "Make the `[[failover_ip]]` tables of all nodes the same and run `systemctl reload foip` on each.";
    }

    "stranger" Error "ddc15bc0af944b58b7294f9ff66ecae4" {
        "somebody else configured the address";
        meaning:
            "A failover address is on the interface without foip's mark: it is in the host's own network \
             configuration, or another agent put it there.";
        danger:
            "foip leaves it alone. It stays on this host when the IP moves, and the host itself then no longer \
             reaches the failover IP.";
        action:
            "Take the address out of the host's network configuration (netplan, ifupdown, cloud-init), stop the \
             other agent, and delete it with `ip address del`.";
    }

    "two-nodes" Warning "7d940a340546406095a146bbd435094c" {
        "two nodes are too few";
        meaning: "Exactly two nodes run foip.";
        danger:
            "If these are the only two k3s servers, etcd has no quorum when one of them dies: the Kubernetes API \
             stops, and nothing is moved.";
        action:
            "Add a third k3s server with foip. With an external datastore that survives one server this does not \
             concern you.";
    }

    "unsaved" Error "3bfdada3aca2466799d68c9e4b004b5f" {
        "state or token cannot be saved";
        meaning:
            "foip cannot save its state or a token that netcup renewed in its state directory (/var/lib/foip); \
             the alarm quotes the system's error.";
        danger:
            "It works on with what it has in memory. After a restart it may have forgotten its last route calls \
             and terms, and have no token.";
        action:
            "Look at the disk: full, read-only, or owned by another user. foip tries again by itself; `systemctl \
             restart foip` sets the owner right.";
    }
}
