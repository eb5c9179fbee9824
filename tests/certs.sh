#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A certificate authority for tests and the demo: EC P-256, one folder per authority.
#   certs.sh DIR ca [NAME]                 ca.crt, ca.key
#   certs.sh DIR node NAME [DOMAIN]        NAME.crt, NAME.key: SAN hermes://DOMAIN/node/NAME and NAME.DOMAIN
#   certs.sh DIR server NAME [SAN]...      a server's; SANs as DNS:x or IP:y (default DNS:NAME)
#   certs.sh DIR client NAME               a person's or program's (CN=NAME, clientAuth)
#   certs.sh DIR expired NAME [DOMAIN]     a node's, over since 2020
#   certs.sh DIR wrong-usage NAME [DOMAIN] a node's, for code signing only
#   certs.sh DIR revoke NAME               NAME.crt goes on the list
#   certs.sh DIR crl                       ca.crl
# OUT=name stores under another file name than NAME.
set -eu
[ $# -ge 2 ] || { sed -n '3,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1 verb=$2; shift 2
mkdir -p "$dir"; cd "$dir"

quiet() { local log; log=$("$@" 2>&1) || { printf '%s\n' "$log" >&2; return 1; }; }

authority_config() {
	cat > ca.cnf <<-CNF
	[ca]
	default_ca = c
	[c]
	database = index.txt
	new_certs_dir = issued
	certificate = ca.crt
	private_key = ca.key
	rand_serial = yes
	unique_subject = no
	default_md = sha256
	default_days = 30
	default_crl_days = 30
	policy = p
	[p]
	commonName = supplied
	[req]
	distinguished_name = dn
	[dn]
	CNF
}

# issue NAME "extension lines" [openssl ca options]
issue() {
	local name=$1 extensions=$2 out=${OUT:-$1}; shift 2
	printf '%b' "$extensions" > "$out.ext"
	quiet openssl req -config ca.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
		-keyout "$out.key" -out "$out.csr"
	quiet openssl ca -config ca.cnf -batch -notext -in "$out.csr" -out "$out.crt" -extfile "$out.ext" "$@"
	rm -f "$out.csr" "$out.ext"
}

node_san() { printf 'subjectAltName=URI:hermes://%s/node/%s,DNS:%s.%s' "$2" "$1" "$1" "$2"; }

case $verb in
ca)
	authority_config; mkdir -p issued; : > index.txt
	quiet openssl req -config ca.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
		-subj "/CN=${1:-Hermes test authority}" -addext basicConstraints=critical,CA:TRUE \
		-addext keyUsage=critical,keyCertSign,cRLSign -addext subjectKeyIdentifier=hash -keyout ca.key -out ca.crt ;;
node)
	issue "$1" "$(node_san "$1" "${2:-example.net}")\nextendedKeyUsage=serverAuth,clientAuth\n" ;;
server)
	name=$1; shift
	sans=$(IFS=,; echo "${*:-DNS:$name}")
	issue "$name" "subjectAltName=$sans\nextendedKeyUsage=serverAuth\n" ;;
client)
	issue "$1" "extendedKeyUsage=clientAuth\n" ;;
expired)
	issue "$1" "$(node_san "$1" "${2:-example.net}")\nextendedKeyUsage=serverAuth,clientAuth\n" \
		-startdate 20190101000000Z -enddate 20200101000000Z ;;
wrong-usage)
	issue "$1" "$(node_san "$1" "${2:-example.net}")\nextendedKeyUsage=codeSigning\n" ;;
revoke)
	quiet openssl ca -config ca.cnf -batch -revoke "$1.crt" ;;
crl)
	quiet openssl ca -config ca.cnf -gencrl -out ca.crl ;;
*)
	echo "certs.sh: unknown verb $verb" >&2; exit 2 ;;
esac
