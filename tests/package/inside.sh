#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs as a service in the container of tests/package.sh: installs, starts, uses, reloads, kills, restarts, makes it a controller,
# upgrades, stops, purges.
# Each check prints "ok NAME" or "FAILED NAME" with what the command said.
cd /test || exit 1
export DEBIAN_FRONTEND=noninteractive
config=/etc/hermes/hermes.yaml
proxy="curl -s -o /dev/null -m 10 -w %{http_code} -x http://127.0.0.1:12000"
site=http://127.0.0.1:8088/

check() {
	local name=$1 text
	shift
	if text=$("$@" 2>&1); then echo "ok $name"; else echo "FAILED $name: $*"; sed 's/^/    /' <<< "$text" | tail -n 15; fi
}
is() { [ "$("${@:2}" 2>&1)" = "$1" ] || { echo "not $1: $("${@:2}" 2>&1)"; return 1; }; }
not() { ! "$@"; }
prop() { systemctl show -P "$1" hermes; }
until_is() { for _ in $(seq 150); do is "$@" > /dev/null && return; sleep 0.2; done; is "$@"; }
pids() { hermes-admin --json workers list | grep -o '"pid":[0-9]*' | cut -d : -f 2; }
roles() { hermes-admin --json workers list | grep -o '"role":"[^"]*"' | cut -d '"' -f 4 | sort -u | paste -sd ' '; }
journal() { journalctl --sync; journalctl -q -u hermes "$@"; }
# Somebody who asks all the time, until `quiet` comes: prints how many answers were none of 200.
traffic() {
	local failed=0 n=0
	rm -f quiet
	while [ ! -e quiet ]; do
		[ "$($proxy $site)" = 200 ] || failed=$((failed + 1))
		n=$((n + 1))
	done
	echo "$n $failed" > traffic
}
# Who connects all the time, from `knock` to `none_refused`, and no connection was refused.
knock() {
	python3 knock.py 12000 > knocked &
	knocker=$!
	python3 knock.py /run/hermes/local.sock > knocked-unix &
	knocker_unix=$!
}
none_refused() {
	sleep 1
	kill $knocker $knocker_unix; wait $knocker $knocker_unix
	check "no connection was refused meanwhile ($(cat knocked))" grep -q "^[1-9].* 0 refused" knocked
	check "... nor at the Unix socket ($(cat knocked-unix))" grep -q "^[1-9].* 0 refused" knocked-unix
}
served_all() { local n failed; read -r n failed < traffic; [ "$failed" = 0 ] && [ "$n" -gt 20 ] || { echo "$n requests, $failed failed"; return 1; }; }

echo hello > index.html
python3 -m http.server 8088 --bind 127.0.0.1 > /dev/null 2>&1 &
origin=$!
until curl -s -o /dev/null $site; do sleep 0.1; done
find / -xdev -iname '*hermes*' -not -path '/test/*' -not -path '/proc/*' -not -path '/sys/*' 2> /dev/null | sort > before

echo "-- install"
check "dpkg installs it" dpkg -i hermes.deb
check "it runs" systemctl is-active hermes
check "it starts at boot" systemctl is-enabled hermes
check "READY came with a status" grep -q "Serving configuration 1" <(prop StatusText)
check "the default configuration serves, and goes nowhere private" is 403 $proxy $site
check "the installed configuration passes the check" hermesd -t
check "status by the administrator" hermes-admin status --check ready
check "nobody else may look" not setpriv --reuid=nobody --regid=nogroup --clear-groups hermes-admin status
is_hermes() { is hermes eval "ps -o user= -p '$(pids | paste -sd ,)' | sort -u | tr -d ' '"; }
check "workers run as the user hermes" is_hermes
check "the state is the workers' alone" is "700 hermes" stat -c "%a %U" /var/lib/hermes
check "the watchdog is on" is 30s prop WatchdogUSec
check "systemd finds it confined ($(systemd-analyze security hermes.service | grep -o 'exposure level.*: [0-9.]*'))" systemd-analyze security --threshold=35 hermes.service
check "manual pages, completion, examples are there" ls /usr/share/man/man8/hermesd.8.gz /usr/share/man/man1/hermes-admin.1.gz \
	/usr/share/man/man5/hermes.yaml.5.gz /usr/share/man/man7/hermes-controller.7.gz /usr/share/man/man7/hermes-metrics.7.gz \
	/usr/share/bash-completion/completions/hermes-admin /usr/share/doc/hermes/examples/exit.yaml

echo "-- examples"
mkdir -p examples/tls
cp /usr/share/doc/hermes/examples/*.yaml examples/
for name in alice ingress exit ca; do cp tls/certificate examples/tls/$name.crt; cp tls/key examples/tls/$name.key; done
for file in examples/*.yaml; do
	[ $file = examples/domain.yaml ] || check "hermesd -t $file" hermesd -t -c "$file"
done

echo "-- reload"
cp $config default.yaml
sed -i 's/^\( *\)endpoints: target$/&\n\1allow_targets: [127.0.0.0\/8]/' $config
check "reload" systemctl reload hermes
check "a request" is 200 $proxy $site
check "a tunnel" is 200 $proxy -p $site
traffic &
for _ in 1 2 3 4 5; do
	sed -i '/^node:/i # changed' $config
	check "reload under traffic" systemctl reload hermes
	sleep 0.3
done
touch quiet; wait $!
check "no request failed ($(cat traffic))" served_all
cp $config good.yaml
echo "listners: []" >> $config
check "a broken file is refused" not systemctl reload hermes
check "... which says where" journal --grep "hermes.yaml:[0-9]+:[0-9]+.*listners"
check "... and what ran runs on" is 200 $proxy $site
check "... as far as systemd knows" is active systemctl is-active hermes
cp good.yaml $config
check "the mended file is taken" systemctl reload hermes

echo "-- journal"
check "events have fields" grep -q '"HERMES_EVENT":"ready".*' <(journal -o json HERMES_EVENT=ready)
check "workers write there too" grep -q . <(journal -o cat HERMES_ROLE=tunnel)
check "levels are priorities" not grep . <(journal -p err -o cat HERMES_ROLE=tunnel)
check "sandboxes are whole" not grep -i "landlock missing\|not confined\|sandbox off\|capabilities kept\|nobody" <(journal)

echo "-- processes"
has_history() { [ "$(hermes-admin --json config history | grep -o '"version":' | wc -l)" -ge 5 ] || { hermes-admin config history; return 1; }; }
# Every one of them, with kill -9.
kill_each() {
	local pid name
	for pid in $(pids); do
		name=$(ps -o comm= -p "$pid")
		kill -9 "$pid"
		check "$name killed: replaced" until_is 1 bash -c "hermes-admin status --check ready > /dev/null && ! kill -0 $pid 2> /dev/null && echo 1"
		check "... and serving" until_is 200 $proxy $site
	done
}
kill_each
check "the service was not restarted for that" is 0 prop NRestarts
check "the history is what it was" has_history
mkdir -p /run/systemd/system/hermes.service.d
# under cgroup v1 systemd may miss that the last process has gone, and wait for the time limit
printf '[Service]\nWatchdogSec=3\nTimeoutStopSec=3\n' > /run/systemd/system/hermes.service.d/watchdog.conf
systemctl daemon-reload
cp $config reachable.yaml
cat >> $config <<'YAML'
tunnels:
  - {name: hermes0, addresses: [10.8.0.1/24]}
YAML
sed -i 's/^listeners:/&\n  - {name: local, address: "unix:\/run\/hermes\/local.sock", accept: http}/' $config
check "reload with a Unix socket and a device" systemctl reload hermes
check "the fd store keeps sockets and queues" until_is 1 bash -c '[ "$(systemctl show -P NFileDescriptorStore hermes)" -ge 4 ] && echo 1'
index() { cat /sys/class/net/hermes0/ifindex; }
interface=$(index)
pid=$(prop MainPID)
knock
check "restart" systemctl restart hermes
check "another process" not is "$pid" prop MainPID
none_refused
check "the device is the same" is "$interface" index
check "it serves" is 200 $proxy $site
check "... at the Unix socket too" is 200 curl -s -o /dev/null -m 10 -w %{http_code} --unix-socket /run/hermes/local.sock $site
sleep 5
check "the watchdog is fed" is 0 prop NRestarts
knock
kill -STOP "$(prop MainPID)"
check "a hermesd that hangs is restarted" until_is 1 prop NRestarts
check "... and serves" until_is 200 $proxy $site
kill -KILL "$(prop MainPID)"
check "a hermesd that is killed is restarted" until_is 2 prop NRestarts
check "... and serves" until_is 200 $proxy $site
none_refused
check "the device is the same" is "$interface" index
cp reachable.yaml $config
check "reload without" systemctl reload hermes
check "the Unix socket is gone" not ls /run/hermes/local.sock
check "the fd store keeps no more than it needs" until_is 1 bash -c '[ "$(systemctl show -P NFileDescriptorStore hermes)" -lt 4 ] && echo 1'
rm -r /run/systemd/system/hermes.service.d
systemctl daemon-reload
sed -i 's/127.0.0.1:12000/127.0.0.1:12002/; s/^listeners:/&\n  - {name: local, address: "unix:\/run\/hermes\/local.sock", accept: http}/' $config
check "restart with another port" systemctl restart hermes
check "... which serves" is 200 ${proxy/12000/12002} $site
check "... and the one before is closed" not curl -s -m 2 http://127.0.0.1:12000/
sed -i 's/name: apps/name: programs/; s/name: local/name: of-this-machine/; s/12002/12000/' $config
systemctl restart hermes
sed -i 's/name: programs/name: apps/; s/name: of-this-machine/name: local/' $config
knock
check "restart with other names for the same addresses" systemctl restart hermes
none_refused
check "... is what the file says" grep -q " apps " <(hermes-admin listeners list | sed 's/^/ /')
cp reachable.yaml $config
check "restart without the Unix socket" systemctl restart hermes
check "... whose name is gone" not ls /run/hermes/local.sock
check "... which serves" is 200 $proxy $site

systemctl stop hermes
chown root:root /var/lib/hermes /var/lib/hermes/store.mdb*
systemctl start hermes
check "a store that came from elsewhere, root's, is taken" has_history

echo "-- devices and packet filter"
cat >> $config <<'YAML'
tunnels:
  - name: hermes0
    addresses: [10.8.0.1/24]
    networks: [{prefix: 10.9.0.0/16}]
YAML
sed -i 's/^listeners:/&\n  - {name: caught, address: "127.0.0.1:12345", accept: transparent, capture: {protocol: tcp, destinations: [203.0.113.0\/24], local: true}}/' $config
check "reload with a device and capture" systemctl reload hermes
check "the device is there" grep -q "10.8.0.1/24" <(ip addr show hermes0)
check "its route is there" grep -q hermes0 <(ip route show table 4823)
check "the packet filter's table is there" nft list table inet hermes
ip tuntap add dev taken mode tap
sed -i 's/name: hermes0/name: taken/' $config
check "what passes the check, but a worker refuses" hermesd -t
check "... fails the reload" not systemctl reload hermes
check "... and changes nothing" ip link show hermes0
cp good.yaml $config
check "reload without" systemctl reload hermes
check "the device is gone" not ip link show hermes0

echo "-- controller"
keys=/var/lib/hermes/keys
check "controller init" hermes-admin controller init --domain example.net --name c1 --address 127.0.0.1:9443
check "a second one changes nothing" not hermes-admin controller init --domain example.net --name c1 --address 127.0.0.1:9443
check "the configuration is root's" is "644 root root" stat -c "%a %U %G" $config
check "the keys are the workers' alone" is "700 hermes hermes" stat -c "%a %U %G" $keys
check "... each of them" is "600 hermes hermes" eval "stat -c '%a %U %G' $keys/*.key | sort -u"
check "hermesd -t" hermesd -t
check "systemctl restart" systemctl restart hermes
check "the roles that it asks for run" is "config-sync controller keeper policy router telemetry tun-bridge tunnel" roles
check "... as the user hermes" is_hermes
check "... whose state is theirs alone" is "700 hermes hermes" stat -c "%a %U %G" /var/lib/hermes/controller
node() { hermes-admin nodes list | awk '$1 == "c1" {print $2}'; }
check "nodes list: the node has found its own controller" until_is online node
check "controller status" hermes-admin controller status
token=$(hermes-admin controller token create --node alice | grep '^hermes1\.')
check "a token makes a machine a node" hermes-admin enroll https://127.0.0.1:9443 --token "$token" --node alice --config alice/hermes.yaml --state-dir alice/state
check "... once" not hermes-admin enroll https://127.0.0.1:9443 --token "$token" --node alice --config again/hermes.yaml --state-dir again/state
check "... whose configuration is root's" is "644 root root" stat -c "%a %U %G" alice/hermes.yaml
check "... and whose keys are the workers' alone" is "600 hermes hermes 700 hermes hermes" eval "stat -c '%a %U %G' alice/state/keys/node.key alice/state/keys | paste -sd ' '"
check "... hermesd -t" hermesd -t -c alice/hermes.yaml
check "domain.yaml would be taken" hermes-admin controller document check /usr/share/doc/hermes/examples/domain.yaml
cat > domain.yaml <<'YAML'
domain: example.net
nodes:
  - name: c1
    config:
      listeners: [{name: from-the-controller, address: "127.0.0.1:12001", accept: http}]
YAML
check "a document" hermes-admin controller document apply domain.yaml --wait
second="${proxy%12000}12001"
check "... is in force" is 200 $second $site
check "... beside what is the machine's own" is 200 $proxy $site
check "... as config show --origin says" grep -q "from-the-controller" <(hermes-admin config show --origin)
check "reload" systemctl reload hermes
kill_each
check "still the controller's" is 200 $second $site
check "nodes list" until_is online node

systemctl reset-failed hermes      # so many starts in a minute are a failure to systemd
echo "-- hot restart and upgrade, under traffic"
cat >> $config <<'YAML'
tunnels:
  - {name: hermes0, addresses: [10.8.0.1/24]}
YAML
sed -i 's/^listeners:/&\n  - {name: local, address: "unix:\/run\/hermes\/local.sock", accept: http}/' $config
check "reload with a Unix socket and a device" systemctl reload hermes
interface=$(index)
cp $config good.yaml
pid=$(prop MainPID)
version() { hermes-admin --json status | grep -o '"version":"[^"]*"' | head -n 1; }
before=$(version)
head -c 4000000 /dev/urandom > big
traffic &
asking=$!
curl -s -o got -m 300 --limit-rate 200k -p -x http://127.0.0.1:12000 ${site}big &
download=$!
knock
sleep 1
pids > pids
check "workers restart all" hermes-admin workers restart all
check "... replaced each" not grep -qxFf <(pids) pids
check "restart" hermes-admin restart
wait $download
check "a download that was there came to its end" cmp big got
check "the upgrade to a hermesd that is broken" eval "dpkg -i broken-hermesd.deb > dpkg.log 2>&1"
check "... says so" grep "cannot\|crashed" dpkg.log
check "... and how to go on" grep "what ran before runs on" dpkg.log
check "... in the journal too" journal --grep "restart refused"
check "... the one before runs" is "$before" version
check "the upgrade to a worker that is broken" eval "dpkg -i broken-tunnel.deb > dpkg.log 2>&1"
check "... says so" grep "tunnel" dpkg.log
check "... the one before serves" is 200 $proxy $site
check "dpkg takes the next version" dpkg -i next.deb
check "... which runs" is active systemctl is-active hermes
check "... in the same process" is "$pid" prop MainPID
check "... and is another version" not is "$before" version
touch quiet; wait $asking
check "no request failed ($(cat traffic))" served_all
none_refused
check "the device is the same" is "$interface" index
check "... with the configuration as it was" is 200 $proxy $site
check "... the controller's too" is 200 $second $site
check "... which is the file's" cmp good.yaml $config
check "... and its history" has_history
check "nodes list" until_is online node
check "the next document" hermes-admin controller document apply --comment again --wait domain.yaml
check "the service was not restarted for that" is 0 prop NRestarts
knock
check "restart, of what was replaced in place" systemctl restart hermes
check "another process" not is "$pid" prop MainPID
none_refused
check "the device is the same" is "$interface" index
check "nodes list" until_is online node
systemctl stop hermes
check "the device is gone" not ip link show hermes0
check "stopped, an upgrade" dpkg -i next.deb
check "... leaves it stopped" not systemctl is-active hermes
systemctl start hermes

echo "-- stop"
check "it runs again" is 200 $proxy $site
check "it stops" systemctl stop hermes
check "... without being killed" is success prop Result
check "nothing of it runs" not pgrep -x 'hermesd|hermes-.*'
check "the runtime folder is gone" not ls /run/hermes
check "nobody listens" not curl -s -m 2 http://127.0.0.1:12000/
systemctl start hermes

echo "-- purge"
journal --no-pager > journal
check "remove" dpkg -r hermes
check "nothing of it runs" not pgrep -x 'hermesd|hermes-.*'
check "the store was never thought damaged" not grep "moved aside\|store damaged" journal
check "configuration and state stay" ls $config /var/lib/hermes/store.mdb
check "purge" dpkg -P hermes
check "the user is gone" not getent passwd hermes
check "the group is gone" not getent group hermes
nothing() {
	systemctl daemon-reload
	find / -xdev -iname '*hermes*' -not -path '/test/*' -not -path '/proc/*' -not -path '/sys/*' 2> /dev/null | sort | diff before -
}
check "nothing is left" nothing
check "no unit is left" not systemctl cat hermes
kill $origin
touch complete
