# SPDX-License-Identifier: Apache-2.0
# The demo's steps; sourced by demo.sh.

title "1. A name that only the overlay knows, under a policy"
say "curl asks alice's proxy for VIDEO. alice's address space leads it to ingress, over HTTP/2 and TLS; ingress to a server."
run "curl -sS -x http://127.0.0.1:12000 -H 'token: admin' http://VIDEO/film.txt"
exits 0
shows "from the European server" "the page came through both nodes"
say "The policy 'video' reads the token header. With another token:"
run "curl -sS -i -x http://127.0.0.1:12000 -H 'token: guest' http://VIDEO/film.txt"
shows "^HTTP/1.1 403" "refused"
shows "^[Pp]roxy-[Ss]tatus:.*video" "Proxy-Status names the policy"

title "2. End to end encrypted, through CONNECT"
run "curl -sS -x http://127.0.0.1:12000 --cacert tls/ca.crt https://SHOP/"
exits 0
shows "The shop" "curl checked the shop's own certificate, nobody on the way can read"
run "curl -sS -x http://127.0.0.1:12000 --cacert tls/ca.crt https://SHOP/big -o big -w '%{http_code}, %{size_download} bytes, %{speed_download} bytes/s\n'"
exits 0
shows "^200, 104857600 bytes" "100 MB arrived"
run "sha256sum big"
shows "^$sum " "its checksum is the file's"

title "3. The same name, asked by another user, leads to another server"
say "bob proves himself to the proxy by password; his address space leads VIDEO elsewhere."
run "curl -sS -x http://bob:builder@127.0.0.1:12000 -H 'token: admin' http://VIDEO/film.txt"
exits 0
shows "from the American server" "bob's VIDEO is another one"
run "curl -sS -o /dev/null -w '%{http_code}\n' -x http://bob:wrong@127.0.0.1:12000 -H 'token: admin' http://VIDEO/film.txt"
shows "^407" "a wrong password is no user"

title "4. A database client that knows nothing of proxies"
run "mariadb --no-defaults -h 127.0.0.1 -P $PORT_DB_FRONT --protocol=TCP films -e 'select * from film'"
exits 0
shows "Nosferatu" "each connection to alice's port became a CONNECT to MYSQL:3306"

title "5. Seeing and steering"
run "hermes-admin $A status" 20
exits 0
shows "alice" "alice is up"
say "A slow download, to look at and to leave unharmed:"
printf '   %s$ curl -x http://127.0.0.1:12000 -H "token: admin" --limit-rate 10M http://VIDEO/big -o slow &%s\n' "$bold" "$plain"
curl -sS -x http://127.0.0.1:12000 -H "token: admin" --limit-rate 10M http://VIDEO/big -o "$work/slow" &
slow=$!
sleep 1
run "hermes-admin $A flows list"
exits 0
shows "[Vv][Ii][Dd][Ee][Oo]" "the download is listed"
run "hermes-admin $A route explain --listener apps --header token=guest http://VIDEO/film.txt" 20
shows "video" "which policy would refuse, and why"
run "hermes-admin $A route explain --listener apps --header token=admin http://VIDEO/film.txt" 20
exits 0
shows "ingress" "and which way it would take"
run "curl -sS http://127.0.0.1:$PORT_METRICS/metrics | grep -E '^hermes_[a-z_]*(flows|requests|bytes)[a-z_]*_total' | head -n 8"
shows "^hermes_.*_total.* [0-9]" "OpenMetrics"
say "A new name, applied while the download runs:"
sed 's/^      SHOP:.*/&\n      STORE: {cluster: ingress, add_headers: {alias: store}}/' "$work/alice/hermes.yaml" > "$work/new.yaml"
run "diff alice/hermes.yaml new.yaml"
run "hermes-admin $A config apply new.yaml"
exits 0
run "hermes-admin $A config history"
exits 0
run "curl -sS -x http://127.0.0.1:12000 http://STORE/"
shows "The shop" "the new name leads somewhere at once"
kill -0 $slow 2> /dev/null || fail "the download ended before the change"
say "A broken configuration:"
sed 's/carry: h2/carry: h9/' "$work/new.yaml" > "$work/broken.yaml"
run "hermes-admin $A config apply broken.yaml"
exits 1
shows "broken.yaml:[0-9]+:[0-9]+: .*carry" "refused, with line and column"
run "curl -sS -x http://127.0.0.1:12000 -H 'token: admin' http://VIDEO/film.txt"
shows "from the European server" "the old one is still in force"
say "And the download that began before all this:"
wait $slow || fail "the download failed"
run "sha256sum slow"
shows "^$sum " "unharmed"
