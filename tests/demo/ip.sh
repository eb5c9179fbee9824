#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make demo-ip: two users, each with a TUN device, for whom the same address 10.0.0.1 leads to different servers; then a change
# of configuration moves one of them to a third server while ping runs at 100 packets per second. KEEP=1 keeps the folder.
set -u
here=$(dirname "$0")
# shellcheck source=tests/demo/lib.sh
. "$here/lib.sh"
need_root

title "Two users, one core node, three servers that all have the address 10.0.0.1"
space user1 user2 core server1 server2 server3
link user1 10.9.1.1/24 core 10.9.1.2/24
link user2 10.9.2.1/24 core 10.9.2.2/24
for i in 1 2 3; do
	link core 10.9.1$i.1/24 server$i 10.9.1$i.2/24
	ip -n "h$$-server$i" address add 10.0.0.1/32 dev lo
done
for args in ca "node user1" "node user2" "node core" "node server1" "node server2" "node server3"; do
	# shellcheck disable=SC2086
	"$root/tests/certs.sh" "$work/tls" $args || fail "certificates"
done
identity() {
	cat <<- YAML
		node: {name: $1, domain: example.net}
		identity: {certificate: ../tls/$1.crt, key: ../tls/$1.key, authorities: [../tls/ca.crt]}
	YAML
}
for i in 1 2; do
	{ identity user$i; cat; } > "$work/user$i/hermes.yaml" <<- YAML
		tunnels:
		  - name: hermes0
		    addresses: [10.8.0.$((i + 1))/32]
		    networks:
		      - {prefix: 10.0.0.1/32, add_headers: {user: user$i, ipaddress: 10.0.0.1}}
		clusters:
		  - {name: core, carry: h2, tls: {server_name: core.example.net}, endpoints: [10.9.$i.2:8443]}
		routes:
		  - {match: {method: CONNECT-IP}, cluster: core}
	YAML
done
{ identity core; cat; } > "$work/core/hermes.yaml" << 'YAML'
listeners:
  - name: from-nodes
    address: 0.0.0.0:8443
    accept: overlay
    peers: [{node: user1, users: [user1]}, {node: user2, users: [user2]}]
clusters:
  - {name: server1, carry: h2, tls: {server_name: server1.example.net}, endpoints: [10.9.11.2:8443]}
  - {name: server2, carry: h2, tls: {server_name: server2.example.net}, endpoints: [10.9.12.2:8443]}
  - {name: server3, carry: h2, tls: {server_name: server3.example.net}, endpoints: [10.9.13.2:8443]}
address_spaces:
  - {name: first, users: [user1], prefixes: {10.0.0.1/32: {cluster: server1}}}
  - {name: second, users: [user2], prefixes: {10.0.0.1/32: {cluster: server2}}}
YAML
for i in 1 2 3; do
	{ identity server$i; cat; } > "$work/server$i/hermes.yaml" << 'YAML'
listeners:
  - {name: from-nodes, address: 0.0.0.0:8443, accept: overlay}
tunnels:
  - {name: hermes0, addresses: [10.8.0.1/24]}
clusters:
  - {name: here, carry: ip, device: hermes0, pool: [10.8.0.0/24], advertise: [10.0.0.1/32]}
routes:
  - {match: {method: CONNECT-IP, headers: {ipaddress: 10.0.0.1}}, cluster: here}
YAML
	mkdir -p "$work/server$i/www"
	echo "This is server $i" > "$work/server$i/www/index.html"
	head -c 20000000 /dev/urandom > "$work/server$i/www/big"
	start server$i ip netns exec "h$$-server$i" python3 -m http.server --bind 10.0.0.1 --directory "$work/server$i/www" 80
done
start server1 ip netns exec "h$$-server1" iperf3 -s -B 10.0.0.1
say "user1's node, and core's way to the servers:"
run "cat user1/hermes.yaml" 20
run "sed -n '/^address_spaces/,\$p' core/hermes.yaml"
for name in server1 server2 server3 core user1 user2; do node $name; done
in1="ip netns exec h$$-user1" in2="ip netns exec h$$-user2"

title "1. The same address, different servers"
run "$in1 ping -c 3 10.0.0.1"
exits 0
run "$in1 curl -sS -m 10 http://10.0.0.1/"
shows "server 1" "user1's 10.0.0.1"
run "$in2 curl -sS -m 10 http://10.0.0.1/"
shows "server 2" "user2's 10.0.0.1"
run "$in1 curl -sS -m 20 -o user1/big http://10.0.0.1/big -w '%{size_download} bytes, %{speed_download} bytes/s\n' && cmp user1/big server1/www/big && echo equal"
shows "^equal" "20 MB, unharmed"

title "2. iperf3 through the tunnel, TCP and UDP"
run "$in1 iperf3 -c 10.0.0.1 -t 3 | tail -n 4"
exits 0
shows "receiver" "TCP"
run "$in1 iperf3 -c 10.0.0.1 -u -b 50M -l 1200 -t 3 | tail -n 3"
exits 0
shows "\(0%\).*receiver|0/[0-9]+ \(0%\)" "UDP, none lost"

title "3. Seeing it"
run "hermes-admin -s user1/run/admin.sock tunnels list" 20
shows "hermes0" "the device"
run "hermes-admin -s core/run/admin.sock flows list"
shows "10.0.0.1" "both tunnels, at core"

title "4. user2 moves to server 3 while ping runs at 100 packets per second"
sed 's/\(users: \[user2\].*\)server2/\1server3/' "$work/core/hermes.yaml" > "$work/new.yaml"
run "diff core/hermes.yaml new.yaml"
in_space user2 ping -i 0.01 -c 800 10.0.0.1 > "$work/user2/ping" 2>&1 &
ping=$!
(
	while kill -0 $ping 2> /dev/null; do
		now=$(date +%s%N)
		printf '%s %s\n' "$now" "$(in_space user2 curl -s -m 2 http://10.0.0.1/)"
	done
) > "$work/user2/seen" &
pids+=($! $ping)
sleep 3
changed=$(date +%s%N)
cp "$work/new.yaml" "$work/core/hermes.yaml"
run "hermes-admin -s core/run/admin.sock config apply core/hermes.yaml"
exits 0
wait $ping
run "tail -n 3 user2/ping"
shows "800 packets transmitted, 800 received, 0% packet loss" "no packet lost"
grep -q '(DUP!)' "$work/user2/ping" && fail "packets came twice"
moved=$(awk '/server 3/ {print $1; exit}' "$work/user2/seen")
[ -n "$moved" ] || fail "user2 never saw server 3"
late=$(((moved - changed) / 1000000))
printf '   the first page from server 3: asked for %d ms after the change was sent\n' $late
[ $late -lt 1000 ] || fail "the change took more than a second"
awk -v t="$moved" '$1 > t && !/server 3/' "$work/user2/seen" | grep . && fail "an answer from server 2 after the move"
run "$in1 curl -sS -m 10 http://10.0.0.1/"
shows "server 1" "user1 stayed where it was"
printf '\n%sAll of it holds.%s\n' "$green" "$plain"
