#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build.sh BUILD VERSION: makes BUILD/hermes_VERSION_ARCH.deb of what `make install` laid out in BUILD/deb/debian/hermes.
# The same sources make the same package: every date in it is the changelog's.
set -eu
umask 022
build=$(realpath "$1") version=$2
here=$(realpath "$(dirname "$0")")
packaging=$(dirname "$here")
root=$build/deb/debian/hermes
cd "$build/deb"

# a version that the changelog does not know yet gets an entry, so that both agree
{
	if [ "$(dpkg-parsechangelog -l "$here/changelog" -S Version)" != "$version" ]; then
		printf 'hermes (%s) unstable; urgency=medium\n\n  * Built from the sources.\n\n' "$version"
		sed -n '/^ -- /{p;q}' "$here/changelog"
		echo
	fi
	cat "$here/changelog"
} > debian/changelog
cp "$here/control" debian/control
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -S Timestamp)
export SOURCE_DATE_EPOCH

strip --remove-section=.comment --remove-section=.note "$root"/usr/sbin/* "$root"/usr/bin/* "$root"/usr/libexec/hermes/*
install -D -m 644 "$packaging/examples/hermes.yaml" "$root/etc/hermes/hermes.yaml"
install -D -m 644 "$packaging/hermes.logrotate" "$root/etc/logrotate.d/hermes"
install -D -m 644 "$here/copyright" "$root/usr/share/doc/hermes/copyright"
gzip -9nc debian/changelog > "$root/usr/share/doc/hermes/changelog.gz"
find "$root/usr/share/man" -name '*.[1-8]' -exec gzip -9n {} +
ln -s hermes-admin "$root/usr/share/bash-completion/completions/hermesd"

mkdir "$root/DEBIAN"
dpkg-shlibdeps "$root"/usr/sbin/* "$root"/usr/bin/* "$root"/usr/libexec/hermes/*
dpkg-gencontrol -phermes -Pdebian/hermes
install -m 755 "$here/postinst" "$here/prerm" "$here/postrm" "$root/DEBIAN/"
(
	cd "$root"
	find etc -type f -printf '/%p\n' | sort > DEBIAN/conffiles
	find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums
)
dpkg-deb --build --root-owner-group -Zxz "$root" "$build" > /dev/null
echo "$1/hermes_${version}_$(dpkg --print-architecture).deb"
