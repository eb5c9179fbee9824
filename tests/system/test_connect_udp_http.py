# SPDX-License-Identifier: Apache-2.0
"""CONNECT-UDP (RFC 9298) with raw ends: HTTP/1.1 and HTTP/2 clients, one node that ends the tunnel, and another before it
that passes it on over either version; and raw next hops, for what a node says and believes as a client."""
import contextlib
import itertools
import queue
import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
import pytest

import hermes
import rawh2
from capsules import IP, UDP, Reader, UdpServer, capsule, datagram, udp_path, varint
from pairs import TIMEOUT, Cut, H1Client, H2Client, Upstream

CLIENTS = {"h1": H1Client, "h2": H2Client}
COUNTER = itertools.count(1)


def everywhere(way):
    return {"match": {"headers": {"x-way": way}}, "cluster": way}


class World:
    """Ports: .far (a listener for programs at the node that ends tunnels), .front (at the node before it). The header x-way
    chooses: over-h1 and over-h2 to the far node; raw-h1 and raw-h2 to raw upstreams; end and shut at the far node."""


@pytest.fixture(scope="module")
def world(session_tmp, certs):
    w = World()
    folder = session_tmp / "udp-http"
    folder.mkdir()
    w.upstreams = {version: Upstream(version) for version in CLIENTS}
    w.far, w.front, link = (hermes.free_port() for _ in range(3))
    far = hermes.ingress_config(link, certs, clusters=[
        {"name": "end", "carry": "udp", "endpoints": "target", "allow_targets": ["loopback"]},
        {"name": "shut", "carry": "udp", "endpoints": "target"}])
    far["routes"] = [{"match": {"headers": {"x-end": "shut"}}, "cluster": "shut"}, {"match": {}, "cluster": "end"}]
    far["listeners"].append({"name": "programs", "address": f"127.0.0.1:{w.far}", "accept": "http"})
    front = hermes.alice_config(w.front, certs, link)
    front["clusters"] = [
        {**front["clusters"][0], "name": "over-h2"},
        {"name": "over-h1", "carry": "h1", "endpoints": [f"127.0.0.1:{w.far}"]},
        *({"name": f"raw-{v}", "carry": v, "endpoints": [f"127.0.0.1:{u.port}"]} for v, u in w.upstreams.items())]
    front["routes"] = [everywhere(c["name"]) for c in front["clusters"]]
    w.nodes = {"far": hermes.Node("ingress", far, folder), "front": hermes.Node("alice", front, folder)}
    for port in (w.far, w.front):
        hermes.wait_port(port)
    yield w
    for node in reversed(w.nodes.values()):
        node.stop()
    for upstream in w.upstreams.values():
        upstream.stop()


@pytest.fixture(scope="module")
def echo():
    server = UdpServer()
    yield server
    server.stop()


WAYS = ["direct", "over-h1", "over-h2"]


class Tunnel:
    """A request by a raw client, and the capsules of its tunnel."""

    def __init__(self, world, client, way, path, headers=(), protocol="connect-udp", authority="proxy.example"):
        self.call = CLIENTS[client](world.far if way == "direct" else world.front)
        way_header = [] if way == "direct" else [("x-way", way)]
        self.call.request("CONNECT", authority, path, [*way_header, ("capsule-protocol", "?1"), *headers], protocol=protocol)
        self.reader = Reader(self.call)

    def open(self):
        self.call.response()
        assert self.call.status == 200, (self.call.status, self.call.headers)
        names = [n for n, _ in self.call.headers]
        assert not {"content-length", "content-type", "transfer-encoding"} & set(names), self.call.headers
        assert [v for n, v in self.call.headers if n == "capsule-protocol"] == ["?1"]
        return self

    def send(self, payload, **how):
        self.call.data(datagram(payload, **how))

    def back(self, payload):
        """Sends it and gets it back."""
        self.send(payload)
        assert self.reader.datagram() == payload

    def works(self):
        self.back(b"ping %d" % next(COUNTER))

    def close(self):
        self.call.close()

    def __enter__(self):
        return self.open()

    def __exit__(self, *exc):
        self.close()


@contextlib.contextmanager
def h2_call(world, way, path, protocol):
    call = H2Client(world.front)
    yield call.request("CONNECT", "proxy.example", path, [("x-way", way)], protocol=protocol).response()
    call.close()


def tunnel(world, client, way, server, **how):
    return Tunnel(world, client, way, udp_path(server.host, server.port), **how)


both = pytest.mark.parametrize("client", CLIENTS)
all_ways = pytest.mark.parametrize("way", WAYS)


# --- what works ------------------------------------------------------------------------------------------------------------------

@both
@all_ways
def test_datagrams_there_and_back(world, echo, client, way):
    with tunnel(world, client, way, echo) as t:
        for payload in (b"one", b"", b"x" * 1200, b"y" * 9000, b"z" * 60000, b"last"):
            t.back(payload)
        for i in range(200):
            t.send(b"%d" % i)
        assert [t.reader.datagram() for _ in range(200)] == [b"%d" % i for i in range(200)]
        t.call.end()


@both
@pytest.mark.parametrize("way", ["direct", "over-h2"])
def test_an_ipv6_target(world, client, way):
    server = UdpServer("::1")
    with tunnel(world, client, way, server) as t:
        t.works()
    server.stop()


@both
def test_capsules_in_every_dress(world, echo, client):
    """Varints longer than needed; unknown types, however long, and unknown contexts are passed over; byte by byte."""
    with tunnel(world, client, "over-h2", echo) as t:
        for size in (1, 2, 4, 8):
            t.send(b"padded", size=size)
            assert t.reader.datagram() == b"padded"
        t.call.data(b"\x40\x00" + b"\x40\x03" + b"\x40\x00" + b"!")
        assert t.reader.datagram() == b"!"
        for kind in (0x17, 0x2575, (1 << 62) - 1):
            t.call.data(capsule(kind, b"?" * 100))
        t.call.data(capsule(0x1234, b"?" * 300000))
        t.send(b"unknown context", context=6)
        t.send(b"unknown context", context=(1 << 62) - 2)
        t.works()
        for byte in datagram(b"slowly"):
            t.call.data(bytes([byte]))
        assert t.reader.datagram() == b"slowly"


@both
@pytest.mark.parametrize("values", [[], ["?0"], ["?1", "?1"], ["yes"], ["?1;x=2"]])
def test_capsule_protocol_may_say_anything(world, echo, client, values):
    call = CLIENTS[client](world.far)
    call.request("CONNECT", "proxy.example", udp_path(echo.host, echo.port), [("capsule-protocol", v) for v in values],
                 protocol="connect-udp")
    assert call.response().status == 200
    call.data(datagram(b"hello"))
    assert Reader(call).datagram() == b"hello"
    call.close()


def test_what_is_sent_before_the_101_is_not_lost(world, echo):
    with socket.create_connection(("127.0.0.1", world.far), TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(f"GET {udp_path(echo.host, echo.port)} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
                     "Upgrade: connect-udp\r\n\r\n".encode() + datagram(b"early"))
        got = b""
        while datagram(b"early") not in got:
            got += sock.recv(4096)
        assert got.startswith(b"HTTP/1.1 101 ")


def test_an_unknown_upgrade_is_passed_over(world):
    """It is a request without an upgrade then."""
    answered = world.upstreams["h1"]
    answered.handler = lambda e: (answered.said.put((e.method, e.get("upgrade"))), e.head(200))
    with socket.create_connection(("127.0.0.1", world.front), TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Way: raw-h1\r\nConnection: upgrade\r\nUpgrade: connect-tcp\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert answered.told() == ("GET", None)


# --- the far end -----------------------------------------------------------------------------------------------------------------

def test_only_the_target_may_answer(world):
    """From another address or port nothing comes in."""
    def answer(data, source, sock):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"stranger", source)                                      # another port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", 0))
            other.sendto(b"stranger", source)                                      # another address
        sock.sendto(data, source)
    server = UdpServer(answer=answer)
    with tunnel(world, "h2", "direct", server) as t:
        for _ in range(3):
            t.works()
    server.stop()


@both
def test_a_datagram_that_does_not_fit_is_dropped(world, echo, client):
    """65,527 bytes is legal in the capsule, but more than IPv4 carries."""
    with tunnel(world, client, "direct", echo) as t:
        t.send(b"x" * 65527)
        t.works()


@both
@all_ways
def test_a_payload_over_65527_bytes_ends_the_tunnel(world, echo, client, way):
    with tunnel(world, client, way, echo) as t:
        t.works()
        t.send(b"x" * 65528)
        with pytest.raises((Cut, OSError, EOFError)):
            t.reader.datagram()


@both
@all_ways
def test_an_end_inside_a_capsule_is_malformed(world, echo, client, way):
    with tunnel(world, client, way, echo) as t:
        t.works()
        t.call.data(datagram(b"half of it")[:-3])
        t.call.end()
        if client == "h2":
            with pytest.raises(Cut):
                t.reader.datagram()
        else:
            with pytest.raises((Cut, OSError, EOFError)):
                t.reader.datagram()


@both
@all_ways
def test_an_end_between_capsules_is_one(world, echo, client, way):
    with tunnel(world, client, way, echo) as t:
        t.works()
        t.call.end()
        assert t.call.read_all() == b""


@both
@all_ways
def test_a_closed_port_ends_the_tunnel(world, client, way):
    """ICMP port unreachable."""
    with Tunnel(world, client, way, udp_path("127.0.0.1", hermes.free_port(socket.SOCK_DGRAM))) as t:
        t.send(b"anybody?")
        with pytest.raises((Cut, OSError, EOFError)):
            t.reader.datagram()
    far = world.nodes["far"]
    hermes.wait_for(lambda: not far.admin("flows", "list", json=True)["flows"], message="the flow's end")


def test_dont_fragment_and_no_ecn(world):
    """As the packets say (RFC 9298 3.1, 5.1)."""
    seen = queue.Queue()
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    raw.bind(("lo", 0))
    raw.settimeout(TIMEOUT)
    server = UdpServer(answer=lambda *_: seen.put(1))
    with tunnel(world, "h2", "direct", server) as t:
        t.send(b"look at me")
        seen.get(timeout=TIMEOUT)
        while True:
            packet = raw.recv(65536)[14:]
            if packet[9] == 17 and packet.endswith(b"look at me"):
                break
        assert packet[1] & 3 == 0, "ECN"
        assert packet[6] & 0x40, "DF"
    server.stop()
    raw.close()


# --- refusals --------------------------------------------------------------------------------------------------------------------

def refused(world, client, way, path, protocol="connect-udp", headers=()):
    t = Tunnel(world, client, way, path, protocol=protocol, headers=headers)
    call = t.call.response()
    status, proxy_status, capsules = call.status, call.get("proxy-status"), call.get("capsule-protocol")
    t.close()
    assert capsules is None
    return status, proxy_status


@both
@pytest.mark.parametrize("rest", [
    "a/0/", "a/65536/", "a/080/", "a/x/", "a//", "/53/", "a/53", "2001:db8::1/53/", "2001%253Adb8%253A%253A1/53/",
    "fe80%3A%3A1%25eth0/53/", "a%2Fb/53/", "a%00/53/", "0x7f.1/53/", "2130706433/53/", "127.1/53/", "a%3A5/53/", "a/53/?x"])
def test_bad_targets(world, client, rest):
    status, why = refused(world, client, "direct", UDP + rest)
    assert status == 400
    assert why.startswith("ingress; error=http_request_error")


@both
def test_other_paths(world, client):
    for path in ("/", "/masque?h=a&p=53", UDP.upper() + "a/53/"):
        assert refused(world, client, "direct", path)[0] == 404
    assert refused(world, client, "direct", IP + "*/*/")[0] == 404
    assert refused(world, client, "direct", UDP + "a/53/", protocol="connect-ip")[0] == 404


@both
@pytest.mark.parametrize("field", [("content-length", "0"), ("content-type", "text/plain")])
def test_a_request_that_speaks_of_a_body(world, echo, client, field):
    assert refused(world, client, "direct", udp_path(echo.host, echo.port), headers=[field])[0] == 400


@both
@all_ways
def test_addresses_that_may_not_be_reached(world, echo, client, way):
    """Said by the far node, heard by the client."""
    status, why = refused(world, client, way, udp_path(echo.host, echo.port), headers=[("x-end", "shut")])
    assert status == 403
    assert why.startswith("ingress; error=destination_ip_prohibited")


@both
@all_ways
def test_names_that_there_are_not(world, client, way):
    status, why = refused(world, client, way, udp_path("no-such-name.invalid", 53))
    assert status in (502, 504)
    assert why.startswith("ingress; error=dns_")


def test_no_tunnel_for_http_1_0(world, echo):
    with socket.create_connection(("127.0.0.1", world.far), TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(f"GET {udp_path(echo.host, echo.port)} HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\n"
                     "Upgrade: connect-udp\r\n\r\n".encode())
        assert b" 101 " not in sock.recv(4096).splitlines()[0]


@pytest.mark.parametrize("fields,status", [
    ([(":method", "GET"), (":protocol", "connect-udp")], ("reset", 400)),
    ([(":method", "CONNECT"), (":protocol", "connect-udp"), (":path", None)], ("reset", 400)),
    ([(":method", "CONNECT"), (":protocol", "connect-udp"), (":scheme", None)], ("reset", 400)),
    ([(":method", "CONNECT"), (":protocol", "connect-udp"), (":authority", None)], ("reset", 400)),
])
def test_malformed_extended_connect(world, echo, fields, status):
    """RFC 8441 4: a stream error, or 400."""
    head = {":method": "CONNECT", ":scheme": "https", ":authority": "proxy", ":path": udp_path(echo.host, echo.port)}
    head.update(fields)
    with rawh2.H2(world.far) as client:
        client.send(client.block(1, [(n, v) for n, v in head.items() if v is not None], end=False))
        answer = client.answer(1)
        assert answer == ("reset", rawh2.PROTOCOL) or answer == 400, answer
        # the connection lives
        assert client.get(3, path="/", authority="127.0.0.1:1") in (403, 502, 503)


# --- a node between --------------------------------------------------------------------------------------------------------------

raw_ways = pytest.mark.parametrize("version", CLIENTS)


def through(world, client, version, handler, host="target.example", port=53, **how):
    world.upstreams[version].handler = handler
    return Tunnel(world, client, f"raw-{version}", udp_path(host, port), **how)


@both
@all_ways
@pytest.mark.parametrize("protocol", ["Connect-UDP", "CONNECT-UDP"])
def test_protocols_in_any_case(world, echo, client, way, protocol):
    """RFC 9110 7.8. The target is that of the path then, which is what policies see, whatever :authority says."""
    with tunnel(world, client, way, echo, protocol=protocol) as t:
        t.works()
    path = udp_path(echo.host, echo.port)
    assert refused(world, client, way, path, protocol, [("x-end", "shut")])[0] == 403
    assert refused(world, client, way, path + "x", protocol)[0] == 400


def test_unknown_protocols_stay_what_they_are(world):
    """Over HTTP/2 they are passed on, and end where nobody speaks them."""
    up = world.upstreams["h2"]

    def handler(exchange):
        up.said.put((exchange.protocol, exchange.path))
        exchange.head(200)
        exchange.end()
    up.handler = handler
    with h2_call(world, "raw-h2", "/x", "strange") as call:
        assert up.told() == ("strange", "/x") and call.status == 200
    with h2_call(world, "over-h2", "/x", "strange") as call:
        assert call.status in (501, 503) and call.get("proxy-status").startswith("ingress; error=")


@both
@raw_ways
def test_the_request_as_it_goes_on(world, client, version):
    """The same target in the path, the next hop's own authority, end-to-end fields as they came, capsules untouched."""
    up = world.upstreams[version]
    strange = capsule(0x1234, b"?" * 70000, 8) + capsule(0x17, b"", 8) + datagram(b"x", 9, 4)
    total = len(strange)

    def handler(exchange):
        up.said.put((exchange.method, exchange.protocol, exchange.authority, exchange.path, dict(exchange.headers)))
        exchange.head(200, [("hermes-tunnel", 'segments, later=?1'), ("capsule-protocol", "?1")])
        got = b""
        while len(got) < total:
            got += exchange.read()
        up.said.put(got)
        exchange.data(got)
        exchange.end()

    with through(world, client, version, handler, "2001:db8::5", headers=[("hermes-tunnel", "segments, received=7")]) as t:
        method, protocol, authority, path, headers = up.told()
        assert (method, protocol, path) == ("CONNECT", "connect-udp", udp_path("2001:db8::5", 53))
        assert authority == f"127.0.0.1:{up.port}"
        assert headers["capsule-protocol"] == "?1" and headers["hermes-tunnel"] == "segments, received=7"
        assert not {"content-length", "content-type", "transfer-encoding"} & set(headers)
        assert t.call.get("hermes-tunnel") == "segments, later=?1"
        for part in (strange[:3], strange[3:40000], strange[40000:]):
            t.call.data(part)
        assert up.told() == strange
        assert t.call.read_all() == strange


@both
@raw_ways
@pytest.mark.parametrize("asked,sent", [("*/*/", "*/*/"), ("10.1.2.3%2F8/017/", "10.0.0.0%2F8/17/"),
                                        ("fd00%3A%3A1/*/", "fd00%3A%3A1%2F128/*/"), ("Far.Example./6/", "far.example/6/")])
def test_ip_tunnels_go_on(world, client, version, asked, sent):
    """RFC 9484: the same, with its own path; targets and protocols in their one spelling."""
    up = world.upstreams[version]

    def handler(exchange):
        up.said.put((exchange.protocol, exchange.path, exchange.authority))
        exchange.head(200)
        exchange.data(exchange.read())
        exchange.end()
    up.handler = handler
    with Tunnel(world, client, f"raw-{version}", IP + asked, protocol="connect-ip") as t:
        assert up.told() == ("connect-ip", IP + sent, f"127.0.0.1:{up.port}")
        t.call.data(capsule(1, b"whatever"))
        assert t.call.read_all() == capsule(1, b"whatever")


@both
@pytest.mark.parametrize("rest", ["*/256/", "*/x/", "10.0.0.0%2F33/*/", "10.0.0.0/8/*/", "::1/*/", "fe80%3A%3A1%25eth0/*/", "*/*", "a%00/*/"])
def test_bad_ip_targets(world, client, rest):
    assert refused(world, client, "direct", IP + rest, protocol="connect-ip")[0] == 400


@both
@raw_ways
@pytest.mark.parametrize("status", [200, 204, 226, 299])
def test_any_2xx_opens_a_classic_tunnel(world, client, version, status):
    """RFC 9110 9.3.6"""
    if (version, status) == ("h2", 204):
        pytest.skip("nghttp2 takes nothing after a 204")

    def handler(exchange):
        if version == "h1":
            exchange.out = exchange.framing = "tunnel"
            exchange.done = False
            exchange._head(f"HTTP/1.1 {status} So be it", [])
        else:
            exchange.connection.h2.send_headers(exchange.number, [(":status", str(status))])
            exchange.connection.flush()
        exchange.data(exchange.read())
        exchange.end()
    world.upstreams[version].handler = handler
    call = CLIENTS[client](world.front).request("CONNECT", "target.example:22", headers=[("x-way", f"raw-{version}")])
    assert call.response().status == status
    call.data(b"bytes")
    assert call.read_all() == b"bytes"
    call.close()


@both
@pytest.mark.parametrize("protocol", [None, "connect-udp"])
def test_a_tunnel_that_ends_with_its_head(world, client, protocol):
    """200 with END_STREAM: open, and the next hop has nothing to say. What the client sends still goes there."""
    up = world.upstreams["h2"]

    def handler(exchange):
        exchange.connection.h2.send_headers(exchange.number, [(":status", "200")], end_stream=True)
        exchange.connection.flush()
        exchange._finished = (exchange.number,)
        up.said.put(exchange.read_all())
    up.handler = handler
    path = udp_path("target.example", 53) if protocol else "/"
    call = CLIENTS[client](world.front).request("CONNECT", "target.example:53", path, [("x-way", "raw-h2")], protocol=protocol)
    assert call.response().status == 200
    assert call.read_all() == b""
    call.data(datagram(b"only up"))
    call.end()
    assert up.told() == datagram(b"only up")
    call.close()


@both
@raw_ways
def test_the_real_refusal_reaches_the_client(world, client, version):
    def handler(exchange):
        exchange.head(403, [("proxy-status", "far.example; error=http_request_denied; details=\"not you\""),
                            ("capsule-protocol", "?1")], body=4)
        exchange.data(b"why?")
        exchange.end()
    t = through(world, client, version, handler)
    call = t.call.response()
    assert call.status == 403
    assert call.get("proxy-status").startswith("far.example; error=http_request_denied")
    assert call.get("capsule-protocol") is None
    assert call.read_all() == b"why?"
    t.close()


@both
@pytest.mark.parametrize("status,fields", [(204, []), (205, []), (206, []), (200, [("content-type", "text/plain")])])
def test_what_opens_nothing_over_h2(world, client, status, fields):
    """RFC 9297 3.2: malformed with capsules. (A Content-Length nghttp2 takes off every 2xx to CONNECT, as RFC 9110 9.3.6 says.)"""
    def handler(exchange):
        exchange.connection.h2.send_headers(exchange.number, [(":status", str(status)), *fields])
        exchange.connection.flush()
    t = through(world, client, "h2", handler)
    assert t.call.response().status == 502
    assert "http_protocol_error" in t.call.get("proxy-status")
    t.close()


UPGRADE = "Connection: Upgrade\r\nUpgrade: connect-udp\r\n"


@both
@pytest.mark.parametrize("answer", [
    "200 OK\r\nContent-Length: 0\r\n", "204 None\r\n", f"101 S\r\n{UPGRADE}Content-Length: 0\r\n", "101 S\r\nConnection: Upgrade\r\n",
    "101 S\r\nConnection: Upgrade\r\nUpgrade: connect-ip\r\n", "101 S\r\nUpgrade: connect-udp\r\n",
    f"101 S\r\n{UPGRADE}Transfer-Encoding: chunked\r\n"])
def test_what_opens_nothing_over_h1(world, client, answer):
    def handler(exchange):
        exchange.out = "close"
        exchange._send(f"HTTP/1.1 {answer}\r\n".encode())
        exchange.read_all()
    t = through(world, client, "h1", handler)
    assert t.call.response().status == 502
    assert "http_upgrade_failed" in t.call.get("proxy-status")
    t.close()


@both
def test_nothing_ahead_of_the_101(world, client):
    """What the client sent before the tunnel is open waits here: a next hop that does not upgrade would take it for a
    request."""
    up = world.upstreams["h1"]

    def handler(exchange):
        exchange.sock.settimeout(0.5)
        try:
            ahead = exchange.sock.recv(100)
        except TimeoutError:
            ahead = b""
        exchange.sock.settimeout(TIMEOUT)
        up.said.put(ahead)
        exchange.head(200)
        up.said.put(exchange.read())
        exchange.end()
    t = through(world, client, "h1", handler)
    t.send(b"early")
    assert up.told() == b""
    assert up.told() == datagram(b"early")
    t.close()


class SettingsUpstream:
    """An HTTP/2 server that sends its SETTINGS when told, with or without extended CONNECT. .requests: heads of requests."""

    def __init__(self, extended, wait):
        self.extended, self.go, self.requests = extended, threading.Event(), []
        if not wait:
            self.go.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        self.go.wait(TIMEOUT)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.config.validate_inbound_headers = False
        if self.extended:
            connection.local_settings = h2.settings.Settings(client=False, initial_values={
                h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        while (data := sock.recv(65536)):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self.requests.append(dict(event.headers))
                    connection.send_headers(event.stream_id, [(":status", "200")])
            sock.sendall(connection.data_to_send())


@pytest.mark.parametrize("extended", [True, False])
def test_extended_connect_waits_for_the_setting(session_tmp, certs, extended):
    up = SettingsUpstream(extended, wait=True)
    w = World()
    w.front = hermes.free_port()
    config = hermes.alice_config(w.front, certs, up.port)
    config["clusters"][0].pop("tls")
    with hermes.Node(f"settings-{next(COUNTER)}", {**config, "node": {"name": "alice"}}, session_tmp):
        hermes.wait_port(w.front)
        t = Tunnel(w, "h2", "", udp_path("target.example", 53))
        time.sleep(0.5)
        assert not up.requests
        up.go.set()
        t.call.response()
        if extended:
            assert t.call.status == 200
            assert up.requests[0][":protocol"] == "connect-udp"
        else:
            assert t.call.status == 502
            assert "http_upgrade_failed" in t.call.get("proxy-status")
            assert not up.requests
        t.close()


# --- one tunnel among many -------------------------------------------------------------------------------------------------------

@both
@all_ways
def test_tunnels_beside_each_other(world, echo, client, way):
    tunnels = [tunnel(world, client, way, echo).open() for _ in range(20)]
    for i, t in enumerate(tunnels):
        t.send(b"%d" % i)
    for i, t in enumerate(tunnels):
        assert t.reader.datagram() == b"%d" % i
    for t in tunnels[::2]:
        t.close()
    for t in tunnels[1::2]:
        t.works()
        t.close()


def test_streams_of_one_connection_beside_each_other(world, echo):
    """A malformed tunnel ends alone."""
    connection = H2Client(world.front).connection
    calls = []
    for _ in range(10):
        call = H2Client.__new__(H2Client)
        call.connection = connection
        call.request("CONNECT", "proxy.example", udp_path(echo.host, echo.port), [("x-way", "over-h2")], protocol="connect-udp")
        assert call.response().status == 200
        calls.append(call)
    calls[3].data(varint(0) + varint(70000) + b"\0")
    with pytest.raises(Cut):
        calls[3].read()
    for i, call in enumerate(calls):
        if i != 3:
            call.data(datagram(b"%d" % i))
            assert Reader(call).datagram() == b"%d" % i
    connection.sock.close()


def test_nothing_is_left(world):
    """The last of the module: all that the others opened is gone."""
    for node in reversed(world.nodes.values()):
        left = []
        try:
            hermes.wait_for(lambda node=node, left=left: left.append(node.admin("flows", "list", json=True)["flows"]) or not left[-1])
        except AssertionError:
            raise AssertionError(f"{node.name} still carries {left[-1]}") from None
