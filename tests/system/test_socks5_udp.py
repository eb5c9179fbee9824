# SPDX-License-Identifier: Apache-2.0
"""SOCKS 5 UDP ASSOCIATE (RFC 1928 6 and 7) through two nodes: one CONNECT-UDP flow per target."""
import ipaddress
import socket
import struct
import subprocess
from types import SimpleNamespace

import pytest

import hermes
from hermes import free_port, wait_for
from test_udp_listener import DGRAM, UdpServer, udp_flows


class Association:
    """A SOCKS 5 client that asked for a UDP relay. .relay: where it is."""

    def __init__(self, port, host="127.0.0.1", user=None, timeout=10):
        self.tcp = socket.create_connection((host, port), timeout)
        self.file = self.tcp.makefile("rb")
        self.tcp.sendall(b"\5\1\2" if user else b"\5\1\0")
        assert self.file.read(2) == (b"\5\2" if user else b"\5\0")
        if user:
            name, password = (x.encode() for x in user)
            self.tcp.sendall(b"\1" + bytes([len(name)]) + name + bytes([len(password)]) + password)
            assert self.file.read(2) == b"\1\0"
        self.tcp.sendall(b"\5\3\0\1\0\0\0\0\0\0")
        _, code, _, kind = self.file.read(4)
        assert code == 0
        where = socket.inet_ntop(*((socket.AF_INET, self.file.read(4)) if kind == 1 else (socket.AF_INET6, self.file.read(16))))
        self.relay = where, struct.unpack("!H", self.file.read(2))[0]
        self.udp = self.socket(timeout)

    def socket(self, timeout=10):
        s = socket.socket(socket.AF_INET6 if ":" in self.relay[0] else socket.AF_INET, DGRAM)
        s.settimeout(timeout)
        return s

    @staticmethod
    def header(host, port, fragment=0):
        try:
            address = ipaddress.ip_address(host)
            to = (b"\1" if address.version == 4 else b"\4") + address.packed
        except ValueError:
            to = b"\3" + bytes([len(host)]) + host.encode()
        return b"\0\0" + bytes([fragment]) + to + struct.pack("!H", port)

    def send(self, host, port, data, fragment=0):
        self.udp.sendto(self.header(host, port, fragment) + data, self.relay)

    def recv(self, host, port):
        """The payload of an answer, which must come from the relay and name that target."""
        data, peer = self.udp.recvfrom(65536)
        header = self.header(host, port)
        assert peer[:2] == self.relay and data.startswith(header), data[:40]
        return data[len(header):]

    def ask(self, host, port, data):
        self.send(host, port, data)
        return self.recv(host, port)

    def close(self):
        self.file.close()
        self.tcp.close()
        self.udp.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture(scope="module")
def pair(session_tmp, certs):
    """.socks: alice's port; .one, .two: servers that ingress reaches, by address and (.one) as the name `one`."""
    p = SimpleNamespace(socks=free_port(), overlay=free_port())
    with UdpServer(lambda data, _: b"one " + data) as p.one, UdpServer(lambda data, _: b"two " + data) as p.two:
        inner = hermes.ingress_config(p.overlay, certs)
        inner["clusters"] += [
            {"name": "one", "carry": "udp", "endpoints": [f"127.0.0.1:{p.one.port}"]},
            {"name": "any-udp", "carry": "udp", "endpoints": "target", "allow_targets": ["loopback"]}]
        inner["routes"] = [{"match": {"authority": "one"}, "cluster": "one"},
                           {"match": {"protocol": "connect-udp"}, "cluster": "any-udp"}, *inner["routes"]]
        outer = hermes.alice_config(free_port(), certs, p.overlay)
        outer["listeners"].append({"name": "socks", "address": f":{p.socks}", "accept": "socks5", "add_headers": {"user": "alice"}})
        outer["policies"] = [{"name": "no-two", "match": {"authority": "forbidden"}, "default": "deny"}]
        folder = session_tmp / "socks5-udp"
        folder.mkdir()
        p.ingress = hermes.Node("ingress", inner, folder)
        try:
            p.alice = hermes.Node("alice", outer, folder)
        except BaseException:
            p.ingress.stop(check=False)
            raise
        yield p
        for n in (p.alice, p.ingress):
            n.stop()


def socks_flows(pair):
    return [f for f in udp_flows(pair.alice) if f["carry_in"] == "socks5"]


def test_targets_by_name_and_address(pair):
    with Association(pair.socks) as a:
        for i in range(20):
            assert a.ask("one", 7, b"%d" % i) == b"one %d" % i
            assert a.ask("127.0.0.1", pair.one.port, b"%d" % i) == b"one %d" % i
            assert a.ask("127.0.0.1", pair.two.port, b"%d" % i) == b"two %d" % i
        assert len(socks_flows(pair)) == 3
        assert sorted(f["authority"] for f in socks_flows(pair)) == sorted(
            ["one:7", f"127.0.0.1:{pair.one.port}", f"127.0.0.1:{pair.two.port}"])


def test_it_ends_with_its_connection(pair):
    a = Association(pair.socks)
    assert a.ask("one", 7, b"x") == b"one x"
    assert socks_flows(pair)
    a.tcp.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: not socks_flows(pair))
    a.udp.connect(a.relay)
    with pytest.raises(ConnectionRefusedError):
        a.udp.send(a.header("one", 7) + b"y")
        a.udp.recv(100)
    a.close()


def test_sizes(pair):
    with Association(pair.socks) as a:
        for size in (0, 1, 1200, 9000, 30000, 60000):
            data = bytes(i * 5 & 255 for i in range(size))
            assert a.ask("one", 7, data) == b"one " + data


def test_bursts(pair):
    """Joined by the kernel or not, each datagram has its own header, and its answer as well."""
    with Association(pair.socks) as a:
        for i in range(60):
            a.send("one", 7, b"%04d" % i)
            a.send("127.0.0.1", pair.two.port, b"%04d" % i)
        got = {"one": [], "two": []}
        for _ in range(120):
            data = a.udp.recv(1000)
            name, number = data[-8:].split()
            expected = a.header("one", 7) if name == b"one" else a.header("127.0.0.1", pair.two.port)
            assert data.startswith(expected)
            got[name.decode()].append(int(number))
        assert got == {"one": list(range(60)), "two": list(range(60))}


def test_two_sockets_of_one_client(pair):
    with Association(pair.socks) as a:
        first, second = a.udp, a.socket()
        for i in range(3):
            for s in (first, second):
                a.udp = s
                assert a.ask("one", 7, b"%d" % s.fileno()) == b"one %d" % s.fileno()
        second.close()
        a.udp = first


def test_fragments_and_nonsense_are_dropped(pair):
    with Association(pair.socks, timeout=1) as a:
        before = len(pair.one.got)
        a.send("one", 7, b"part", fragment=1)
        a.send("one", 7, b"part", fragment=0x80)
        for data in (b"", b"\0", b"\0\0\0", b"\0\0\0\1\x7f", b"\0\0\0\2\x7f\0\0\1\0\7x", b"\0\0\0\3\xffshort\0\7", b"GET / HTTP/1.1\r\n\r\n"):
            a.udp.sendto(data, a.relay)
        a.send("127.0.0.1", 0, b"no port")
        a.send("a@b", 7, b"no name")
        assert a.ask("one", 7, b"whole") == b"one whole"
        assert pair.one.got[before:] == [b"whole"]


def test_strangers_are_not_heard(pair):
    """Datagrams are taken from the address that the connection came from, no other."""
    with Association(pair.socks) as a:
        assert a.ask("one", 7, b"mine") == b"one mine"
        with socket.socket(socket.AF_INET, DGRAM) as s:
            s.bind(("127.0.0.9", 0))
            s.settimeout(0.5)
            s.sendto(a.header("one", 7) + b"stranger", a.relay)
            with pytest.raises(TimeoutError):
                s.recv(100)
        assert b"stranger" not in pair.one.got


def test_over_ipv6(pair):
    with Association(pair.socks, "::1") as a:
        assert a.relay[0] == "::1"
        assert a.ask("one", 7, b"six") == b"one six"


def test_denied_target(pair):
    """One target that is refused does not concern the others."""
    with Association(pair.socks, timeout=0.5) as a:
        a.send("forbidden", 7, b"x")
        with pytest.raises(TimeoutError):
            a.recv("forbidden", 7)
        a.udp.settimeout(10)
        assert a.ask("one", 7, b"x") == b"one x"


def test_many_targets_are_bounded(pair):
    """No association holds more than 1,024 targets; those that it has go on."""
    with Association(pair.socks) as a:
        assert a.ask("one", 7, b"first") == b"one first"
        for i in range(1100):
            a.send("one", 1000 + i, b"many")
            if i % 20 == 19:
                for k in range(20):
                    if i - 19 + k < 1023:
                        assert a.udp.recv(100).endswith(b"one many")
        assert a.ask("one", 7, b"still") == b"one still"
        assert len(socks_flows(pair)) == 1024
    wait_for(lambda: not socks_flows(pair))


def crypt(word):
    return subprocess.run(["openssl", "passwd", "-6", word], check=True, capture_output=True, text=True).stdout.strip()


def test_user_and_password(node, certs):
    port, overlay = free_port(), free_port()
    with UdpServer() as server:
        inner = hermes.ingress_config(overlay, certs)
        inner["clusters"].append({"name": "echo", "carry": "udp", "endpoints": [f"127.0.0.1:{server.port}"]})
        inner["routes"].insert(0, {"match": {"authority": "ECHO"}, "cluster": "echo"})
        node("ingress", inner)
        outer = hermes.alice_config(free_port(), certs, overlay)
        outer["users"] = [{"name": "bob", "password": crypt("secret")}]
        outer["listeners"].append({"name": "socks", "address": f"127.0.0.1:{port}", "accept": "socks5", "require_user": True})
        alice = node("alice", outer)
        with Association(port, user=("bob", "secret")) as a:
            assert a.ask("ECHO", 7, b"x") == b"x"
            assert [f["user"] for f in udp_flows(alice)] == ["bob"]
