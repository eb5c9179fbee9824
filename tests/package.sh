#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# package.sh PACKAGE.deb: lintian, then the package's life in a container that boots systemd with a network of its own
# (tests/package/inside.sh). Root. The container's Debian is fetched once, from where this machine gets its packages, into
# HERMES_BUILD/package/base; later runs need no network. Ends with "N passed, N failed".
set -eu
deb=$(realpath "$1")
work=$(realpath "${HERMES_BUILD:-build}")/package
here=$(realpath "$(dirname "$0")")
seconds=600                       # for everything that the container does
[ "$(id -u)" = 0 ] || { echo "package.sh: needs root" >&2; exit 1; }
mkdir -p "$work"

echo "== lintian"
lintian --fail-on error "$deb" && lint=0 || lint=1

# What the package depends on lies in the base, since the container has no network.
depends=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | awk '{print $1}' | sort -u | paste -sd,)
base() {
	local mirror
	mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' | awk '$1 == "bookworm" && $2 == "main" {print $3; exit}')
	echo "== a Debian for the container"
	rm -rf "$work/base.part"
	debootstrap --variant=minbase --include="systemd-sysv,dbus,curl,iproute2,nftables,procps,python3,$depends" \
		bookworm "$work/base.part" "$mirror" > "$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log" >&2; return 1; }
	rm -f "$work/base.part"/var/cache/apt/archives/*.deb
	echo "$depends" > "$work/base.part/depends"
	rm -rf "$work/base"
	mv "$work/base.part" "$work/base"
}
[ "$(cat "$work/base/depends" 2> /dev/null)" = "$depends" ] || base

# The next version: the same sources with a later number, which programs tell.
next_version() {
	local build=$work/build version
	version=$(dpkg-deb -f "$deb" Version)+next
	echo "== the next version"
	rm -rf "$build"
	mkdir -p "$build"
	cp -a "$(dirname "$deb")/obj" "$build/"
	grep -rl HERMES_VERSION --include='*.c' ipc store supervisor workers | sed "s,.*,$build/obj/&,; s,\.c$,.o," | xargs rm -f
	make --no-print-directory -s BUILD="$build" VERSION="$version" deb > "$work/next.log" 2>&1 || { tail "$work/next.log" >&2; return 1; }
	mv "$build"/hermes_*.deb "$root/test/next.deb"
}

# Versions in between of which one program is cut off in the middle: broken PROGRAM-IN-THE-PACKAGE PACKAGE.deb
broken() {
	local tree=$work/broken
	rm -rf "$tree"
	dpkg-deb -R "$deb" "$tree"
	truncate -s 100000 "$tree/$1"
	sed -i 's/^Version:.*/&+broken/' "$tree/DEBIAN/control"
	dpkg-deb --build --root-owner-group -Znone "$tree" "$root/test/$2" > /dev/null
	rm -rf "$tree"
}

root=$work/root
rm -rf "$root"
cp -a --reflink=auto "$work/base" "$root"
mkdir -p "$root/test/tls"
cp "$deb" "$root/test/hermes.deb"
cp "$here"/package/* "$root/test/"
next_version
broken usr/sbin/hermesd broken-hermesd.deb
broken usr/libexec/hermes/hermes-tunnel broken-tunnel.deb
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=example \
	-keyout "$root/test/tls/key" -out "$root/test/tls/certificate" 2> /dev/null
cat > "$root/etc/systemd/system/package-test.service" <<'UNIT'
[Unit]
Description=The life of the package
[Service]
Type=exec
ExecStart=/bin/bash /test/inside.sh
StandardOutput=file:/test/out
StandardError=inherit
ExecStopPost=/bin/touch /test/done
ExecStopPost=/bin/systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../package-test.service "$root/etc/systemd/system/multi-user.target.wants/"
echo package-test > "$root/etc/hostname"
echo 127.0.0.1 localhost package-test > "$root/etc/hosts"

echo "== in the container"
hierarchy=()
[ -e /sys/fs/cgroup/cgroup.controllers ] || hierarchy=(UNIFIED_CGROUP_HIERARCHY=0)
env "${hierarchy[@]}" timeout -k 20 $seconds systemd-nspawn -q -b -D "$root" -M "hermes-package-$$" --register=no --keep-unit --private-network \
	--system-call-filter="seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self" --resolv-conf=off --timezone=off --console=pipe < /dev/null > "$work/console.log" 2>&1 || :
rmdir "/run/systemd/nspawn/propagate/hermes-package-$$" 2> /dev/null || :
cat "$root/test/out" 2> /dev/null || { echo "the container did not boot:" >&2; tail -n 20 "$work/console.log" >&2; }
passed=$(grep -c '^ok ' "$root/test/out" 2> /dev/null) || passed=0
failed=$(grep -c '^FAILED ' "$root/test/out" 2> /dev/null) || failed=0
[ -e "$root/test/complete" ] || { echo "FAILED: the container's tests did not come to their end"; failed=$((failed + 1)); }
cp "$root/test/journal" "$work/journal.log" 2> /dev/null || :
rm -rf "$root"
echo "$passed passed, $((failed + lint)) failed (journal and console: $work)"
[ $((failed + lint)) = 0 ]
