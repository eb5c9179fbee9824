#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# deps.sh GROUP...: installs the Debian packages of these groups (deps.txt) that are missing; says nothing where none is.
# Services that come along are neither started nor left enabled.
set -eu
list=$(dirname "$0")/deps.txt
[ $# -gt 0 ] || { echo "usage: deps.sh GROUP... (groups of $list)" >&2; exit 2; }

wanted=()
for group; do
	mapfile -t -O "${#wanted[@]}" wanted < <(sed -n "s/^$group //p" "$list" | tr -s ' ' '\n')
done
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | head -c 9)" = installed ]; }
missing=()
for package in "${wanted[@]}"; do
	installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing packages, and only root can install them: ${missing[*]}" >&2
	exit 1
fi

log=$(mktemp)
guard=/usr/sbin/policy-rc.d
made=no
cleanup() { [ $made = no ] || rm -f $guard; rm -f "$log"; }
trap cleanup EXIT
if [ ! -e $guard ]; then     # exit 101: start nothing (Debian policy 9.3.3.2)
	made=yes
	printf '#!/bin/sh\nexit 101\n' > $guard
	chmod 755 $guard
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
run() { "$@" > "$log" 2>&1 < /dev/null || { cat "$log" >&2; return 1; }; }
run apt-get update -q
run apt-get install -y -q --no-install-recommends "${missing[@]}"
for package in "${missing[@]}"; do
	case $package in
	nginx-light) service=nginx ;;
	mariadb-server) service=mariadb ;;
	haproxy) service=haproxy ;;
	nghttp2-proxy) service=nghttpx ;;
	openvpn | ocserv) service=$package ;;
	*) continue ;;
	esac
	systemctl disable "$service" > /dev/null 2>&1 || update-rc.d "$service" disable > /dev/null 2>&1 || :
done
