# SPDX-License-Identifier: Apache-2.0
"""Tunnels: what RFC 9110 9.3.6, RFC 8441 and RFC 9113 8.5 ask of classic and extended CONNECT, where others go wrong."""
import base64
import os
import queue
import select
import socket
import threading

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

import hermes
import servers
from pairs import H2Client, accept_key

UPGRADE = (b"GET http://web/ws HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n")


class Next:
    """A listening socket whose connections are handled by handler(socket) in threads; .said: what they put."""

    def __init__(self, handler):
        self.said = queue.Queue()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

        def serve(sock):
            sock.settimeout(20)
            try:
                handler(sock, self.said)
            except OSError as error:
                self.said.put(error)

        def accept():
            while True:
                try:
                    sock, _ = self.listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.close()


@pytest.fixture
def through(node, certs):
    """through(port, carry, nodes): the port of a listener behind which `nodes` nodes lead to 127.0.0.1:port."""
    def make(port, carry="h1", nodes=1):
        apps, overlay = hermes.free_port(), hermes.free_port()
        last = {"name": "next", "carry": carry, "endpoints": [f"127.0.0.1:{port}"]}
        if nodes == 1:
            node("one", {"node": {"name": "one", "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "1s"},
                         "listeners": [{"name": "apps", "address": f"127.0.0.1:{apps}", "accept": "http"}],
                         "clusters": [last], "routes": [{"match": {}, "cluster": "next"}]})
        else:
            inner = hermes.ingress_config(overlay, certs, clusters=[last], routes=[{"match": {}, "cluster": "next"}])
            outer = hermes.alice_config(apps, certs, overlay)
            for document in (inner, outer):
                document["node"]["drain_timeout"] = "1s"
            node("ingress", inner), node("alice", outer)
        return apps
    return make


def read_head(sock):
    got = b""
    while b"\r\n\r\n" not in got:
        data = sock.recv(1)
        if not data:
            break
        got += data
    return got


def client(port, request):
    sock = socket.create_connection(("127.0.0.1", port), 20)
    sock.settimeout(20)
    sock.sendall(request)
    return sock


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 201 Made\r\n\r\n", b"HTTP/1.0 299 x\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_any_2xx_opens_a_tunnel_that_has_no_length(through, answer, nodes):
    """RFC 9110 9.3.6: any 2xx; framing fields in it are ignored, and none leaves."""
    def handler(sock, said):
        said.put(read_head(sock))
        sock.sendall(answer + b"from there")
        said.put(sock.recv(100))
        sock.close()
    with Next(handler) as there:
        sock = client(through(there.port, "h1", nodes), b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\nfrom here")
        head = read_head(sock).lower()
        assert head.startswith(b"http/1.1 2") and b"content-length" not in head and b"transfer-encoding" not in head, head
        assert sock.recv(100) == b"from there"
        assert there.said.get(timeout=20).startswith(b"CONNECT x:1 HTTP/1.1\r\n")
        assert there.said.get(timeout=20) == b"from here"
        assert sock.recv(100) == b""


@pytest.mark.parametrize("nodes", [1, 2])
def test_nothing_is_sent_before_an_upgrade_is_answered(through, nodes):
    """What the client sends too early waits for the 101: before it, an HTTP/1.1 server reads it as another request."""
    def handler(sock, said):
        head = read_head(sock)
        key = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")][0]
        said.put(bool(select.select([sock], [], [], 0.5)[0]))
        sock.sendall(b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                     + accept_key(key.decode()).encode() + b"\r\n\r\n")
        said.put(sock.recv(100))
        sock.sendall(b"answer")
        sock.close()
    with Next(handler) as there:
        key = base64.b64encode(os.urandom(16))
        sock = client(through(there.port, "h1", nodes), UPGRADE % key + b"early frame")
        head = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101") and accept_key(key.decode()).encode() in head, head
        assert there.said.get(timeout=20) is False, "data before the 101"
        assert there.said.get(timeout=20) == b"early frame"
        assert sock.recv(100) == b"answer"


def h2_server(offer, said, sock, late=0.0):
    """One connection: tells each request's pseudo headers, answers 200 and echoes. late: seconds until its SETTINGS."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(
        client_side=False, header_encoding="utf-8", validate_inbound_headers=False))
    connection.local_settings = h2.settings.Settings(client=False, initial_values={
        h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: int(offer)})
    if late:
        said.put(("early", bool(wait_headers(sock, late))))
    connection.initiate_connection()
    sock.sendall(connection.data_to_send())
    if late:
        sock = Replayed(sock, wait_headers.seen)
    while (data := sock.recv(65536)):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                said.put(dict(event.headers))
                connection.send_headers(event.stream_id, [(":status", "200")])
            elif isinstance(event, h2.events.DataReceived):
                connection.send_data(event.stream_id, event.data)
        sock.sendall(connection.data_to_send())


class Replayed:
    def __init__(self, sock, first):
        self.sock, self.first = sock, first
        self.sendall = sock.sendall

    def recv(self, n):
        first, self.first = self.first, b""
        return first or self.sock.recv(n)


def wait_headers(sock, seconds):
    """Whether a HEADERS frame comes within the time; what came is in .seen."""
    seen = b""
    while select.select([sock], [], [], seconds)[0]:
        data = sock.recv(65536)
        if not data:
            break
        seen += data
    wait_headers.seen = seen
    at, found = 24, False
    while at + 9 <= len(seen):
        found |= seen[at + 3] == 1
        at += 9 + int.from_bytes(seen[at:at + 3], "big")
    return found


def test_extended_connect_waits_for_the_offer(through):
    """RFC 8441 3: not before the peer's SETTINGS say so."""
    with Next(lambda sock, said: h2_server(True, said, sock, late=0.7)) as there:
        sock = client(through(there.port, "h2"), UPGRADE % base64.b64encode(os.urandom(16)))
        assert there.said.get(timeout=20) == ("early", False)
        asked = there.said.get(timeout=20)
        assert (asked[":method"], asked[":protocol"], asked[":scheme"]) == ("CONNECT", "websocket", "http"), asked
        assert read_head(sock).startswith(b"HTTP/1.1 101")
        sock.sendall(b"echo")
        assert sock.recv(10) == b"echo"


@pytest.mark.parametrize("version", ["h1", "h2"])
def test_extended_connect_that_is_not_offered_is_not_used(through, version):
    with Next(lambda sock, said: h2_server(False, said, sock)) as there:
        port = through(there.port, "h2")
        if version == "h1":
            head = read_head(client(port, UPGRADE % base64.b64encode(os.urandom(16))))
            assert head.startswith(b"HTTP/1.1 5") and b"proxy-status" in head.lower(), head
        else:
            call = H2Client(port).request("CONNECT", "web", path="/ws", protocol="websocket").response()
            assert call.status in (501, 502) and call.get("proxy-status"), (call.status, call.headers)
        assert there.said.empty(), there.said.get()
        plain = read_head(client(port, b"GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n"))
        assert plain.startswith(b"HTTP/1.1 200"), plain


def test_an_unknown_protocol_is_refused_or_carried_as_it_is(through):
    """connect-udp is not built yet: its request never leaves as something else."""
    with Next(lambda sock, said: h2_server(True, said, sock)) as there:
        call = H2Client(through(there.port, "h2")).request("CONNECT", "web", path="/x", protocol="connect-udp").response()
        if call.status < 300:
            assert there.said.get(timeout=10)[":protocol"] == "connect-udp"
        else:
            assert call.get("proxy-status") and there.said.empty()


def test_no_2xx_before_the_target_is_connected(node, certs):
    """A backlog that is full: the client hears 504 in the end, and nothing before it; on both nodes."""
    apps, overlay = hermes.free_port(), hermes.free_port()
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    target = full.getsockname()
    fill = []
    for _ in range(3):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(target)
        fill.append(s)
    inner = hermes.ingress_config(overlay, certs)
    inner["clusters"][0]["connect_timeout"] = "1s"
    node("ingress", inner), node("alice", hermes.alice_config(apps, certs, overlay))
    name = f"127.0.0.1:{target[1]}".encode()
    head = read_head(client(apps, b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (name, name)))
    assert head.startswith(b"HTTP/1.1 504") and b"connection_timeout" in head, head
    for s in [full, *fill]:
        s.close()


def test_half_close_of_a_real_program_through_two_nodes(node, certs, tmp_path):
    """A TCP listener whose client sends its end first and still gets everything that follows (nc -N does so)."""
    tcp, overlay = hermes.free_port(), hermes.free_port()

    def handler(sock, said):
        got = b""
        while (data := sock.recv(65536)):
            got += data
        sock.sendall(b"%d bytes, " % len(got) + b"y" * 300000)
        sock.close()
    with Next(handler) as there:
        node("ingress", hermes.ingress_config(overlay, certs, clusters=[
            {"name": "there", "carry": "tcp", "endpoints": [f"127.0.0.1:{there.port}"]}],
            routes=[{"match": {"authority": "SERVICE:7"}, "cluster": "there"}]))
        outer = hermes.alice_config(hermes.free_port(), certs, overlay)
        outer["listeners"].append({"name": "tcp", "address": f"127.0.0.1:{tcp}", "accept": "tcp", "target": "SERVICE:7"})
        node("alice", outer)
        sock = client(tcp, b"x" * 200000)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while (data := sock.recv(65536)):
            got += data
        assert got.startswith(b"200000 bytes, ") and len(got) == 300014


def test_websocket_of_a_real_handshake_through_two_nodes(node, certs, odd):
    apps, overlay = hermes.free_port(), hermes.free_port()
    node("ingress", hermes.ingress_config(overlay, certs, clusters=[
        {"name": "odd", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}], routes=[{"match": {}, "cluster": "odd"}]))
    node("alice", hermes.alice_config(apps, certs, overlay))
    key = base64.b64encode(os.urandom(16))
    sock = client(apps, UPGRADE % key)
    assert read_head(sock).startswith(b"HTTP/1.1 101")
    mask = b"abcd"
    payload = b"hello websocket"
    frame = bytes([0x81, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    sock.sendall(frame)
    assert sock.recv(100) == bytes([0x81, len(payload)]) + payload
