# SPDX-License-Identifier: Apache-2.0
"""The end of CONNECT-UDP: `carry: udp`. The clients speak RFC 9298 over HTTP/2 and HTTP/1.1 with code that is not Hermes';
the targets are real UDP sockets."""
import contextlib
import json
import os
import socket
import threading
import time

import pytest

import hermes
import netlab
import pairs
from backends import NameServer
from hermes import wait_for
from test_targets import ODD, REFUSED

LONGEST = 65507                       # of IPv4 over loopback


class UdpTarget:
    """Echoes datagrams; those that begin with "flood N " bring N copies of 1,000 bytes, "quiet" nothing."""

    def __init__(self, address="127.0.0.1"):
        self.sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind((address, 0))
        self.sock.settimeout(0.2)
        self.port, self.got, self.peers, self.stopped = self.sock.getsockname()[1], [], set(), False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.stopped:
            try:
                data, peer = self.sock.recvfrom(65536)
            except TimeoutError:
                continue
            self.got.append(data)
            self.peers.add(peer)
            if data.startswith(b"flood "):
                for _ in range(int(data.split()[1])):
                    self.sock.sendto(b"f" * 1000, peer)
            elif data != b"quiet":
                self.sock.sendto(data, peer)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stopped = True
        self.thread.join(10)
        self.sock.close()


# --- capsules ----------------------------------------------------------------------------------------------------------------

def varint(n):
    for size, mark in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if n < 1 << (8 * size - 2):
            return (n | mark << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(n)


def take_varint(data):
    if not data or len(data) < (size := 1 << (data[0] >> 6)):
        return None, data
    return int.from_bytes(data[:size], "big") & ((1 << (8 * size - 2)) - 1), data[size:]


def capsule(payload, context=0, kind=0):
    value = varint(context) + payload
    return varint(kind) + varint(len(value)) + value


class UdpTunnel:
    """CONNECT-UDP through the proxy at `port`."""

    def __init__(self, port, host, target_port, version="h2", headers=()):
        self.http = {"h1": pairs.H1Client, "h2": pairs.H2Client}[version](port)
        self.rest = b""
        host = host.replace(":", "%3A")
        self.http.request("CONNECT", f"127.0.0.1:{port}", f"/.well-known/masque/udp/{host}/{target_port}/",
                          [("capsule-protocol", "?1"), *headers], protocol="connect-udp")
        self.http.response()
        self.status = self.http.status

    def header(self, name):
        return self.http.get(name) or ""

    def send(self, *payloads):
        self.http.data(b"".join(capsule(p) for p in payloads))

    def receive(self):
        """The next datagram's payload; None: the stream ended."""
        while True:
            kind, rest = take_varint(self.rest)
            length, rest = take_varint(rest) if kind is not None else (None, rest)
            if length is not None and len(rest) >= length:
                value, self.rest = rest[:length], rest[length:]
                context, payload = take_varint(value)
                if kind == 0 and context == 0:
                    return payload
                continue
            data = self.http.read()
            if not data:
                assert not self.rest, "the stream ended inside a capsule"
                return None
            self.rest += data

    def ask(self, payload):
        self.send(payload)
        return self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.http.close()


# --- the node ----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def target():
    with UdpTarget() as made:
        yield made


@pytest.fixture(scope="module")
def names():
    with NameServer() as server:
        server.records = {"echo.test": ["127.0.0.1"], "inside.test": ["10.0.0.1"]}
        yield server


def with_names(names, folder):
    """Wraps a command so that its resolv.conf names the test's server."""
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver [127.0.0.1]:{names.port}\noptions timeout:1 attempts:1\n")
    script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
    return lambda command: ["unshare", "-m", "sh", "-c", script, "sh", *command]


@pytest.fixture(scope="module")
def node(session_tmp, target, names):
    port = hermes.free_port()
    folder = session_tmp / "udp-cluster"
    folder.mkdir()
    wrap = with_names(names, folder) if os.geteuid() == 0 else None
    route = lambda authority, cluster: {"match": {"authority": authority}, "cluster": cluster}
    config = {
        "node": {"name": "end", "domain": "example.net", "tunnel_workers": 1},
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
        "clusters": [
            {"name": "anywhere", "carry": "udp", "endpoints": "target", "allow_targets": ["loopback"], "connect_timeout": "3s"},
            {"name": "fixed", "carry": "udp", "endpoints": [f"127.0.0.1:{target.port}"]},
            {"name": "tcp", "carry": "tcp", "endpoints": ["127.0.0.1:9"]},
            {"name": "http", "carry": "h2", "endpoints": "target"},
            {"name": "public", "carry": "udp", "endpoints": "target"},
            {"name": "brief", "carry": "udp", "endpoints": "target", "allow_targets": ["loopback"], "ttl_min": "1s", "ttl_max": "1s"},
        ],
        "routes": [*({"match": {"headers": {"x-to": name}}, "cluster": name} for name in ("public", "brief")), route("FIXED", "fixed"), route("TCP", "tcp"), route("HTTP", "http"), {"match": {}, "cluster": "anywhere"}],
        "telemetry": {"access_log": [{"to": str(folder / "access.log"), "format": "json"}]},
    }
    with hermes.Node("end", config, folder, wrap=wrap) as n:
        n.port, n.access = port, folder / "access.log"
        yield n


both = pytest.mark.parametrize("version", ["h2", "h1"])


@both
def test_datagrams_of_all_sizes(node, target, version):
    with UdpTunnel(node.port, "127.0.0.1", target.port, version) as t:
        assert t.status == 200
        assert t.header("capsule-protocol") == "?1"
        for size in (0, 1, 63, 64, 1200, 9000, 16380, 16384, LONGEST):
            payload = bytes(i * 7 % 256 for i in range(size))
            assert t.ask(payload) == payload
        t.http.end()
        assert t.receive() is None


@both
def test_batches_keep_their_order(node, target, version):
    with UdpTunnel(node.port, "127.0.0.1", target.port, version) as t:
        for round_ in range(5):
            payloads = [b"%d %d " % (round_, i) + b"x" * (i % 3 * 500) for i in range(100)]
            t.send(*payloads)
            assert [t.receive() for _ in payloads] == payloads


def test_bytes_one_by_one(node, target):
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t:
        for byte in capsule(b"one") + capsule(b"") + b"\x40\x00\x80\x00\x00\x04\x40\x00xy":
            t.http.data(bytes([byte]))
        assert [t.receive() for _ in range(3)] == [b"one", b"", b"xy"]


def test_fixed_endpoints_and_ipv6(node, target):
    with UdpTunnel(node.port, "FIXED", 7) as t:
        assert t.ask(b"to the endpoint") == b"to the endpoint"
    try:
        six = UdpTarget("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with six, UdpTunnel(node.port, "::1", six.port) as t:
        assert t.status == 200
        assert t.ask(b"six" * 100) == b"six" * 100


def test_each_flow_has_a_socket_of_its_own(node, target):
    target.peers.clear()
    with UdpTunnel(node.port, "127.0.0.1", target.port) as a, UdpTunnel(node.port, "127.0.0.1", target.port) as b:
        a.send(b"a1"), b.send(b"b1")
        assert a.receive() == b"a1" and b.receive() == b"b1"
        assert len(target.peers) == 2
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for peer in target.peers:
            stranger.sendto(b"forged", peer)
        stranger.close()
        assert a.ask(b"a2") == b"a2" and b.ask(b"b2") == b"b2"


def test_unknown_contexts_and_capsules_are_left_out(node, target):
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t:
        t.http.data(capsule(b"new", context=2) + capsule(b"", context=77) + capsule(b"z" * 70000, kind=0x29) +
                    capsule(b"12345", kind=1) + capsule(b"known"))
        assert t.receive() == b"known"


@pytest.mark.parametrize("data", [b"\0\0", b"\0\1\x40", capsule(b"x" * 65528), b"\0\x80\x02\0\0"],
                         ids=["no context id", "half a context id", "payload too long", "capsule too long"])
def test_malformed_streams_are_reset(node, target, data):
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t, UdpTunnel(node.port, "127.0.0.1", target.port) as other:
        t.send(b"before")
        assert t.receive() == b"before"
        t.http.data(data)
        with pytest.raises(pairs.Cut):
            while t.receive() is not None:
                pass
        assert other.ask(b"unharmed") == b"unharmed"


@both
def test_an_end_inside_a_capsule_is_malformed(node, target, version):
    with UdpTunnel(node.port, "127.0.0.1", target.port, version) as t:
        assert t.ask(b"before") == b"before"
        seen = len(records(node))
        t.http.data(capsule(b"cut off")[:-1])
        t.http.end()
        wait_for(lambda: any(r["result"] == "http_request_error" for r in records(node)[seen:]), message="its record")
        assert b"cut off"[:-1] not in target.got


def test_a_payload_that_fits_no_packet_is_dropped_alone(node, target):
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t:
        t.send(b"x" * 65527, b"alive")
        assert t.receive() == b"alive"
    assert drops(node, "cluster_dropped_datagrams", "too_long") >= 1


def records(node):
    return [json.loads(line) for line in node.access.read_text().splitlines()] if node.access.exists() else []


def drops(node, family, reason):
    return sum(row["value"] for row in node.admin("stats", family, json=True)["metrics"]
               if row.get("labels", {}).get("reason") == reason)


def test_a_closed_port_ends_the_tunnel_with_its_reason(node):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with UdpTunnel(node.port, "127.0.0.1", port) as t:
        assert t.status == 200
        t.send(b"anybody?")
        with pytest.raises(pairs.Cut):
            t.receive()
    wait_for(lambda: any(r["authority"] == f"127.0.0.1:{port}" and r["result"] == "connection_refused" for r in records(node)),
             message="a record with the reason")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a resolv.conf of its own")
def test_names_are_resolved_here(node, target, names):
    with UdpTunnel(node.port, "echo.test", target.port) as t:
        assert t.status == 200
        assert t.ask(b"by name") == b"by name"
    for host, status, token in (("none.test", 502, "dns_error"), ("inside.test", 403, "destination_ip_prohibited")):
        with UdpTunnel(node.port, host, target.port) as t:
            assert t.status == status and token in t.header("proxy-status"), t.http.headers


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a resolv.conf of its own")
def test_rebinding(node, target, names):
    """The address that was checked is the one that datagrams go to, and each tunnel's is checked anew."""
    names.records["rebind.test"] = ["127.0.0.1"]
    brief = [("x-to", "brief")]
    with UdpTunnel(node.port, "rebind.test", target.port, headers=brief) as living:
        assert living.ask(b"checked") == b"checked"
        names.records["rebind.test"] = ["169.254.169.254"]

        def refused():
            with UdpTunnel(node.port, "rebind.test", target.port, headers=brief) as t:
                return t.status == 403 and "destination_ip_prohibited" in t.header("proxy-status")
        wait_for(refused, message="the new address refused")
        assert living.ask(b"still there") == b"still there"


def test_targets_in_every_spelling(node, target):
    """What is not public is not reached, however it is written; the same addresses as in test_targets.py."""
    seen = len(target.got)
    for host in REFUSED:
        with UdpTunnel(node.port, host.strip("[]"), target.port, headers=[("x-to", "public")]) as t:
            assert t.status == 403 and "destination_ip_prohibited" in t.header("proxy-status"), (host, t.http.headers)
    for host in ODD:
        with UdpTunnel(node.port, host.strip("[]"), target.port, headers=[("x-to", "public")]) as t:
            assert t.status in (400, 403), (host, t.http.headers)
    assert len(target.got) == seen


@both
def test_refusals_say_why(node, version):
    for host, status, token in (("10.0.0.1", 403, "destination_ip_prohibited"), ("TCP", 503, "destination_unavailable"),
                                ("HTTP", 503, "destination_unavailable")):
        with UdpTunnel(node.port, host, 7, version) as t:
            assert t.status == status and token in t.header("proxy-status"), (host, t.status, t.http.headers)
            assert not t.header("capsule-protocol")
    stream = pairs.H2Client(node.port).request("CONNECT", "FIXED:7").response()
    assert stream.status == 503 and "carries UDP" in stream.get("proxy-status"), stream.headers
    stream.close()


def test_answers_come_after_the_clients_end(node, target):
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t:
        t.send(*[b"last %d" % i for i in range(20)])
        t.http.end()
        assert [t.receive() for _ in range(20)] == [b"last %d" % i for i in range(20)]
        assert t.receive() is None


def test_a_client_that_reads_nothing_loses_the_oldest_only_of_its_own(node, target):
    before = drops(node, "cluster_dropped_datagrams", "queue_full")
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t, UdpTunnel(node.port, "127.0.0.1", target.port) as other:
        for _ in range(20):
            t.send(b"flood 500 ")            # 10 MB
            assert other.ask(b"unharmed") == b"unharmed"
        wait_for(lambda: drops(node, "cluster_dropped_datagrams", "queue_full") > before, message="drops that are counted")
        assert other.ask(b"unharmed") == b"unharmed"
        time.sleep(0.2)
        got = 0
        t.send(b"the end")
        while (data := t.receive()) != b"the end":
            got += len(data) == 1000
        assert 500 < got < 10000             # what was under way, and the newest 1 MiB


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at the worker's descriptors")
def test_ended_tunnels_leave_no_socket_behind(node, target):
    def sockets():
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in node.pids()["tunnel"])
    with UdpTunnel(node.port, "127.0.0.1", target.port) as t:
        assert t.ask(b"warm") == b"warm"
    wait_for(lambda: not node.admin("flows", "list", json=True)["flows"], message="no flows")
    before = sockets()
    for _ in range(20):
        with UdpTunnel(node.port, "127.0.0.1", target.port) as t:
            assert t.ask(b"x") == b"x"
    wait_for(lambda: sockets() <= before, message="as few descriptors as before")


# --- real paths --------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def inside(namespace):
    """Sockets made meanwhile belong to the namespace."""
    with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{namespace.name}") as other:
        netlab.enter(other.fileno())
        try:
            yield
        finally:
            netlab.enter(own.fileno())


@pytest.fixture(scope="module")
def far_away(session_tmp):
    """A node, a router, and a target behind a link of 1,300 bytes; the router has no way to 10.72.0.0/16."""
    folder = session_tmp / "udp-path"
    folder.mkdir()
    with netlab.Lab() as lab:
        here, router, far = (lab.namespace(n) for n in ("uc-node", "uc-router", "uc-far"))
        lab.link(here, "10.70.0.1/24", router, "10.70.0.2/24")
        lab.link(router, "10.71.0.1/24", far, "10.71.0.2/24", mtu=1300)
        here.run("ip", "route", "add", "default", "via", "10.70.0.2")
        far.run("ip", "route", "add", "default", "via", "10.71.0.1")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        router.run("ip", "route", "add", "unreachable", "10.72.0.0/16")
        config = {
            "node": {"name": "end", "domain": "example.net", "tunnel_workers": 1},
            "listeners": [{"name": "apps", "address": "127.0.0.1:12000", "accept": "http"}],
            "clusters": [{"name": "anywhere", "carry": "udp", "endpoints": "target", "allow_targets": ["private"]}],
            "routes": [{"match": {}, "cluster": "anywhere"}],
            "telemetry": {"access_log": [{"to": str(folder / "access.log"), "format": "json"}]},
        }
        with inside(far):
            target = UdpTarget("10.71.0.2")
        with target, hermes.Node("end", config, folder, wrap=here.wrap) as n:
            n.target, n.access = target, folder / "access.log"
            n.tunnel = lambda host, port: _tunnel_inside(here, host, port)
            yield n


def _tunnel_inside(namespace, host, port):
    with inside(namespace):
        return UdpTunnel(12000, host, port)


needs_lab = pytest.mark.skipif(not netlab.available(), reason="needs root and ip netns")


@needs_lab
def test_what_exceeds_the_path_is_dropped_and_the_tunnel_lives(far_away):
    with far_away.tunnel("10.71.0.2", far_away.target.port) as t:
        assert t.ask(b"s" * 1200) == b"s" * 1200
        t.send(b"L" * 1400)                  # the router says that it is too long ...
        assert t.ask(b"s" * 1200) == b"s" * 1200
        wait_for(lambda: _known(t, far_away), message="the path's MTU to be known")
        before = drops(far_away, "cluster_dropped_datagrams", "too_long")
        t.send(*[b"L" * 1400] * 10, b"s" * 1200, b"s" * 1272)      # ... and then it is known, for runs of datagrams too
        assert (t.receive(), t.receive()) == (b"s" * 1200, b"s" * 1272)
        assert drops(far_away, "cluster_dropped_datagrams", "too_long") - before == 10
        assert not any(d.startswith(b"L") for d in far_away.target.got)      # never in fragments


def _known(tunnel, node):
    before = drops(node, "cluster_dropped_datagrams", "too_long")
    tunnel.send(b"L" * 1400)
    assert tunnel.ask(b"s") == b"s"
    return drops(node, "cluster_dropped_datagrams", "too_long") > before


@needs_lab
def test_an_unreachable_network_ends_the_tunnel_with_its_reason(far_away):
    with far_away.tunnel("10.72.0.1", 7) as t:
        assert t.status == 200
        t.send(b"anybody?")
        with pytest.raises(pairs.Cut):
            t.receive()
    wait_for(lambda: any(r["result"] == "destination_ip_unroutable" for r in records(far_away)), message="a record")
