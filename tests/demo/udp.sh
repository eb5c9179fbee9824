#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make demo-udp: an unchanged UDP video player over a path that loses packets, direct and through two nodes, side by side.
#   SECONDS_OF_VIDEO (20)   LOSS in percent (1)   KEEP=1 keeps the folder
set -u
here=$(dirname "$0")
# shellcheck source=tests/demo/lib.sh
. "$here/lib.sh"
need_root
length=${SECONDS_OF_VIDEO:-20} loss=${LOSS:-1}

title "A camera, a player, and a path between them that loses $loss % of all packets"
space camera player
link camera 10.9.0.1/24 player 10.9.0.2/24
for name in camera player; do
	in_space $name nft -f - <<- RULES || fail "nftables"
		table inet lossy {
			chain in {
				type filter hook input priority 0;
				iifname != lo numgen random mod 10000 < $((loss * 100)) counter drop
			}
		}
	RULES
done
say "Each end drops one packet in $((100 / loss)) at random, TCP's as well as UDP's. A sample of it, 500 pings:"
run "ip netns exec h$$-camera ping -q -i 0.002 -c 500 10.9.0.2 | tail -n 2"

for args in ca "node camera" "node player"; do
	# shellcheck disable=SC2086
	"$root/tests/certs.sh" "$work/tls" $args || fail "certificates"
done
for name in camera player; do
	cat > "$work/$name/hermes.yaml" <<- YAML
		node: {name: $name, domain: example.net}
		identity: {certificate: ../tls/$name.crt, key: ../tls/$name.key, authorities: [../tls/ca.crt]}
	YAML
done
cat >> "$work/camera/hermes.yaml" << 'YAML'
listeners:
  - {name: video, address: 127.0.0.1:5000, accept: udp, target: PLAYER:5000, add_headers: {user: camera}}
clusters:
  - {name: player, carry: h2, tls: {server_name: player.example.net}, endpoints: [10.9.0.2:8443]}
routes:
  - {match: {method: CONNECT-UDP, authority: PLAYER}, cluster: player}
YAML
cat >> "$work/player/hermes.yaml" << 'YAML'
listeners:
  - {name: from-nodes, address: 10.9.0.2:8443, accept: overlay}
clusters:
  - {name: screen, carry: udp, endpoints: [127.0.0.1:5000]}
routes:
  - {match: {method: CONNECT-UDP, authority: PLAYER}, cluster: screen}
YAML
say "The camera's node takes datagrams at 127.0.0.1:5000; the player's node hands them to the player, at its own port 5000:"
run "cat camera/hermes.yaml" 20
node player
node camera

title "The same video, sent twice at once: direct, and through the two nodes"
say "$length s of H.264 at 25 frames per second in an MPEG transport stream, 7 packets of it per datagram"
video=$work/video.ts
ffmpeg -loglevel error -f lavfi -i "testsrc2=size=640x360:rate=25:duration=$length" -c:v libx264 -preset veryfast -b:v 2M \
	-g 50 -bf 0 -f mpegts "$video" < /dev/null || fail "ffmpeg cannot encode"
frames=$(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 "$video" | grep -m 1 -o '[0-9]*')
watch() {   # watch NAME ADDRESS
	in_space player ffmpeg -nostdin -loglevel verbose -analyzeduration 1M -i \
		"udp://$2?timeout=4000000&fifo_size=100000&buffer_size=4000000" -map 0:v -fps_mode passthrough -f framecrc "$work/$1.frames" \
		> "$work/$1.log" 2>&1 &
	pids+=($!)
	eval "$1=$!"
}
play() { in_space camera ffmpeg -nostdin -loglevel error -re -i "$video" -c copy -f mpegts "udp://$1?pkt_size=1316" & }
watch direct 10.9.0.2:6000
watch overlay 127.0.0.1:5000
listening() { in_space player ss -lunH "sport = :$1" | grep -q .; }
wait_for "the player" listening 6000
wait_for "the player" listening 5000
printf '   %scamera$ ffmpeg -re -i video.ts -c copy -f mpegts udp://10.9.0.2:6000?pkt_size=1316 &%s\n' "$bold" "$plain"
play 10.9.0.2:6000
one=$!
printf '   %scamera$ ffmpeg -re -i video.ts -c copy -f mpegts udp://127.0.0.1:5000?pkt_size=1316 &%s\n' "$bold" "$plain"
play 127.0.0.1:5000
two=$!
sleep 3
run "hermes-admin -s camera/run/admin.sock flows list"
wait $one $two
# shellcheck disable=SC2154
wait "$direct" "$overlay" 2> /dev/null

received() { grep -vc '^#' "$work/$1.frames"; }
concealed() { grep -oE 'concealing [0-9]+ DC, [0-9]+ AC, [0-9]+ MV' "$work/$1.log" | awk '{n += $2} END {print n + 0}'; }
damaged() { grep -cE 'corrupt|concealing|error while decoding|Invalid|left block unavailable' "$work/$1.log"; }
printf '\n   %-22s %10s %10s %22s %18s\n' "" sent received "macroblocks concealed" "decoder complaints"
for way in direct overlay; do
	printf '   %-22s %10s %10s %22s %18s\n' "$way" "$frames" "$(received $way)" "$(concealed $way)" "$(damaged $way)"
done
echo
say "Nothing was dropped on the way into the overlay either:"
run "hermes-admin -s camera/run/admin.sock stats | grep dropped_datagrams"
[ "$(damaged direct)" -gt 0 ] || fail "the direct way shows no damage: is the path lossy at all?"
[ "$(received overlay)" = "$frames" ] || fail "$(received overlay) of $frames frames came through the overlay"
[ "$(damaged overlay)" = 0 ] || fail "the decoder complained about what came through the overlay"
printf '\n%sAll %s frames came through the overlay, none damaged.%s\n' "$green" "$frames" "$plain"
