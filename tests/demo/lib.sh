# SPDX-License-Identifier: Apache-2.0
# What the demos share: showing what is typed and what came back, starting programs and ending them. Sourced; $here is the
# folder of the demo, $work a temporary folder that ends with it (KEEP=1 keeps it).
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$root" && cd "${HERMES_BUILD:-build}" && pwd) || exit 1
PATH=$build/bin:$PATH:/usr/sbin:/sbin
work=$(mktemp -d /tmp/hermes-demo-XXXXXX)
chmod 755 "$work"
pids=()
spaces=()
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY no_proxy NO_PROXY

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; else bold='' green='' red='' plain=''; fi

cleanup() {
	local i pid space
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2> /dev/null; done
	for pid in "${pids[@]}"; do
		for i in {1..100}; do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
		kill -9 "$pid" 2> /dev/null && echo "had to be killed: $pid" >&2
	done
	wait 2> /dev/null
	for space in "${spaces[@]}"; do ip netns del "$space" 2> /dev/null; done
	[ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP PIPE

title() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '\n   %s\n' "$1"; }
fail() {
	printf '%s   does not hold: %s%s\n' "$red" "$1" "$plain" >&2
	local log
	for log in "$work"/*/log; do [ ! -s "$log" ] || { echo "--- ${log#"$work"/}" >&2; tail -n 15 "$log" >&2; }; done
	exit 1
}
# run COMMAND [lines]: types it, shows the first lines of what came back; $out and $status keep all of it
run() {
	printf '   %s$ %s%s\n' "$bold" "$1" "$plain"
	out=$(cd "$work" && eval "$1" 2>&1)
	status=$?
	printf '%s\n' "$out" | head -n "${2:-12}" | cut -c1-150 | sed 's/^/     /'
	local lines
	lines=$(printf '%s\n' "$out" | wc -l)
	[ "$lines" -le "${2:-12}" ] || printf '     ... (%d lines)\n' "$lines"
}
shows() { grep -qE -- "$1" <<< "$out" || fail "expected to see: $1"; printf '   %sok%s %s\n' "$green" "$plain" "$2"; }
exits() { [ "$status" = "$1" ] || fail "exit status $status instead of $1"; }
start() { local name=$1; shift; "$@" > "$work/$name/log" 2>&1 < /dev/null & pids+=($!); }
port_open() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }
wait_for() {
	local what=$1 i
	shift
	for i in {1..300}; do "$@" 2> /dev/null && return; sleep 0.1; done
	fail "$what did not come up in 30 s"
}

# --- networks of namespaces, for the demos that have them: named h<our pid>-NAME
need_root() { [ "$(id -u)" = 0 ] || { echo "this demo makes network namespaces: it needs root" >&2; exit 1; }; }
space() {
	local name
	for name; do
		ip netns add "h$$-$name" || fail "network namespace $name"
		spaces+=("h$$-$name")
		ip -n "h$$-$name" link set lo up
		mkdir -p "$work/$name"
	done
}
in_space() { local name=$1; shift; ip netns exec "h$$-$name" "$@"; }
# link A 10.9.0.1/24 B 10.9.0.2/24: a cable between two namespaces; the interface is called after the other end
link() {
	ip -n "h$$-$1" link add "$3" type veth peer name "$1" netns "h$$-$3" || fail "link $1 - $3"
	ip -n "h$$-$1" address add "$2" dev "$3"
	ip -n "h$$-$3" address add "$4" dev "$1"
	ip -n "h$$-$1" link set "$3" up
	ip -n "h$$-$3" link set "$1" up
}
# node NAME: hermesd with NAME/hermes.yaml in the namespace NAME; admin NAME ARGS... speaks to it
node() {
	mkdir -p "$work/$1"/{state,run}
	printf '   %s%s$ hermesd -c %s/hermes.yaml%s\n' "$bold" "$1" "$1" "$plain"
	start "$1" ip netns exec "h$$-$1" hermesd -c "$work/$1/hermes.yaml" --state-dir "$work/$1/state" --runtime-dir "$work/$1/run"
	wait_for "$1's admin socket" test -S "$work/$1/run/admin.sock"
	admin "$1" wait ready --timeout 20 > /dev/null || fail "$1 is not ready"
}
admin() { local name=$1; shift; hermes-admin -s "$work/$name/run/admin.sock" "$@"; }
