#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make demo-control: a controller, and three nodes that join it with tokens: alice's, an ingress in Europe, one in America. An
# objective is violated when the European link grows slow, and alice moves to America while ping and a download run; a bad version is
# stopped by a canary; one that cuts a node off is rolled back by that node; the programs are replaced under load. KEEP=1 keeps the folder.
set -u
here=$(dirname "$0")
# shellcheck source=tests/demo/lib.sh
. "$here/lib.sh"
need_root

install=$work/install                 # what "the installed programs" are, for step 6
mkdir -p "$install"
cp -r "$build/bin" "$build/libexec" "$install/"
PATH=$install/bin:$PATH

# The two links from alice, with delay: emulated. shape eu|us SHAPE changes one while it runs.
far_link() {
	start "link-$1" "$build/tests/netlab/linkem" --a "h$$-alice:$1" --b "h$$-$1:alice" --control "$work/link-$1/control" --ab "delay=$4" --ba "delay=$4"
	wait_for "the link to $1" grep -q ready "$work/link-$1/log"
	ip -n "h$$-alice" address add "$2" dev "$1" && ip -n "h$$-$1" address add "$3" dev alice
	ip -n "h$$-alice" link set "$1" up && ip -n "h$$-$1" link set alice up
}
shape() {
	python3 - "$work/link-$1" "set both $2" <<- 'PY'
		import socket, sys
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind(sys.argv[1] + "/client")
		s.sendto(sys.argv[2].encode(), sys.argv[1] + "/control")
		s.recv(65536)
	PY
	rm -f "$work/link-$1/client"
}
in_version() { admin ctl --json nodes list | python3 -c 'import json, sys; nodes = {n["name"]: n for n in json.load(sys.stdin)["nodes"]}
sys.exit(0 if all((nodes[n].get("runs") or {}).get("version") == int(sys.argv[1]) for n in sys.argv[2:]) else 1)' "$@"; }
newest() { admin ctl --json controller history | python3 -c 'import json, sys; print(max(v["version"] for v in json.load(sys.stdin)["versions"]))'; }
# Every number up to the last that came back, once; the few that were under way when ping was interrupted are not lost.
none_missing() {
	local missing
	missing=$({ sed -nE 's/.*icmp_seq=([0-9]+) .*/\1/p' "$work/$1" | sort -n; sed -nE 's/^([0-9]+) packets transmitted.*/\1 sent/p' "$work/$1"; } |
		awk '$2 == "sent" {if (n < $1 - 25) print n + 1; exit} $1 != ++n {print n; exit}')
	[ -z "$missing" ] || fail "ping $missing was lost, or came twice"
	printf '   %sok%s every ping came back, once\n' "$green" "$plain"
}
choice() { admin ctl --json controller objectives list | grep -q "\"choice\": *\"$1\""; }

title "A controller, and three machines that know nothing yet"
space ctl alice eu us web
link ctl 10.9.1.1/24 alice 10.9.1.2/24
link ctl 10.9.2.1/24 eu 10.9.2.2/24
link ctl 10.9.3.1/24 us 10.9.3.2/24
link web 10.9.4.1/24 eu 10.9.4.2/24
link web 10.9.5.1/24 us 10.9.5.2/24
mkdir -p "$work"/link-{eu,us}
far_link eu 10.9.11.1/24 10.9.11.2/24 10ms
far_link us 10.9.12.1/24 10.9.12.2/24 30ms
ip -n "h$$-ctl" address add 10.9.0.1/32 dev lo
ip -n "h$$-web" address add 10.0.0.1/32 dev lo
for name in alice eu us; do
	ip -n "h$$-$name" route add 10.9.0.1/32 dev ctl
done
for name in eu us; do
	ip -n "h$$-$name" route add 10.0.0.1/32 dev web
	in_space $name sysctl -qw net.ipv4.ip_forward=1
done
mkdir -p "$work/web/www"
head -c 30000000 /dev/urandom > "$work/web/www/big"
echo "the page" > "$work/web/www/index.html"
start web ip netns exec "h$$-web" python3 -m http.server --bind 0.0.0.0 --directory "$work/web/www" 80

title "1. The domain begins"
run "ip netns exec h$$-ctl hermes-admin controller init --domain example.net --name ctl --address 10.9.0.1:8444 --config ctl/hermes.yaml --state-dir ctl/state" 20
exits 0
node ctl
for name in alice eu us; do
	run "hermes-admin -s ctl/run/admin.sock controller token create --node $name"
	exits 0
	token=$(tail -n 1 <<< "$out")
	run "ip netns exec h$$-$name hermes-admin enroll https://10.9.0.1:8444 --token $token --node $name --config $name/hermes.yaml --state-dir $name/state"
	exits 0
	node $name
done
run "hermes-admin -s ctl/run/admin.sock nodes list"
shows "alice" "the nodes are enrolled"
say "A token is good once:"
run "ip netns exec h$$-us hermes-admin enroll https://10.9.0.1:8444 --token $token --node us --config us/again.yaml --state-dir us/again"
exits 1

title "2. One document shapes them all"
cat > "$work/domain.yaml" << 'YAML'
domain: example.net
defaults:
  control: {report: 1s, confirm: 6s}
groups:
  - name: ingress
    config:
      listeners: [{name: from-nodes, address: "0.0.0.0:8443", accept: overlay}]
      tunnels: [{name: hermes0, addresses: [10.8.0.1/24]}]
      clusters: [{name: packets, carry: ip, device: hermes0, pool: [10.8.0.0/24], advertise: [10.0.0.1/32], nat: true}]
      routes:
        - {name: packets, match: {method: CONNECT-IP}, cluster: packets}
        - {name: web-tunnels, match: {method: CONNECT, authority: WEB}, cluster: web-tcp}
        - {name: web, match: {authority: WEB}, cluster: web}
nodes:
  - name: ctl
  - name: alice
    config:
      listeners: [{name: apps, address: "127.0.0.1:12000", accept: http, add_headers: {user: alice}}]
      tunnels:
        - {name: hermes0, addresses: [10.8.0.2/32], networks: [{prefix: 10.0.0.1/32, add_headers: {user: alice}}]}
  - {name: eu, address: "10.9.11.2:8443", groups: [ingress]}
  - {name: us, address: "10.9.12.2:8443", groups: [ingress]}
users:
  - {name: alice, nodes: [alice]}
clusters:
  - {name: web, carry: h1, endpoints: ["10.0.0.1:80"]}
  - {name: web-tcp, carry: tcp, endpoints: ["10.0.0.1:80"]}
  - {name: ingress-eu, carry: h2, tls: {server_name: eu.example.net}, endpoints: [{node: eu}]}
  - {name: ingress-us, carry: h2, tls: {server_name: us.example.net}, endpoints: [{node: us}]}
objectives:
  - name: alice-web
    user: alice
    service: [WEB, 10.0.0.1/32]
    limit: 100ms
    for: 3s
    hold: 5s
    interval: 250ms
    ways: [{cluster: ingress-eu}, {cluster: ingress-us}]
rollout: {canary: [us], steps: [100%], wait: 2s, timeout: 30s}
YAML
A="-s ctl/run/admin.sock"
run "cat domain.yaml" 60
run "hermes-admin $A controller document check domain.yaml" 30
exits 0
run "hermes-admin $A controller document apply domain.yaml --wait" 20
exits 0
wait_for "the first version everywhere" in_version "$(newest)" alice eu us
run "hermes-admin $A nodes list"
run "hermes-admin -s alice/run/admin.sock config show --origin | head -n 40" 40
wait_for "alice's tunnel" in_space alice ping -c 1 -W 1 10.0.0.1 > /dev/null
run "ip netns exec h$$-alice curl -sS -m 10 -x http://127.0.0.1:12000 http://WEB/"
shows "the page" "alice's browser reaches the service by way of Europe"
run "ip netns exec h$$-alice ping -c 3 10.0.0.1"
exits 0

title "3. The European link grows slow: an objective is violated"
ip netns exec "h$$-alice" ping -i 0.05 -D 10.0.0.1 > "$work/alice/ping" 2>&1 &
ping=$!
pids+=($ping)
in_space alice curl -sS -x http://127.0.0.1:12000 --limit-rate 2M -o "$work/alice/big" http://WEB/big &
download=$!
sleep 2
run "hermes-admin $A controller objectives list"
say "the link's delay: from 10 to 120 ms each way"
shape eu delay=120ms
moved() { choice ingress-us; }
wait_for "the move to America" moved
run "hermes-admin $A controller objectives list"
shows "ingress-us" "the controller moved alice, and says why"
run "hermes-admin $A controller objectives show alice-web" 40
sleep 3
tail -n 1 "$work/alice/ping" | grep -oE 'time=[0-9.]+ ms' | sed 's/^/   alice now pings by way of America: /'
wait $download || fail "the download broke"
run "cmp alice/big web/www/big && echo equal"
shows equal "the download came through, whole"
kill -INT $ping; wait $ping
run "tail -n 3 alice/ping"
none_missing alice/ping
shape eu delay=10ms

title "4. A bad version meets the canary"
before=$(newest)
sed 's/{name: from-nodes, address: "0.0.0.0:8443", accept: overlay}/&, {name: more, address: "203.0.113.9:8443", accept: overlay}/' "$work/domain.yaml" > "$work/bad.yaml"
run "diff domain.yaml bad.yaml"
run "hermes-admin $A controller document apply bad.yaml --wait" 20
exits 1
shows "203.0.113.9" "the canary says what is wrong"
run "hermes-admin $A controller rollout show" 20
run "hermes-admin $A nodes list"
in_version "$before" eu || fail "eu took the bad version"
run "ip netns exec h$$-alice curl -sS -m 10 -x http://127.0.0.1:12000 http://WEB/"
shows "the page" "nobody noticed"

title "5. A version that cuts alice off from the controller"
awk '{print} /^  - name: alice$/ {a = 1} a && /^    config:$/ {print "      policies: [{name: lockdown, default: deny}]"; a = 0}' "$work/domain.yaml" > "$work/cut.yaml"
run "diff domain.yaml cut.yaml"
run "hermes-admin $A controller document apply cut.yaml --comment lockdown" 20
back() { grep -q "rolled back" "$work/alice/log"; }
wait_for "alice's own rollback" back
run "grep -i 'roll' alice/log | tail -n 3"
reported() { admin ctl controller rollout show | grep -q "stopped"; }
wait_for "alice's report" reported
run "hermes-admin $A controller rollout show"
shows "alice" "the controller knows, and stopped"
run "hermes-admin $A nodes list"
run "ip netns exec h$$-alice curl -sS -m 10 -x http://127.0.0.1:12000 http://WEB/"
shows "the page" "alice runs the version before, by herself"
run "hermes-admin -s alice/run/admin.sock config history" 6

title "6. New programs under load"
run "hermes-admin $A controller rollback $before --wait" 10
say "the next version is built ..."
cp -a "$build/obj" "$work/"
(cd "$root" && grep -rl HERMES_VERSION --include='*.c' ipc store supervisor workers | sed "s,.*,$work/obj/&,; s,\.c$,.o," | xargs rm -f
	make --no-print-directory -s BUILD="$work" VERSION=0.2.0 -j"$(nproc)" all > "$work/build.log" 2>&1) || { tail "$work/build.log" >&2; fail "the next version does not build"; }
ip netns exec "h$$-alice" ping -i 0.01 10.0.0.1 > "$work/alice/ping2" 2>&1 &
ping=$!
(
	while [ ! -e "$work/quiet" ]; do
		in_space alice curl -sS -m 20 -x http://127.0.0.1:12000 http://WEB/ 2>&1 || true
	done
) > "$work/alice/seen" &
asking=$!
pids+=($ping $asking)
in_space alice curl -sS -p -x http://127.0.0.1:12000 --limit-rate 3M -o "$work/alice/big2" http://WEB/big &
download=$!
sleep 1
for name in hermesd hermes-admin; do cp "$work/bin/$name" "$install/bin/$name.new" && mv "$install/bin/$name.new" "$install/bin/$name"; done
for file in "$work"/libexec/*; do cp "$file" "$install/libexec/new" && mv "$install/libexec/new" "$install/libexec/${file##*/}"; done
for name in us eu alice ctl; do
	run "hermes-admin -s $name/run/admin.sock restart"
	exits 0
done
run "hermes-admin -s alice/run/admin.sock status" 20
shows "0.2.0" "alice runs the next version, in the same process"
wait $download || fail "the download broke"
run "cmp alice/big2 web/www/big && echo equal"
shows equal "a download through all of it"
kill -INT $ping; wait $ping
touch "$work/quiet"; wait $asking
run "sort alice/seen | uniq -c"
[ "$(sort -u "$work/alice/seen")" = "the page" ] || fail "a request failed"
run "tail -n 3 alice/ping2"
none_missing alice/ping2
printf '\n%sAll of it holds.%s\n' "$green" "$plain"
