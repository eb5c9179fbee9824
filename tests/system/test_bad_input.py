# SPDX-License-Identifier: Apache-2.0
"""Requests and targets that mean harm (ANCHORS.md section 3): the answer is clear, the next request is served."""
import socket
import struct
from types import SimpleNamespace

import pytest

import hermes
import servers
from capsules import IP, udp_path
from hermes import curl
from pairs import H1Client, H2Client
from rawh2 import CONTINUATION, END_HEADERS, END_STREAM, H2, HEADERS, Watch, frame, sanitizer_small_quarantine, window


@pytest.fixture(scope="module")
def target(session_tmp, certs, odd, web):
    """A node in front of an origin, and of whatever a request names (public addresses only)."""
    ports = SimpleNamespace(http=hermes.free_port(), socks=hermes.free_port(), hasty=hermes.free_port(),
                            open=hermes.free_port(), loop=[hermes.free_port() for _ in range(3)])
    folder = session_tmp / "bad-input"
    folder.mkdir()
    with servers.TcpEcho() as echo:
        config = {
            "node": {"name": "guard", "domain": "example.net", "tunnel_workers": 1},
            "overlay_headers": ["x-internal"],
            "listeners": [
                {"name": "apps", "address": f"127.0.0.1:{ports.http}", "accept": "http", "add_headers": {"user": "alice"}},
                {"name": "socks", "address": f"127.0.0.1:{ports.socks}", "accept": "socks5"},
                {"name": "hasty", "address": f"127.0.0.1:{ports.hasty}", "accept": "http",
                 "limits": {"header_timeout": "1s"}},
                {"name": "open", "address": f"127.0.0.1:{ports.open}", "accept": "http"}],
            "clusters": [{"name": "origin", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]},
                         {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{web.port}"]},
                         {"name": "closed", "carry": "h1", "endpoints": [f"127.0.0.1:{hermes.free_port()}"]},
                         {"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]},
                         {"name": "anywhere", "carry": "tcp", "endpoints": "target"},
                         {"name": "anything", "carry": "tcp", "endpoints": "target", "allow_targets": ["loopback"],
                          "deny_targets": ["127.0.0.2/32"]},
                         {"name": "anyweb", "carry": "h1", "endpoints": "target"}],
            "routes": [{"match": {"authority": "origin"}, "cluster": "origin"},
                       {"match": {"authority": "echo"}, "cluster": "echo"},
                       {"match": {"authority": "*.closed"}, "cluster": "closed"},
                       {"match": {"authority": "web"}, "cluster": "web"},
                       {"match": {"listener": "open"}, "cluster": "anything"},
                       {"match": {"method": "CONNECT"}, "cluster": "anywhere"},
                       {"match": {}, "cluster": "anyweb"}],
        }
        node = hermes.Node("guard", config, folder, env=sanitizer_small_quarantine())
        try:
            yield SimpleNamespace(node=node, echo=echo, **vars(ports))
            node.stop()
        finally:
            node.kill()


@pytest.fixture
def watch(target):
    with Watch(target.node, target.http, "http://origin/echo") as watch:
        yield watch


def raw(port, data, timeout=15, half_close=False):
    """Sends bytes; everything that comes back until the peer closes or says nothing for a while."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.settimeout(timeout)
        try:
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
            while (piece := s.recv(65536)):
                got += piece
                s.settimeout(2)
        except (TimeoutError, ConnectionError):
            pass
    return got


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else None


# --- HTTP/1 ------------------------------------------------------------------------------------------------------------

BAD_HEADS = {
    "blank before the colon": b"GET http://origin/echo HTTP/1.1\r\nHost : origin\r\n\r\n",
    "folded line": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX-A: b\r\n c\r\n\r\n",
    "folded first line": b"GET http://origin/echo HTTP/1.1\r\n Host: origin\r\n\r\n",
    "two Hosts": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nHost: other\r\n\r\n",
    "no Host": b"GET /echo HTTP/1.1\r\n\r\n",
    "bare CR in a value": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX: a\rb\r\n\r\n",
    "NUL in a value": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX: a\0b\r\n\r\n",
    "NUL in a name": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX\0Y: a\r\n\r\n",
    "no colon": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nwhat\r\n\r\n",
    "empty name": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\n: a\r\n\r\n",
    "blank in a name": b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX Y: a\r\n\r\n",
    "length and chunked": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: 5\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length list": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "negative length": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: +5\r\n\r\nhello",
    "huge length": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "hex length": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: 0x5\r\n\r\nhello",
    "chunked twice": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked with a tab": b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST http://origin/echo HTTP/1.0\r\nHost: origin\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "blank in the target": b"GET http://origin/a b HTTP/1.1\r\nHost: origin\r\n\r\n",
    "control in the target": b"GET http://origin/a\x01 HTTP/1.1\r\nHost: origin\r\n\r\n",
    "NUL in the target": b"GET http://origin/\0 HTTP/1.1\r\nHost: origin\r\n\r\n",
    "user in the target": b"GET http://me@origin/ HTTP/1.1\r\nHost: origin\r\n\r\n",
    "no version": b"GET http://origin/\r\n\r\n",
    "odd version": b"GET http://origin/ HTTP/1.10\r\nHost: origin\r\n\r\n",
    "bad method": b"G@T http://origin/ HTTP/1.1\r\nHost: origin\r\n\r\n",
    "CONNECT with a path": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT with a URL": b"CONNECT http://origin/ HTTP/1.1\r\nHost: origin\r\n\r\n",
    "CONNECT without a port": b"CONNECT origin HTTP/1.1\r\nHost: origin\r\n\r\n",
    "bad Host": b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host with a path": b"GET /echo HTTP/1.1\r\nHost: origin/x\r\n\r\n",
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_bad_head(target, watch, odd, case):
    before = len(odd.seen)
    answer = raw(target.http, BAD_HEADS[case])
    assert status(answer) in (400, 501, 505), answer
    assert b"HTTP/1.1 2" not in answer
    assert all(h == ("GET", "/echo") or dict(map(lambda p: (p[0].lower(), p[1]), headers)).get("x") is None
               for *h, headers in odd.seen[before:])


def test_bare_line_feeds_are_refused_or_read_as_one_request(target, watch):
    """RFC 9112 2.2 lets a recipient take them; two readers must not see two requests."""
    answer = raw(target.http, b"GET http://origin/echo HTTP/1.1\nHost: origin\nConnection: close\n\n")
    assert status(answer) in (200, 400)
    answer = raw(target.http, b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX: a\nTransfer-Encoding: chunked\r\n"
                              b"Connection: close\r\n\r\n")
    assert status(answer) == 400


BAD_CHUNKS = {
    "no number": b"zz\r\nhello\r\n0\r\n\r\n", "negative": b"-1\r\nhello\r\n0\r\n\r\n", "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "too large": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "wrong end": b"5\r\nhelloXX0\r\n\r\n",
    "blank before": b" 5\r\nhello\r\n0\r\n\r\n", "bare LF": b"5\nhello\n0\n\n", "endless size": b"0" * 20000,
    "endless extension": b"5;" + b"a" * 200000, "endless trailers": b"0\r\n" + b"X: " + b"a" * 200000,
}


@pytest.mark.parametrize("case", BAD_CHUNKS)
def test_bad_chunk(target, watch, case):
    answer = raw(target.http, b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nTransfer-Encoding: chunked\r\n\r\n"
                 + BAD_CHUNKS[case])
    assert status(answer) in (None, 400, 413, 431, 502), answer
    assert b"HTTP/1.1 2" not in answer, answer


def test_smuggled_request_is_not_seen(target, watch, odd):
    """What stands behind a refused request is not read as the next one."""
    before = len(odd.seen)
    raw(target.http, b"POST http://origin/echo HTTP/1.1\r\nHost: origin\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
                     b"\r\n0\r\n\r\nGET http://origin/smuggled HTTP/1.1\r\nHost: origin\r\n\r\n")
    assert not [s for s in odd.seen[before:] if "smuggled" in s[1]]


@pytest.mark.parametrize("size", [70_000, 2_000_000])
def test_64_kib_of_headers(target, watch, size):
    answer = raw(target.http, b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX: " + b"a" * size + b"\r\n\r\n")
    assert status(answer) in (431, None) and (answer or size > 100_000), answer[:200]
    answer = raw(target.http, b"GET http://origin/" + b"a" * size + b" HTTP/1.1\r\nHost: origin\r\n\r\n")
    assert status(answer) in (414, 431, None) and (answer or size > 100_000), answer[:200]


def test_many_small_headers(target, watch):
    answer = raw(target.http, b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\n" + b"a:\r\n" * 50_000 + b"\r\n")
    assert status(answer) in (431, None), answer[:200]


def test_slow_head_is_cut(target, watch):
    with socket.create_connection(("127.0.0.1", target.hasty), 10) as s:
        s.settimeout(0.2)
        got = None
        for byte in b"GET http://origin/echo HTTP/1.1\r\nHost: origin\r\nX-Slow: aaaaaaaaaaaaaaaaaaaa":
            try:
                s.sendall(bytes([byte]))
                got = s.recv(1000)
                break
            except TimeoutError:
                pass
            except ConnectionError:
                got = b""
                break
        assert got is not None and (got == b"" or b" 408 " in got), got


def test_internal_headers_from_outside_are_removed(target, watch):
    answer = curl("http://origin/echo", "-H", "user: root", "-H", "User: root2", "-H", "X-Internal: 1", "-H", "x-other: 2",
                  proxy=f"127.0.0.1:{target.http}")
    seen = [(n.lower(), v) for n, v in answer.json["headers"]]
    assert ("x-other", "2") in seen
    assert [v for n, v in seen if n == "user"] in ([], ["alice"])
    assert not [v for n, v in seen if n == "x-internal"]


def test_host_unlike_the_target_is_replaced(target, watch):
    """RFC 9112 3.2.2: a proxy ignores Host beside an absolute-form target, and sends the target's."""
    answer = raw(target.http, b"GET http://origin/echo HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n")
    assert status(answer) == 400 or (b'"origin"' in answer and b"evil" not in answer), answer


def test_connection_header_cannot_remove_what_we_add(target, watch):
    answer = curl("http://origin/echo", "-H", "Connection: user, via, host, x-other", "-H", "x-other: 2",
                  proxy=f"127.0.0.1:{target.http}")
    names = {n.lower() for n, _ in answer.json["headers"]}
    assert "via" in names and "host" in names and "x-other" not in names


def test_loop_over_three_hops(session_tmp, certs, target, watch):
    """Each node's only route leads to the next: refused by the number of hops, and told so."""
    ports = [hermes.free_port() for _ in range(3)]
    folder = session_tmp / "loop"
    folder.mkdir()
    nodes = []
    try:
        for i in range(3):
            nodes.append(hermes.Node(f"loop{i}", {
                "node": {"name": f"loop{i}", "domain": "example.net", "tunnel_workers": 1},
                "listeners": [{"name": "in", "address": f"127.0.0.1:{ports[i]}", "accept": "http"}],
                "clusters": [{"name": "next", "carry": "h2", "endpoints": [f"127.0.0.1:{ports[(i + 1) % 3]}"]}],
                "routes": [{"match": {}, "cluster": "next"}]}, folder))
        answer = curl("http://round/and/round", proxy=f"127.0.0.1:{ports[0]}")
        assert answer.status == 508, answer
        assert "proxy_loop_detected" in answer.headers.get("proxy-status", ""), answer
        tunnel = curl("http://x/", "-p", proxy=f"127.0.0.1:{ports[0]}")
        assert b"508" in tunnel.blocks[0].encode() if tunnel.blocks else tunnel.exit == 56, tunnel
        for path, protocol in (udp_path("x", 53), "connect-udp"), (IP + "*/*/", "connect-ip"):
            for client in H1Client, H2Client:
                call = client(ports[0]).request("CONNECT", "x", path, protocol=protocol).response()
                assert call.status == 508 and "proxy_loop_detected" in call.get("proxy-status"), (call.status, call.headers)
                call.close()
    finally:
        for node in nodes:
            node.stop()


# --- HTTP/2 ------------------------------------------------------------------------------------------------------------

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "origin"), (":path", "/echo")]
BAD_FIELDS = {
    "CONNECT with a path": [(":method", "CONNECT"), (":authority", "echo:1"), (":path", "/")],
    "CONNECT with a scheme": [(":method", "CONNECT"), (":authority", "echo:1"), (":scheme", "http")],
    "CONNECT without authority": [(":method", "CONNECT")],
    "two authorities": [*GET, (":authority", "other")],
    "two paths": [*GET, (":path", "/other")],
    "two methods": [*GET, (":method", "POST")],
    "no path": GET[:3],
    "empty path": [*GET[:3], (":path", "")],
    "path without slash": [*GET[:3], (":path", "echo")],
    "no scheme": [GET[0], *GET[2:]],
    "no method": GET[1:],
    "pseudo after regular": [*GET[:3], ("a", "b"), GET[3]],
    "unknown pseudo": [*GET, (":what", "b")],
    "response pseudo": [*GET, (":status", "200")],
    "CR in a value": [*GET, ("x", "a\rb")],
    "LF in a value": [*GET, ("x", "a\nb")],
    "NUL in a value": [*GET, ("x", "a\0b")],
    "CR LF in a value": [*GET, ("x", "a\r\ny: 1")],
    "upper case": [*GET, ("Upper", "x")],
    "blank in a name": [*GET, ("a b", "x")],
    "colon in a name": [*GET, ("a:b", "x")],
    "NUL in a name": [*GET, ("a\0b", "x")],
    "LF in a name": [*GET, ("a\nb", "x")],
    "empty name": [*GET, ("", "x")],
    "leading blank": [*GET, ("x", " a")],
    "connection": [*GET, ("connection", "close")],
    "transfer-encoding": [*GET, ("transfer-encoding", "chunked")],
    "upgrade": [*GET, ("upgrade", "h2c")],
    "te": [*GET, ("te", "gzip")],
    "host unlike authority": [*GET, ("host", "evil")],
    "two hosts": [*GET, ("host", "origin"), ("host", "origin")],
    "LF in the path": [*GET[:3], (":path", "/a\nb")],
    "blank in the path": [*GET[:3], (":path", "/a b")],
    "LF in the authority": [*GET[:2], (":authority", "origin\n"), GET[3]],
    "slash in the authority": [*GET[:2], (":authority", "origin/x"), GET[3]],
    "user in the authority": [*GET[:2], (":authority", "me@origin"), GET[3]],
    "bad method": [(":method", "G T"), *GET[1:]],
    "length without content": [*GET, ("content-length", "5")],
    "two lengths": [*GET, ("content-length", "0"), ("content-length", "1")],
    "bad length": [*GET, ("content-length", "+0")],
    "protocol that nobody knows": [(":method", "CONNECT"), (":scheme", "http"), (":authority", "origin"), (":path", "/echo"),
                               (":protocol", "connect-nothing")],
}


def refused(answer):
    """By a status, by a reset, or by the end of the connection."""
    return answer in (400, 404, 501, 502) or (isinstance(answer, tuple) and answer[0] in ("reset", "goaway"))


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_fields(target, watch, odd, case):
    before = len(odd.seen)
    with H2(target.http) as h2:
        h2.send(h2.block(1, BAD_FIELDS[case]))
        answer = h2.answer(1)
        assert refused(answer), answer
        if not h2.goaway():
            # the connection serves on
            assert h2.get(3, authority="origin", path="/echo") == 200
    for _method, path, headers in odd.seen[before:]:
        assert path in ("/echo", "/") and not {n.lower() for n, _ in headers} & {"x", "upper", "y"}, (path, headers)


def test_64_kib_of_fields(target, watch):
    with H2(target.http) as h2:
        block = h2.encoder.encode([*GET, *[(f"x-{i}", "a" * 1000) for i in range(80)]], huffman=False)
        pieces = [block[i:i + 16000] for i in range(0, len(block), 16000)]
        h2.send(frame(HEADERS, END_STREAM, 1, pieces[0]) + b"".join(
            frame(CONTINUATION, END_HEADERS if p is pieces[-1] else 0, 1, p) for p in pieces[1:]))
        assert h2.answer(1) == 431, h2.frames
        assert h2.get(3, authority="origin", path="/echo") == 200


# --- SOCKS 5 -----------------------------------------------------------------------------------------------------------

BAD_SOCKS = {
    "version 4": b"\x04\x01\x00\x50\x7f\0\0\1\0", "http": b"GET / HTTP/1.1\r\n\r\n", "no methods": b"\x05\x00",
    "unknown method": b"\x05\x01\x7e", "bad version after": b"\x05\x01\x00\x04\x01\x00\x01\x7f\0\0\1\0\x50",
    "bind": b"\x05\x01\x00\x05\x02\x00\x01\x01\x02\x03\x04\0\x50", "command 9": b"\x05\x01\x00\x05\x09\x00\x01\x01\x02\x03\x04\0\x50",
    "address type 9": b"\x05\x01\x00\x05\x01\x00\x09\x01\x02\x03\x04\0\x50", "port 0": b"\x05\x01\x00\x05\x01\x00\x03\x04echo\0\0",
    "empty name": b"\x05\x01\x00\x05\x01\x00\x03\x00\0\x50", "NUL in the name": b"\x05\x01\x00\x05\x01\x00\x03\x06echo\0x\0\x50",
    "LF in the name": b"\x05\x01\x00\x05\x01\x00\x03\x05echo\n\0\x50", "slash": b"\x05\x01\x00\x05\x01\x00\x03\x06echo/x\0\x50",
    "loopback": b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\1\0\x50",
    "mapped loopback": b"\x05\x01\x00\x05\x01\x00\x04" + bytes(10) + b"\xff\xff\x7f\0\0\1" + b"\0\x50",
}


@pytest.mark.parametrize("case", BAD_SOCKS)
def test_bad_socks(target, watch, case):
    got = raw(target.socks, BAD_SOCKS[case], half_close=False)
    if got[:2] == b"\x05\x00" and len(got) > 2:
        assert got[2] == 5 and got[3] != 0, got
    else:
        assert got in (b"", b"\x05\xff", b"\x05\x00"), got


# --- targets -----------------------------------------------------------------------------------------------------------

FORBIDDEN = ["127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
             "224.0.0.1", "255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
             "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]", "[fd12::1]", "[ff02::1]", "localhost", "localhost.", "LOCALHOST",
             "127.0.0.1.", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]"]
MALFORMED = ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.1", "[fe80::1%25lo]", "[fe80::1%lo]",
             "[::1", "::1", "a..b", ".a", "a%2Fb", "a%00b", "a%2fb", "[v1.x]", "[127.0.0.1]", "a" * 300, "a_b c"]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_forbidden_target(target, watch, host):
    answer = raw(target.http, f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode())
    assert status(answer) == 403 or (status(answer) in (400, 502) and host.endswith(".")), answer
    if status(answer) == 403:
        assert b"destination_ip_prohibited" in answer, answer


@pytest.mark.parametrize("host", MALFORMED)
def test_malformed_target(target, watch, host):
    answer = raw(target.http, f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode())
    assert status(answer) in (400, 403), answer


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "+80", "0x50", "", "80a", " 80", "00000000000000000080"])
def test_bad_port(target, watch, port):
    answer = raw(target.http, f"CONNECT 192.0.2.1:{port} HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n".encode())
    assert status(answer) == 400, answer
    with H2(target.http) as h2:
        got = h2.get(1, method="CONNECT", authority=f"192.0.2.1:{port}", end=False)
        assert refused(got), got


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "localhost"])
def test_forbidden_target_of_a_plain_request(target, watch, host):
    answer = raw(target.http, f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) == 403 and b"destination_ip_prohibited" in answer, answer


def test_what_is_allowed_and_denied(target, watch):
    """allow_targets opens, deny_targets closes some of that, in every spelling."""
    port = target.echo.port
    answer = raw(target.open, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: a\r\n\r\nping".encode())
    assert status(answer) == 200 and answer.endswith(b"ping"), answer
    for host in ("127.0.0.2", "[::ffff:127.0.0.2]", "10.0.0.1", "169.254.169.254"):
        answer = raw(target.open, f"CONNECT {host}:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert status(answer) == 403, (host, answer)


def test_garbage_at_every_listener(target, watch):
    import random
    chance = random.Random(7)
    for port in (target.http, target.socks, target.hasty):
        for size in (1, 3, 24, 1000, 60_000):
            raw(port, chance.randbytes(size), half_close=True, timeout=5)
            raw(port, b"\r\n" * (size // 2), half_close=True, timeout=5)
    raw(target.http, struct.pack(">I", 0xffffffff) * 1000, half_close=True, timeout=5)


# --- many at once ------------------------------------------------------------------------------------------------------

def test_pipelined_requests_of_one_who_does_not_read(target, watch):
    """Answers that nobody takes stop the reading of further requests."""
    with socket.create_connection(("127.0.0.1", target.http), 10) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(2)
        with pytest.raises((TimeoutError, ConnectionError)):
            for _ in range(5000):
                s.sendall(b"GET http://origin/chunked?n=10&size=10000 HTTP/1.1\r\nHost: origin\r\n\r\n" * 50)


@pytest.mark.seconds(180)
def test_many_downloads_that_nobody_reads(target, web):
    """400 clients ask for more than the kernel buffers and read nothing; each holds its share and no more."""
    with Watch(target.node, target.http, "http://origin/echo", grow=300 * 1024) as watch:
        sockets = []
        for _ in range(400):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", target.http))
            s.sendall(b"GET http://web/big HTTP/1.1\r\nHost: web\r\n\r\n")
            sockets.append(s)
        served = watch.served
        hermes.wait_for(lambda: watch.served > served + 10, 30)
        for s in sockets:
            s.close()


def test_many_idle_connections(target, watch):
    sockets = [socket.create_connection(("127.0.0.1", target.http), 10) for _ in range(800)]
    served = watch.served
    hermes.wait_for(lambda: watch.served > served + 5, 30)
    for s in sockets:
        s.close()


def test_a_new_question_each_time(target, watch):
    """Decisions that are never asked for again do not fill memory."""
    with H2(target.http) as h2:
        for i in range(0, 6000, 60):
            streams = range(1 + 2 * i, 1 + 2 * i + 120, 2)
            h2.send(b"".join(h2.headers(n, authority=f"{n}.closed") for n in streams))
            assert h2.wait(lambda h, last=streams: all(h.status(n) == 502 for n in last), 20), (i, h2.frames[-3:])
            h2.frames, h2.heads, h2.decoded = [], {}, 0
            h2.send(window(0, 60_000))         # room for the answers' texts
