#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make demo: the main job, step by step, on real programs: curl, nginx, MariaDB, two nodes. What is typed is shown after
# a $, what came back after it. Everything lives in a temporary folder and ends with this script. KEEP=1 keeps the folder.
set -u
here=$(dirname "$0")
# shellcheck source=tests/demo/lib.sh
. "$here/lib.sh"

# A port that nobody uses, below the ephemeral ones
next_port=18000
free_port() { while port_open $next_port; do next_port=$((next_port + 1)); done; printf -v "$1" %d $next_port; next_port=$((next_port + 1)); }

port_open 12000 && { echo "127.0.0.1:12000 is in use by another program; the demo needs it" >&2; trap - EXIT; rm -rf "$work"; exit 1; }
for name in EU US TLS OVERLAY DB DB_FRONT METRICS; do free_port "PORT_$name"; done

# --- what stands before the first step: certificates, servers, configurations
title "Setting up in $work"
echo "   certificates: an authority; one each for the nodes alice and ingress, and one for the shop"
mkdir "$work"/{tls,nginx,mariadb,alice,ingress}
for args in ca "node alice" "node ingress" "server shop DNS:SHOP"; do
	# shellcheck disable=SC2086
	"$root/tests/certs.sh" "$work/tls" $args || fail "certificates"
done

mkdir -p "$work"/nginx/{eu,us,shop}
echo "The film, from the European server" > "$work/nginx/eu/film.txt"
echo "The film, from the American server" > "$work/nginx/us/film.txt"
echo "<h1>The shop</h1>" > "$work/nginx/shop/index.html"
head -c 104857600 /dev/urandom > "$work/nginx/shop/big"
ln "$work/nginx/shop/big" "$work/nginx/eu/big"
sum=$(sha256sum < "$work/nginx/shop/big" | cut -d' ' -f1)

fill() {   # a template, with @PORT_x@ and @WORK@ filled in
	local text name
	text=$(cat "$1")
	for name in EU US TLS OVERLAY DB DB_FRONT METRICS; do
		local value=PORT_$name
		text=${text//@PORT_$name@/${!value}}
	done
	text=${text//@WORK@/$work}
	text=${text//@BOB@/$bob}
	text=${text//@USER@/$(id -un)}
	printf '%s\n' "$text"
}
bob=$(openssl passwd -6 builder)
fill "$here/nginx.conf" > "$work/nginx/nginx.conf"
fill "$here/alice.yaml" > "$work/alice/hermes.yaml"
fill "$here/ingress.yaml" > "$work/ingress/hermes.yaml"

echo "   nginx: two film servers over HTTP, and a shop over HTTPS with a file of 100 MB"
start nginx nginx -p "$work/nginx" -c "$work/nginx/nginx.conf" -e "$work/nginx/error.log"
echo "   MariaDB: a table of three films"
mkdir "$work/mariadb/data"
mariadb-install-db --no-defaults --force --datadir="$work/mariadb/data" --user="$(id -un)" --skip-test-db \
	--auth-root-authentication-method=normal --innodb-log-file-size=4M > "$work/mariadb/install.log" 2>&1 || fail "mariadb-install-db"
start mariadb mariadbd --no-defaults --datadir="$work/mariadb/data" --user="$(id -un)" --socket="$work/mariadb/s" \
	--port="$PORT_DB" --bind-address=127.0.0.1 --pid-file="$work/mariadb/pid" --skip-grant-tables --skip-name-resolve \
	--innodb-buffer-pool-size=16M --innodb-log-file-size=4M
wait_for nginx port_open "$PORT_TLS"
wait_for MariaDB port_open "$PORT_DB"
mariadb --no-defaults -S "$work/mariadb/s" -e "create database films; create table films.film (id int, title text);
	insert into films.film values (1, 'Metropolis'), (2, 'Nosferatu'), (3, 'Faust')" || fail "filling MariaDB"

A="-s $work/alice/run/admin.sock" I="-s $work/ingress/run/admin.sock"
for node in ingress alice; do
	mkdir "$work/$node"/{state,run}
	printf '   %s$ hermesd -c %s/hermes.yaml --state-dir %s/state --runtime-dir %s/run &%s\n' "$bold" $node $node $node "$plain"
	start $node hermesd -c "$work/$node/hermes.yaml" --state-dir "$work/$node/state" --runtime-dir "$work/$node/run"
	wait_for "$node's admin socket" test -S "$work/$node/run/admin.sock"
	hermes-admin -s "$work/$node/run/admin.sock" wait ready --timeout 20 > /dev/null || fail "$node is not ready"
done

# shellcheck source=tests/demo/steps.sh
. "$here/steps.sh"
printf '\n%sAll of it holds.%s\n' "$green" "$plain"
