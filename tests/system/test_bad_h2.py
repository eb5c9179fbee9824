# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 that means harm (ANCHORS.md section 3): each kind ends in GOAWAY ENHANCE_YOUR_CALM (or a plain refusal) soon, costs
little memory, and hurts nobody else. On links between nodes the offending stream goes, not everybody's."""
import socket
import struct
import time
from types import SimpleNamespace

import pytest

import hermes
import servers
from rawh2 import (CALM, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, H2, PING, PREFACE, PRIORITY, PROTOCOL,
                   REFUSED, SETTINGS, Watch, client_tls, frame, reset, sanitizer_small_quarantine, setting, window)

EVENTS = 2000          # far more than the 1,100 after which it must be over


@pytest.fixture(scope="module")
def target(session_tmp, certs, web):
    """A node with a listener for programs, one for nodes, and one with short patience."""
    ports = SimpleNamespace(http=hermes.free_port(), overlay=hermes.free_port(), hasty=hermes.free_port(),
                            hasty_overlay=hermes.free_port())
    folder = session_tmp / "bad-h2"
    folder.mkdir()
    limits = {"header_timeout": "1s", "handshake_timeout": "1s"}
    with servers.TcpEcho(mode="silent") as silent:
        config = {
            "node": {"name": "ingress", "domain": "example.net", "tunnel_workers": 1},
            "identity": certs.identity("ingress"),
            "listeners": [
                {"name": "apps", "address": f"127.0.0.1:{ports.http}", "accept": "http"},
                {"name": "from-nodes", "address": f"127.0.0.1:{ports.overlay}", "accept": "overlay"},
                {"name": "hasty", "address": f"127.0.0.1:{ports.hasty}", "accept": "http", "limits": limits},
                {"name": "hasty-overlay", "address": f"127.0.0.1:{ports.hasty_overlay}", "accept": "overlay",
                 "limits": limits}],
            "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]},
                         {"name": "silent", "carry": "tcp", "endpoints": [f"127.0.0.1:{silent.port}"]}],
            "routes": [{"match": {"authority": "silent"}, "cluster": "silent"}, {"match": {}, "cluster": "web"}],
        }
        node = hermes.Node("ingress", config, folder, env=sanitizer_small_quarantine())
        try:
            tls = client_tls(certs, certs.node("mallory", out="mallory-h2"))
            yield SimpleNamespace(node=node, tls=tls, **vars(ports))
            node.stop()
        finally:
            node.kill()


@pytest.fixture(params=["http", "overlay"])
def connect(request, target):
    """Opens connections of one kind: connect(settings=...)."""
    opened = []

    def make(**how):
        h2 = H2(getattr(target, request.param), tls=target.tls if request.param == "overlay" else None, **how)
        opened.append(h2)
        return h2
    make.kind = request.param
    yield make
    for h2 in opened:
        h2.close()


@pytest.fixture
def watch(target):
    with Watch(target.node, target.http, "http://www/index.html") as watch:
        yield watch


def flood(h2, frames, first=0):
    """Sends frames (an iterable of bytes) until the peer says stop; how many were sent."""
    sent, batch = first, b""
    for data in frames:
        batch += data
        sent += 1
        if sent % 50 == 0:
            if not h2.send(batch):
                break
            batch = b""
            h2.read(0.001)
            if h2.goaway():
                break
    h2.send(batch)
    return sent


def must_be_calmed(h2, timeout=15):
    goaway = h2.wait_goaway(timeout)
    assert goaway, f"no GOAWAY; {h2.closed=} last frames {h2.frames[-3:]}"
    assert goaway[1] == CALM, goaway
    assert h2.wait(lambda h: h.closed, 15) or h2.closed, "the connection stays open"


def test_polite_clients_are_served(connect):
    h2 = connect()
    assert h2.get(1, path="/index.html") == 200
    assert h2.get(3, path="/no-such-page") == 404


def test_rapid_reset(connect, watch):
    h2 = connect()
    sent = flood(h2, (h2.headers(1 + 2 * i) + reset(1 + 2 * i) for i in range(EVENTS)))
    if connect.kind == "http":
        must_be_calmed(h2)
    else:       # a link that many users share
        assert sent == EVENTS and not h2.goaway()
        assert h2.get(1 + 2 * EVENTS, path="/index.html") == 200


@pytest.mark.parametrize("kind", ["empty", "small", "large"])
def test_continuation_flood(connect, watch, kind):
    h2 = connect()
    size = {"empty": 0, "small": 10, "large": 16384}[kind]
    # literal fields without indexing, "a: b...", as many as fit
    piece = {"empty": b"", "small": b"\x00\x01a\x06bbbbbb", "large": (b"\x00\x01a\x7f\x00" + b"b" * 127) * 124}[kind]
    assert len(piece) <= max(size, 16384)
    h2.send(frame(HEADERS, END_STREAM, 1, h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":path", "/"),
                                                             (":authority", "www")])))
    flood(h2, (frame(CONTINUATION, 0, 1, piece) for _ in range(20 * EVENTS)))
    assert h2.wait(lambda h: h.goaway() or h.code(1) is not None or h.closed, 15), "it may go on for ever"


@pytest.mark.parametrize("how", ["window overflow", "upper case", "length mismatch"])
def test_made_to_reset(connect, watch, how):
    """MadeYouReset: errors that make us reset the streams."""
    def frames(h2):
        for i in range(EVENTS):
            stream = 1 + 2 * i
            if how == "window overflow":
                yield h2.headers(stream, method="POST", end=False) + window(stream, 0x7fffffff)
            elif how == "upper case":
                yield h2.headers(stream, ("Upper", "x"))
            else:
                yield h2.headers(stream, ("content-length", "5"), method="POST", end=False) + frame(DATA, END_STREAM, stream)
    h2, sent = connect(), 0
    for data in frames(h2):
        h2.send(data)
        sent += 1
        # stays below the limit of concurrent streams: waits for its resets
        if sent % 40 == 0 and not h2.wait(lambda h: h.goaway() or h.code(2 * sent - 1) is not None, 10) or h2.goaway():
            break
    if connect.kind == "http":
        must_be_calmed(h2)
        assert sent <= 1100
    else:
        assert sent == EVENTS and not h2.goaway(), h2.goaway()
        assert h2.get(1 + 2 * EVENTS, path="/index.html") == 200


def test_settings_flood(connect, watch):
    h2 = connect()
    h2.acks = False
    flood(h2, (setting((4, 65535)) for _ in range(EVENTS)))
    must_be_calmed(h2)


def test_settings_that_are_never_acknowledged(connect, watch):
    """Ours, by the peer: no harm, it is served."""
    h2 = connect()
    h2.acks = False
    assert h2.get(1, path="/index.html") == 200


def test_ping_flood(connect, watch):
    h2 = connect()
    flood(h2, (frame(PING, 0, 0, struct.pack(">Q", i)) for i in range(EVENTS)))
    must_be_calmed(h2)


def test_ping_flood_of_one_who_does_not_read(connect, watch):
    """The answers must not pile up."""
    h2 = connect()
    h2.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for i in range(100):
        if not h2.send(frame(PING, 0, 0, bytes(8)) * 1000):
            break
    must_be_calmed(h2)


def test_empty_data_flood(connect, watch):
    h2 = connect()
    h2.send(h2.headers(1, authority="silent:1", method="CONNECT", end=False))
    assert h2.answer(1) == 200
    flood(h2, (frame(DATA, 0, 1) for _ in range(EVENTS)))
    must_be_calmed(h2)


def test_padding_only_data_flood(connect, watch):
    """DATA that is all padding carries nothing either; the window bounds it, or it counts."""
    h2 = connect()
    h2.send(h2.headers(1, authority="silent:1", method="CONNECT", end=False))
    assert h2.answer(1) == 200
    flood(h2, (frame(DATA, 8, 1, b"\x00") for _ in range(EVENTS)))
    must_be_calmed(h2)


def test_data_on_a_stream_that_is_over(connect, watch):
    """Either it is counted or it is cheap: who sends it hurts nobody."""
    h2 = connect()
    assert h2.get(1, path="/index.html") == 200
    flood(h2, (frame(DATA, 0, 1, b"x") for _ in range(EVENTS)))
    assert h2.wait(lambda h: h.goaway() or h.closed, 5) or h2.get(3, path="/index.html") == 200


def test_priority_flood(connect, watch):
    h2 = connect()
    flood(h2, (frame(PRIORITY, 0, 1 + 2 * (i % 1000), struct.pack(">IB", 0, i % 256)) for i in range(EVENTS)))
    must_be_calmed(h2)


def test_priority_of_many_idle_streams_costs_no_memory(connect, watch):
    h2 = connect()
    flood(h2, (frame(PRIORITY, 0, 1 + 2 * i, struct.pack(">IB", 0, 15)) for i in range(900)))
    assert h2.get(10001, path="/index.html") == 200


@pytest.mark.parametrize("references", [1000, 16000])
def test_hpack_bomb(connect, watch, references):
    """One indexed field of 4,000 bytes, named a thousand times and more on each of many streams."""
    h2 = connect()
    first = b"\x82\x86\x84\x01\x03www"       # GET, http, /, and an authority that is not indexed
    bomb = b"\x40\x01x" + b"\x7f" + bytes([0x80 | ((3900 - 127) & 127), (3900 - 127) >> 7]) + b"y" * 3900
    block = first + bomb
    h2.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block[:16384]))
    assert h2.answer(1) is not None
    for i in range(1, 60):
        stream = 1 + 2 * i
        # the table's newest entry is number 62
        if not h2.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, first + b"\xbe" * min(references, 16300))):
            break
        answer = h2.answer(stream, 10)
        assert answer == 431 or answer[0] in ("reset", "goaway"), answer
        if h2.closed or h2.goaway():
            break


def test_zero_windows_on_many_streams(connect, watch):
    """100 streams ask for 8 MiB each, and let nothing pass: little is buffered, and it does not last."""
    h2 = connect(settings=[(4, 0)])
    h2.send(b"".join(h2.headers(1 + 2 * i, path="/big") for i in range(100)))
    must_be_calmed(h2, 30)


@pytest.mark.seconds(180)
def test_many_connections_that_take_nothing(target):
    """Together they would hold more than the worker's whole budget of payload: others are served all the same."""
    with Watch(target.node, target.http, "http://www/big", grow=300 * 1024) as watch:
        held = []
        for _ in range(15):
            h2 = H2(target.http, settings=[(4, 0)])
            h2.send(b"".join(h2.headers(1 + 2 * i, path="/big") for i in range(60)))    # below what looks like an attack
            held.append(h2)
        served, end = watch.served, time.monotonic() + 12
        while time.monotonic() < end:
            for h2 in held:
                h2.read(0.02)
        assert watch.served > served + 3
        for h2 in held:
            h2.close()


def test_one_byte_windows_on_many_streams(connect, watch):
    h2 = connect(settings=[(4, 1)])
    h2.send(b"".join(h2.headers(1 + 2 * i, path="/big") for i in range(100)))
    for _ in range(200):
        if not h2.send(b"".join(window(1 + 2 * i, 1) for i in range(100))):
            break
        h2.read(0.02)
        if h2.goaway():
            break
    must_be_calmed(h2, 30)


def test_zero_window_on_few_streams_is_only_slow(connect, watch):
    """Somebody who pauses three downloads is no attacker."""
    h2 = connect(settings=[(4, 0)])
    h2.send(b"".join(h2.headers(1 + 2 * i, path="/index.html") for i in range(3)))
    end = time.monotonic() + 3
    while time.monotonic() < end:
        h2.read()
    assert not h2.goaway() and not h2.closed
    h2.send(b"".join(window(1 + 2 * i, 65535) for i in range(3)))
    assert h2.wait(lambda h: all(any(f[1] & END_STREAM for f in h.of(DATA, 1 + 2 * i)) for i in range(3)), 10)


def test_windows_of_64_kib_are_no_attack(connect, watch):
    """RFC 9113's initial window, filled anew each time that it is empty: many honest clients do just that."""
    h2, size, connection = connect(), 8 << 20, 65535
    for i in range(20):
        number, left, mine = 1 + 2 * i, size, 65535
        h2.send(h2.headers(number, path="/big"))
        while left:
            assert h2.read(10) and not h2.goaway(), (i, left, h2.goaway())
            arrived = sum(len(f[3]) for f in h2.of(DATA))
            h2.frames = [f for f in h2.frames if f[0] != DATA]
            left, mine, connection = left - arrived, mine - arrived, connection - arrived
            if not mine:
                h2.send(window(number, 65535))
            if not connection:
                h2.send(window(0, 65535))
            mine, connection = mine or 65535, connection or 65535


@pytest.mark.parametrize("upto", [1, 3, 14, 23])
def test_preface_that_never_ends(target, watch, upto):
    started = time.monotonic()
    for port, tls in ((target.hasty, None), (target.hasty_overlay, target.tls)):
        with H2(port, tls=tls, preface=False) as h2:
            h2.send(PREFACE[:upto])
            assert h2.wait(lambda h: h.closed, 10) or h2.closed, "it stays open"
    assert time.monotonic() - started < 18


def test_preface_byte_by_byte_does_not_prolong(target, watch):
    with H2(target.hasty, preface=False) as h2:
        started = time.monotonic()
        for byte in PREFACE[:23]:
            h2.send(bytes([byte]))
            h2.read(0.3)
            if h2.closed:
                break
        assert h2.closed and time.monotonic() - started < 6


def test_preface_without_settings(target, watch):
    """The preface's SETTINGS never come: closed in time."""
    with H2(target.hasty, preface=False) as h2:
        h2.send(PREFACE)
        assert h2.wait(lambda h: h.closed or h.goaway(), 10)


def test_header_block_that_never_ends_in_time(target, watch):
    with H2(target.hasty) as h2:
        h2.send(frame(HEADERS, END_STREAM, 1, h2.encoder.encode([(":method", "GET")])))
        assert h2.wait(lambda h: h.closed or h.goaway(), 10)


def test_handshake_that_never_ends(target, watch):
    with socket.create_connection(("127.0.0.1", target.hasty_overlay), 10) as s:
        s.sendall(b"\x16\x03\x01\x02\x00\x01")
        s.settimeout(10)
        assert s.recv(100) == b""


def test_stream_101(target, watch):
    """One stream above the limit is refused, or its connection ended; a limit is told."""
    with H2(target.http) as h2:
        assert h2.wait(lambda h: h.of(SETTINGS), 5)
        advertised = {k: v for f in h2.of(SETTINGS) for k, v in struct.iter_unpack(">HI", f[3])}
        assert advertised[3] == 100
        for i in range(100):
            h2.send(h2.headers(1 + 2 * i, method="CONNECT", authority="silent:1", end=False))
        assert h2.wait(lambda h: all(h.status(1 + 2 * i) == 200 for i in range(100)), 20)
        # nghttp2 ends the connection of whoever does not keep to an acknowledged limit
        assert h2.get(201, method="CONNECT", authority="silent:1", end=False) in (
            ("reset", REFUSED), ("reset", PROTOCOL), ("goaway", PROTOCOL), ("goaway", CALM))


def test_100_streams_and_no_more_are_served(target, watch):
    with H2(target.http) as h2:
        for i in range(100):
            h2.send(h2.headers(1 + 2 * i, method="CONNECT", authority="silent:1", end=False))
        assert h2.wait(lambda h: all(h.status(1 + 2 * i) == 200 for i in range(100)), 20)
        h2.send(reset(1))
        assert h2.get(201, path="/index.html") == 200


def test_garbage_frames(connect, watch):
    """Each ends the connection or is ignored, as RFC 9113 has it; nothing else."""
    ends = [frame(SETTINGS, 0, 0, b"12345"), frame(PING, 0, 0, b"123"), frame(DATA, 0, 0, b"x"), window(0, 0),
            frame(SETTINGS, 0, 1), frame(CONTINUATION, 0, 1), setting((4, 0x80000000)), setting((5, 1)),
            b"\xff\xff\xff" + frame(DATA, 0, 1)[3:], frame(HEADERS, END_HEADERS, 1, b"\xff" * 100), frame(5, 4, 1, b"\0\0\0\2"),
            frame(HEADERS, END_HEADERS, 2, b"\x82"), window(0, 0x7fffffff), reset(99)]
    for data in ends:
        h2 = connect()
        h2.send(data)
        assert h2.wait(lambda h: (h.goaway() and h.goaway()[1]) or h.closed, 10), data
    h2 = connect()
    h2.send(frame(0x77, 0xff, 1, b"unknown") + setting((0x1234, 5)))
    assert h2.get(1, path="/index.html") == 200


@pytest.mark.seconds(120)
def test_stalled_flows_make_room(node, web):
    """A small budget, and more streams that take nothing than it has room for: they end, others are served."""
    port = hermes.free_port()
    small = node("small", {
        "node": {"name": "small", "domain": "example.net", "tunnel_workers": 1, "memory": "4MiB"},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
        "clusters": [{"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]}],
        "routes": [{"match": {}, "cluster": "web"}]}, env=sanitizer_small_quarantine())
    held = []
    for _ in range(4):
        h2 = H2(port, settings=[(4, 0)])
        h2.send(b"".join(h2.headers(1 + 2 * i, path="/big") for i in range(60)))
        held.append(h2)
    small.wait_log("memory is short", 20)
    hermes.wait_for(lambda: hermes.curl("http://www/index.html", proxy=f"127.0.0.1:{port}", timeout=5).status == 200, 90)
    assert any(h2.wait(lambda h: any(h.code(1 + 2 * i) is not None for i in range(60)), 2) for h2 in held)
    for h2 in held:
        h2.close()
    answer = hermes.curl("http://www/big", proxy=f"127.0.0.1:{port}")
    assert answer.status == 200 and len(answer.body) == 8 << 20
