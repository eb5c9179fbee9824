# SPDX-License-Identifier: Apache-2.0
"""Next hops that mean harm: the client gets a clear answer, memory stays bounded, and nobody else notices."""
import contextlib
import socket
import struct
import threading
import time
from types import SimpleNamespace

import hpack
import pytest

import hermes
from hermes import curl
from rawh2 import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PUSH_PROMISE, SETTINGS,
                   Watch, frame, reset, sanitizer_small_quarantine, setting, window)


class Script:
    """A server that does, on each connection, what `play` says: play(socket), after whatever `greet` did."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port, self.play, self.played, self.open = self.listener.getsockname()[1], None, 0, set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.run, args=(client, self.play), daemon=True).start()

    def run(self, client, play):
        self.open.add(client)
        self.played += 1
        client.settimeout(20)
        with contextlib.suppress(OSError), client:
            play(client)
        self.open.discard(client)

    def now(self, play):
        """Ends all connections, so that the next request opens one, and that is played to."""
        for client in list(self.open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)
        self.play, self.played = play, 0

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture(scope="module")
def target(session_tmp, odd):
    ports = SimpleNamespace(http=hermes.free_port())
    h1, h2 = Script(), Script()
    folder = session_tmp / "bad-upstream"
    folder.mkdir()
    patience = {"timeout": {"request": "3s"}}
    node = hermes.Node("up", {
        "node": {"name": "up", "domain": "example.net", "tunnel_workers": 1},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{ports.http}", "accept": "http"}],
        "clusters": [{"name": "origin", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]},
                     {"name": "h1", "carry": "h1", "endpoints": [f"127.0.0.1:{h1.port}"]},
                     {"name": "h2", "carry": "h2", "endpoints": [f"127.0.0.1:{h2.port}"]}],
        "routes": [{"match": {"authority": "h1"}, "cluster": "h1", **patience},
                   {"match": {"authority": "h2"}, "cluster": "h2", **patience}, {"match": {}, "cluster": "origin"}],
    }, folder, env=sanitizer_small_quarantine())
    try:
        yield SimpleNamespace(node=node, h1=h1, h2=h2, **vars(ports))
        node.stop()
    finally:
        node.kill()
        h1.stop()
        h2.stop()


@pytest.fixture
def watch(target):
    with Watch(target.node, target.http, "http://origin/echo") as watch:
        yield watch


def ask(target, host, *args):
    return curl(f"http://{host}/x", *args, proxy=f"127.0.0.1:{target.http}", timeout=20)


def refused(answer):
    """Told by us, with a reason; or, where the response had begun, cut short so that the client knows."""
    if answer.status in (502, 503, 504):
        return "proxy-status" in answer.headers and "error=" in answer.headers["proxy-status"]
    return answer.exit in (18, 52, 55, 56, 92)


# --- HTTP/1 ------------------------------------------------------------------------------------------------------------

def head(data):
    def play(s):
        s.recv(65536)
        s.sendall(data)
        time.sleep(0.2)
    return play


def forever(first, piece):
    def play(s):
        s.recv(65536)
        s.sendall(first)
        for _ in range(200_000):
            s.sendall(piece)
    return play


OK = b"HTTP/1.1 200 OK\r\n"
BAD_H1 = {
    "nothing": lambda s: s.recv(65536) and None,
    "garbage": head(b"\0\1\2\3" * 100 + b"\r\n\r\n"),
    "TLS": head(b"\x15\x03\x03\x00\x02\x02\x28"),
    "HTTP/0.9": head(b"<html>hello</html>\r\n"),
    "HTTP/2": head(b"\0\0\0\4\0\0\0\0\0" * 10),
    "status 99": head(b"HTTP/1.1 99 Odd\r\n\r\n"),
    "status 1000": head(b"HTTP/1.1 1000 Odd\r\n\r\n"),
    "status abc": head(b"HTTP/1.1 abc Odd\r\n\r\n"),
    "LF in a name": head(OK + b"a\nb: c\r\nContent-Length: 0\r\n\r\n"),
    "NUL in a value": head(OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n"),
    "folded": head(OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    "blank before the colon": head(OK + b"Content-Length : 0\r\n\r\n"),
    "two lengths": head(OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "length and chunked": head(OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "huge length": head(OK + b"Content-Length: 99999999999999999999\r\n\r\nabc"),
    "unknown coding": head(OK + b"Transfer-Encoding: odd\r\n\r\nabc"),
    "bad chunk": head(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "short": head(OK + b"Content-Length: 100\r\n\r\nabc"),
    "101 unasked": head(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes"),
    "endless head": forever(OK, b"X: " + b"a" * 1000 + b"\r\n"),
    "endless line": forever(OK + b"X: ", b"a" * 1000),
    "endless 1xx": forever(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"),
    "endless chunk extension": forever(OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a" * 1000),
    "endless trailers": forever(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"a" * 1000 + b"\r\n"),
}


@pytest.mark.parametrize("case", BAD_H1)
def test_bad_h1(target, watch, case):
    target.h1.now(BAD_H1[case])
    answer = ask(target, "h1")
    assert target.h1.played and refused(answer), answer


def test_split_response_is_not_believed(target, watch):
    """More than was promised is not the next response."""
    target.h1.now(head(OK + b"Content-Length: 2\r\n\r\nok" + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"))
    first = ask(target, "h1")
    assert first.status == 200 and first.text == "ok", first
    target.h1.now(head(OK + b"Content-Length: 4\r\n\r\ngood"))
    second = ask(target, "h1")
    assert second.text == "good", second


def test_response_before_the_request(target, watch):
    """Bytes on an idle pooled connection are nobody's answer."""
    def play(s):
        s.recv(65536)
        s.sendall(OK + b"Content-Length: 2\r\n\r\nok")
        time.sleep(0.3)
        s.sendall(OK + b"Content-Length: 6\r\n\r\npoison")
        s.recv(65536)
        s.sendall(OK + b"Content-Length: 6\r\n\r\npoison")
    target.h1.now(play)
    assert ask(target, "h1").text == "ok"
    time.sleep(0.6)
    target.h1.now(head(OK + b"Content-Length: 4\r\n\r\ngood"))
    assert ask(target, "h1").text == "good"


# --- HTTP/2 ------------------------------------------------------------------------------------------------------------

class Peer:
    """The server's side of a connection: greets, and reads requests."""

    def __init__(self, s, greet=True):
        self.s, self.buffer, self.encoder = s, b"", hpack.Encoder()
        while len(self.buffer) < len(PREFACE):
            self.buffer += self.more()
        self.buffer = self.buffer[len(PREFACE):]
        if greet:
            self.send(setting() + frame(SETTINGS, ACK))

    def more(self):
        data = self.s.recv(65536)
        if not data:
            raise OSError("closed")
        return data

    def send(self, *data):
        self.s.sendall(b"".join(data))

    def request(self):
        """The stream of the next HEADERS."""
        while True:
            while len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + length:
                    break
                kind, _flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                self.buffer = self.buffer[9 + length:]
                if kind == HEADERS:
                    return stream
            self.buffer += self.more()

    def head(self, stream, *fields, end=False, status="200"):
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream,
                     self.encoder.encode([(":status", status), *fields], huffman=False))

    def until_closed(self):
        while True:
            self.more()


def answering(make):
    """For each request: sends make(peer, stream), and stays."""
    def play(s):
        peer = Peer(s)
        while True:
            stream = peer.request()
            for data in make(peer, stream):
                peer.send(data)
    return play


def bomb(peer, stream):
    yield peer.head(stream, ("x", "y" * 3900), status="103")
    yield frame(HEADERS, END_HEADERS, stream, b"\x88" + b"\xbe" * 16000)


BAD_H2 = {
    "no settings": lambda s: Peer(s, greet=False).until_closed(),
    "garbage": lambda s: s.sendall(b"garbage " * 100),
    "HTTP/1": lambda s: s.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "silence": answering(lambda p, n: []),
    "no status": answering(lambda p, n: [frame(HEADERS, END_HEADERS, n, p.encoder.encode([("a", "b")]))]),
    "two statuses": answering(lambda p, n: [p.head(n, (":status", "200"))]),
    "bad status": answering(lambda p, n: [p.head(n, status="2x0")]),
    "request pseudo": answering(lambda p, n: [p.head(n, (":path", "/"))]),
    "upper case": answering(lambda p, n: [p.head(n, ("Upper", "x"))]),
    "LF in a value": answering(lambda p, n: [p.head(n, ("x", "a\nb"))]),
    "NUL in a name": answering(lambda p, n: [p.head(n, ("x\0", "a"))]),
    "connection field": answering(lambda p, n: [p.head(n, ("connection", "close"))]),
    "length too short": answering(lambda p, n: [p.head(n, ("content-length", "5")), frame(DATA, END_STREAM, n, b"123456")]),
    "length too long": answering(lambda p, n: [p.head(n, ("content-length", "5")), frame(DATA, END_STREAM, n, b"1")]),
    "data first": answering(lambda p, n: [frame(DATA, END_STREAM, n, b"1")]),
    "reset": answering(lambda p, n: [reset(n, 2)]),
    "refused": answering(lambda p, n: [reset(n, 7)]),
    "goaway": answering(lambda p, n: [frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11))]),
    "push": answering(lambda p, n: [frame(PUSH_PROMISE, END_HEADERS, n, struct.pack(">I", 2) + b"\x82\x84\x86")]),
    "stream of its own": answering(lambda p, n: [frame(HEADERS, END_HEADERS, 2, b"\x88")]),
    "window overflow": answering(lambda p, n: [window(0, 0x7fffffff)]),
    "continuation flood": answering(lambda p, n: [frame(HEADERS, 0, n, b"\x88")]
                                    + [frame(CONTINUATION, 0, n, b"\x00\x01a\x06bbbbbb") * 100] * 2000),
    "endless 1xx": answering(lambda p, n: (p.head(n, ("link", "x" * 100), status="103") for _ in range(200_000))),
    "hpack bomb": answering(bomb),
    "64 KiB and more of fields": answering(lambda p, n: [frame(HEADERS, 0, n, b"\x88" + (b"\x00\x01a\x7f\x00" + b"b" * 127) * 120)]
                                           + [frame(CONTINUATION, 0, n, (b"\x00\x01a\x7f\x00" + b"b" * 127) * 120)] * 20
                                           + [frame(CONTINUATION, END_HEADERS, n, b"")]),
}


@pytest.mark.parametrize("case", BAD_H2)
def test_bad_h2(target, watch, case):
    target.h2.now(BAD_H2[case])
    answer = ask(target, "h2")
    assert target.h2.played and refused(answer), answer


@pytest.mark.parametrize("what", ["ping", "settings", "empty data"])
def test_h2_floods(target, watch, what):
    """The next hop that floods us is left; the answer that it owed is an error, or it had come."""
    flood = {"ping": frame(PING, 0, 0, bytes(8)), "settings": setting((4, 65535)), "empty data": None}[what]

    def play(s):
        peer = Peer(s)
        stream = peer.request()
        peer.send(peer.head(stream))
        for _ in range(1000):
            peer.send((flood or frame(DATA, 0, stream)) * 100)
        peer.until_closed()
    target.h2.now(play)
    started = time.monotonic()
    answer = ask(target, "h2")
    assert target.h2.played and refused(answer), answer
    assert time.monotonic() - started < 2.9, "only the request's timeout ended it"


def test_h2_sends_more_than_the_window(target, watch):
    def play(s):
        peer = Peer(s)
        stream = peer.request()
        peer.send(peer.head(stream))
        for _ in range(2000):
            peer.send(frame(DATA, 0, stream, b"x" * 16384))
        peer.until_closed()
    target.h2.now(play)
    with socket.create_connection(("127.0.0.1", target.http), 10) as s:      # a client that does not read
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(b"GET http://h2/ HTTP/1.1\r\nHost: h2\r\n\r\n")
        time.sleep(4)


def test_good_after_bad(target, watch):
    """The endpoints are used again as soon as they behave."""
    target.h1.now(head(OK + b"Content-Length: 4\r\n\r\ngood"))
    target.h2.now(answering(lambda p, n: [p.head(n), frame(DATA, END_STREAM, n, b"good")]))
    hermes.wait_for(lambda: ask(target, "h1").text == "good", 20)
    hermes.wait_for(lambda: ask(target, "h2").text == "good", 20)
