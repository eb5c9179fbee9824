# SPDX-License-Identifier: Apache-2.0
"""IP packets through TUN devices (RFC 9484), between namespaces:

    user: hermes0 10.8.0.2 fd08::2 == alice ==== ingress == hermes0 10.8.0.1 fd08::1 :exit ---- server: 10.20.0.2 fd20::2
"""
import contextlib
import hashlib
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

import hermes
from capsules import DATAGRAM, IP, Reader, capsule, datagram, varint
from hermes import wait_for
from netlab import Lab, available, enter, ip
from pairs import H2Client, Upstream

pytestmark = pytest.mark.skipif(not available(), reason="needs root and namespaces")

NETWORKS = ["10.20.0.0/16", "fd20::/64", "10.31.0.0/16"]
ASSIGN, REQUEST, ROUTES = 1, 2, 3


def alice(certs, networks=(), exit_address="10.79.0.2", **device):
    return {
        "node": {"name": "alice", "domain": "example.net"}, "identity": certs.identity("alice"),
        "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.2/32", "fd08::2/128"],
                     "networks": list(networks) or [{"prefix": p, "add_headers": {"user": "alice"}} for p in NETWORKS],
                     **device}],
        "clusters": [{"name": "ingress", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                      "endpoints": [f"{exit_address}:8443"]}],
        "routes": [{"cluster": "ingress"}],
    }


def ingress(certs, **device):
    return {
        "node": {"name": "ingress", "domain": "example.net"}, "identity": certs.identity("ingress"),
        "listeners": [{"name": "from-nodes", "address": "10.79.0.2:8443", "accept": "overlay"},
                      {"name": "programs", "address": "127.0.0.1:9000", "accept": "http"}],
        "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.1/24", "fd08::1/64"], **device}],
        "clusters": [{"name": "here", "carry": "ip", "device": "hermes0", "pool": ["10.8.0.0/24", "fd08::/64"],
                      "advertise": ["10.20.0.0/24", "10.31.0.0/16", "fd20::/64"]}],
        "routes": [{"cluster": "here"}],
    }


def inside(namespace, make):
    """What make() returns, called in the namespace: a socket stays there."""
    out = []

    def run():
        with open(f"/run/netns/{namespace.name}") as f:
            enter(f.fileno())
        try:
            out.append(make())
        except OSError as e:
            out.append(e)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(out[0], OSError):
        raise out[0]
    return out[0]


def ping(namespace, host, *options, count=1):
    """ping's whole output."""
    done = subprocess.run(namespace.wrap(["ping", "-n", "-c", str(count), "-W", "2", *options, host]), capture_output=True, text=True)
    return done.stdout + done.stderr


def answers(namespace, host, *options):
    return " 0% packet loss" in ping(namespace, host, *options)


def device(node):
    return next(d for d in node.admin("tunnels", "list", json=True)["tunnels"] if d["name"] == "hermes0")


class Echo:
    """UDP and TCP in a namespace: both send back what they get, TCP until the other side ends."""

    def __init__(self, namespace, host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.udp = inside(namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.udp.bind((host, 7))
        self.tcp = inside(namespace, lambda: socket.create_server((host, 7), family=family))
        for serve in (self.datagrams, self.connections):
            threading.Thread(target=serve, daemon=True).start()

    def datagrams(self):
        while True:
            data, peer = self.udp.recvfrom(65536)
            self.udp.sendto(data, peer)

    def connections(self):
        while True:
            connection = self.tcp.accept()[0]
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        """The digest of what came, then as many bytes of its own."""
        digest, n = hashlib.sha256(), 0
        while data := connection.recv(1 << 18):
            digest.update(data)
            n += len(data)
        with contextlib.suppress(OSError):
            connection.sendall(digest.digest() + BLOCK * (n // len(BLOCK)))
        connection.close()


BLOCK = hashlib.sha256(b"block").digest() * 2048          # 64 KiB


class World:
    pass


@pytest.fixture(scope="module")
def world(certs, session_tmp):
    folder = session_tmp / "ip"
    folder.mkdir()
    w = World()
    with Lab() as lab:
        w.user, w.exit, w.server = (lab.namespace(n) for n in ("user", "exit", "server"))
        lab.link(w.user, "10.79.0.1/24", w.exit, "10.79.0.2/24")
        out, _ = lab.link(w.exit, "10.20.0.1/24", w.server, "10.20.0.2/24")
        ip("-n", w.exit.name, "address", "add", "fd20::1/64", "dev", out, "nodad")
        for address in ("fd20::2/64", "10.31.0.1/32"):
            ip("-n", w.server.name, "address", "add", address, "dev", "veth0", *(["nodad"] if ":" in address else []))
        ip("-n", w.exit.name, "route", "add", "10.31.0.0/16", "via", "10.20.0.2")
        ip("-n", w.server.name, "route", "add", "10.8.0.0/24", "via", "10.20.0.1")
        ip("-n", w.server.name, "route", "add", "fd08::/64", "via", "fd20::1")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            w.exit.run("sysctl", "-qw", f"{name}=1")
        w.echo, w.echo6 = Echo(w.server, "10.20.0.2"), Echo(w.server, "fd20::2")
        w.near_config, w.far_config = alice(certs), ingress(certs)
        w.far = hermes.Node("ingress", w.far_config, folder, wrap=w.exit.wrap)
        w.near = hermes.Node("alice", w.near_config, folder, wrap=w.user.wrap)
        wait_for(lambda: answers(w.user, "10.20.0.2"), 20, message="ping to the server")
        wait_for(lambda: answers(w.user, "fd20::2"), 20, message="ping to the server over IPv6")
        yield w
        w.near.stop()
        w.far.stop()


@pytest.fixture
def changed(world):
    """A function that gives the client's or the far node another configuration; afterwards the first is back."""
    touched = set()

    def change(node, config):
        touched.add(node)
        node.write(config)
        node.admin("config", "apply", node.config_file)
    yield change
    for node in touched:
        node.write(world.near_config if node is world.near else world.far_config)
        node.admin("config", "apply", node.config_file)
    wait_for(lambda: answers(world.user, "10.20.0.2"), 20, message="ping, with the first configuration again")


# --- what works ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("host", ["10.20.0.2", "fd20::2"])
def test_ping(world, host):
    assert " 0% packet loss" in ping(world.user, host, "-i", "0.02", count=50)
    assert answers(world.user, host, "-s", "1300")
    assert answers(world.user, host, "-s", "20000")        # in fragments


@pytest.mark.parametrize("host", ["10.20.0.2", "fd20::2"])
def test_tcp_both_ways(world, host):
    """Whole segments cross as units: far fewer packets than 1,400 bytes each would make."""
    before = device(world.near)
    connection = inside(world.user, lambda: socket.create_connection((host, 7), 20))
    blocks, digest = 160, hashlib.sha256()
    for _ in range(blocks):
        connection.sendall(BLOCK)
        digest.update(BLOCK)
    connection.shutdown(socket.SHUT_WR)
    got = b""
    while data := connection.recv(1 << 20):
        got += data
    assert got[:32] == digest.digest() and got[32:] == BLOCK * blocks
    after = device(world.near)
    sent, packets = (after[k] - before[k] for k in ("bytes_read", "packets_read"))
    assert sent > blocks * len(BLOCK) and all(n["segments"] for n in after["networks"] if n["state"] == "OPEN")
    # the acknowledgements of what came back are among them
    assert packets < sent / 1400, f"{sent} bytes in {packets} packets"


@pytest.mark.parametrize("host", ["10.20.0.2", "fd20::2"])
def test_udp(world, host):
    s = inside(world.user, lambda: socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM))
    s.settimeout(10)
    s.connect((host, 7))
    for size in (0, 1, 1200, 1400, 9000, 60000):
        s.send(b"u" * size)
        assert len(s.recv(65536)) == size
    for start in range(0, 500, 50):
        for i in range(start, start + 50):
            s.send(b"%04d" % i * 300)
        assert sorted(s.recv(65536)[:4] for _ in range(50)) == [b"%04d" % i for i in range(start, start + 50)]


def test_hops(world):
    """Our own packets are not decremented by the tunnel: the first hop is the exit's machine, the second the server."""
    assert re.search(r"From 10\.8\.0\.1 .*Time to live exceeded", ping(world.user, "10.20.0.2", "-t", "1"))
    assert answers(world.user, "10.20.0.2", "-t", "2")
    assert re.search(r"From fd08::1.* Hop limit|fd08::1.*Time exceeded", ping(world.user, "fd20::2", "-t", "1"))
    # what comes back was forwarded into the tunnel: one by the exit's stack, one by the tunnel
    ttl = re.search(r"ttl=(\d+)", ping(world.user, "10.20.0.2"))
    assert ttl and int(ttl[1]) == 62


def test_a_packet_that_passes_through(world):
    """From behind the user's machine: its stack decrements, and so does the tunnel."""
    ip("-n", world.user.name, "address", "add", "192.168.9.9/32", "dev", "lo")
    before = device(world.near)["drops"].get("ttl", 0)
    out = ping(world.user, "10.20.0.2", "-I", "192.168.9.9", "-t", "1")
    assert "Time to live exceeded" in out
    assert device(world.near)["drops"]["ttl"] > before


def test_spoofed_source(world):
    ip("-n", world.user.name, "address", "add", "10.99.0.1/32", "dev", "lo")
    before = device(world.far)
    out = ping(world.user, "10.20.0.2", "-I", "10.99.0.1")
    assert "100% packet loss" in out and "From" not in out.splitlines()[1]
    after = device(world.far)
    assert after["drops"]["spoofed"] == before["drops"].get("spoofed", 0) + 1
    assert after["packets_written"] == before["packets_written"]
    assert answers(world.user, "10.20.0.2")


def test_what_is_not_advertised(world):
    """The network is wider than what lies behind: the user's own node says so."""
    before = device(world.near)["drops"].get("no_route", 0)
    assert "Destination Net Unreachable" in ping(world.user, "10.20.1.1")
    assert device(world.near)["drops"]["no_route"] > before


def test_path_mtu(world, changed):
    changed(world.far, ingress_with(world, mtu=1300))
    out = wait_for(lambda: (lambda t: t if "mtu" in t else None)(ping(world.user, "10.20.0.2", "-M", "do", "-s", "1372")), 10,
                   message="word of the MTU")
    assert re.search(r"mtu ?= ?1300", out)
    ip("-n", world.user.name, "route", "flush", "cache")
    assert answers(world.user, "10.20.0.2", "-M", "do", "-s", "1272")
    connection = inside(world.user, lambda: socket.create_connection(("10.20.0.2", 7), 20))
    connection.sendall(BLOCK * 20)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(32) == hashlib.sha256(BLOCK * 20).digest()
    ip("-n", world.user.name, "-6", "route", "flush", "cache")
    out = ping(world.user, "fd20::2", "-M", "do", "-s", "1352")
    assert "mtu" in out.lower() and "1300" in out


def ingress_with(world, **device_settings):
    config = {**world.far_config}
    config["tunnels"] = [{**config["tunnels"][0], **device_settings}]
    return config


# --- two users, one address ----------------------------------------------------------------------------------------------------

def say(server, text):
    """To everybody who connects."""
    while True:
        connection = server.accept()[0]
        connection.sendall(text)
        connection.close()


def test_one_address_two_servers(certs, session_tmp):
    folder = session_tmp / "two"
    folder.mkdir()
    with Lab() as lab:
        core, users, servers = lab.namespace("core"), [], []
        for i in (1, 2):
            users.append(lab.namespace(f"u{i}"))
            servers.append(lab.namespace(f"s{i}"))
            lab.link(users[-1], f"10.9.{i}.1/24", core, f"10.9.{i}.2/24")
            lab.link(core, f"10.9.1{i}.1/24", servers[-1], f"10.9.1{i}.2/24")
            ip("-n", servers[-1].name, "address", "add", "10.0.0.1/32", "dev", "lo")
        nodes = []

        def start(name, config, namespace):
            base = {"node": {"name": name, "domain": "example.net"}, "identity": certs.identity(name)}
            config = {**base, **config}
            nodes.append(hermes.Node(name, config, folder, wrap=namespace.wrap))
            return config

        for i, server in enumerate(servers, 1):
            start(f"server{i}", {
                "listeners": [{"name": "from-nodes", "address": "0.0.0.0:8443", "accept": "overlay"}],
                "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.1/24"]}],
                "clusters": [{"name": "here", "carry": "ip", "device": "hermes0", "pool": ["10.8.0.0/24"],
                              "advertise": ["10.0.0.1/32"]}],
                "routes": [{"match": {"method": "CONNECT-IP", "headers": {"ipaddress": "10.0.0.1"}}, "cluster": "here"}]}, server)
            s = inside(server, lambda: socket.create_server(("10.0.0.1", 80)))
            threading.Thread(target=say, args=(s, b"%d" % i), daemon=True).start()
        core_config = start("core", {
            "listeners": [{"name": "from-nodes", "address": "0.0.0.0:8443", "accept": "overlay"}],
            "clusters": [{"name": f"server{i}", "carry": "h2", "tls": {"server_name": f"server{i}.example.net"},
                          "endpoints": [f"10.9.1{i}.2:8443"]} for i in (1, 2)],
            "address_spaces": [{"name": f"space{i}", "users": [f"user{i}"], "prefixes": {"10.0.0.1/32": {"cluster": f"server{i}"}}}
                               for i in (1, 2)]}, core)
        for i, user in enumerate(users, 1):
            start(f"user{i}", {
                "tunnels": [{"name": "hermes0", "addresses": "assigned",
                             "networks": [{"prefix": "10.0.0.1/32", "add_headers": {"user": f"user{i}", "ipaddress": "10.0.0.1"}}]}],
                "clusters": [{"name": "core", "carry": "h2", "tls": {"server_name": "core.example.net"},
                              "endpoints": [f"10.9.{i}.2:8443"]}],
                "routes": [{"match": {"method": "CONNECT-IP"}, "cluster": "core"}]}, user)
        for i, user in enumerate(users, 1):
            wait_for(lambda user=user: answers(user, "10.0.0.1"), 20, message="ping to 10.0.0.1")
            s = inside(user, lambda: socket.create_connection(("10.0.0.1", 80), 10))
            assert s.recv(10) == b"%d" % i
            network = device(nodes[2 + i])["networks"][0]
            assert network["user"] == f"user{i}" and network["assigned"] == ["10.8.0.2/32"], network

        # user 2's server moves while packets pass: none is lost or doubled
        nodes.pop(3).stop()                          # user 1, who holds the same address at server 1
        p = subprocess.Popen(users[1].wrap(["ping", "-n", "-i", "0.01", "-c", "300", "-W", "5", "10.0.0.1"]), stdout=subprocess.PIPE,
                             text=True)
        time.sleep(0.7)
        core_config["address_spaces"][1]["prefixes"] = {"10.0.0.1/32": {"cluster": "server1"}}
        nodes[2].reload(core_config)
        out = p.communicate(timeout=60)[0]
        assert "300 packets transmitted, 300 received" in out and "DUP" not in out, out[-300:]
        s = inside(users[1], lambda: socket.create_connection(("10.0.0.1", 80), 10))
        assert s.recv(10) == b"1"
        for node in reversed(nodes):
            node.stop()


def test_a_far_end_that_comes_later(certs, session_tmp):
    """A tunnel that is refused is tried again: by a node that finds nobody at first, and by one whom the far end's policy refuses."""
    folder = session_tmp / "later"
    folder.mkdir()
    with Lab() as lab:
        user, there = lab.namespace("user"), lab.namespace("exit")
        lab.link(user, "10.79.0.1/24", there, "10.79.0.2/24")
        near = hermes.Node("alice", alice(certs), folder, wrap=user.wrap)
        wait_for(lambda: "refused" in (device(near)["networks"][0]["error"] or ""), 20, message="a refusal")
        config = ingress(certs)
        no = {"policies": [{"name": "nobody", "match": {"method": "CONNECT-IP"}, "default": "deny"}]}
        far = hermes.Node("ingress", {**config, **no}, folder, wrap=there.wrap)
        wait_for(lambda: "status 403" in (device(near)["networks"][0]["error"] or ""), 20, message="the policy's refusal")
        far.write(config)
        far.admin("config", "apply", far.config_file)
        wait_for(lambda: all(n["state"] == "OPEN" for n in device(near)["networks"]), 30,
                 message="tunnels that opened after all")
        near.stop()
        far.stop()


# --- changes -------------------------------------------------------------------------------------------------------------------

def test_other_headers_while_packets_pass(world, changed):
    """The network's flow is replaced by one with the new headers: no packet is lost or doubled."""
    p = subprocess.Popen(world.user.wrap(["ping", "-n", "-i", "0.01", "-c", "300", "-W", "5", "10.20.0.2"]), stdout=subprocess.PIPE,
                         text=True)
    time.sleep(0.7)
    config = {**world.near_config}
    config["tunnels"] = [{**config["tunnels"][0], "networks": [{"prefix": p, "add_headers": {"user": "alice", "x-more": "yes"}}
                                                              for p in NETWORKS]}]
    changed(world.near, config)
    out = p.communicate(timeout=60)[0]
    assert "300 packets transmitted, 300 received" in out and "DUP" not in out, out[-300:]


def test_over_udp(world, changed):
    """For far ends without CONNECT-IP: packets as datagrams of CONNECT-UDP; the address is learned from them."""
    config = {**world.near_config}
    config["tunnels"] = [{**config["tunnels"][0], "networks": [
        {"prefix": "10.20.0.0/16", "add_headers": {"user": "alice"}, "over_udp": "10.20.0.1:4500"}]}]
    changed(world.near, config)
    wait_for(lambda: answers(world.user, "10.20.0.2"), 10, message="ping")
    assert device(world.near)["networks"][0]["protocol"] == "connect-udp"
    assert any(c["protocol"] == "connect-udp" and c["assigned"] == ["10.8.0.2"] for c in device(world.far)["clients"])
    connection = inside(world.user, lambda: socket.create_connection(("10.20.0.2", 7), 20))
    connection.sendall(BLOCK * 20)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(32) == hashlib.sha256(BLOCK * 20).digest()


# --- other implementations, and bad ones -----------------------------------------------------------------------------------------

def address(value, request=0, bits=None):
    family, size = (socket.AF_INET6, 16) if ":" in value else (socket.AF_INET, 4)
    return varint(request) + bytes([6 if size == 16 else 4]) + socket.inet_pton(family, value) + bytes([8 * size if bits is None else bits])


def addresses(value):
    """[(request, address, bits), ...] of an ADDRESS_ASSIGN with ids below 2^14."""
    out = []
    while value:
        n = 1 << (value[0] >> 6)
        number, value = int.from_bytes(bytes([value[0] & 0x3f]) + value[1:n], "big"), value[n:]
        size = 4 if value[0] == 4 else 16
        out.append((number, socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, value[1:1 + size]), value[1 + size]))
        value = value[2 + size:]
    return out


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packet(source, destination, payload, protocol=1, ttl=64):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, ttl, protocol, 0, socket.inet_aton(source),
                       socket.inet_aton(destination))
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def echo_request(text):
    body = struct.pack(">BBHHH", 8, 0, 0, 7, 7) + text + b"\0" * (len(text) % 2)
    return body[:2] + struct.pack(">H", checksum(body)) + body[4:]


class Raw:
    """A client of the exit that knows nothing of Hermes."""

    def __init__(self, world, target="*", protocol="*"):
        self.call = inside(world.exit, lambda: H2Client(9000))
        path = f"{IP}{target.replace('/', '%2F').replace('*', '%2A')}/{protocol.replace('*', '%2A')}/"
        self.call.request("CONNECT", "proxy.example", path, [("capsule-protocol", "?1")], protocol="connect-ip")
        self.call.response()
        self.reader = Reader(self.call)

    def ask(self, *wanted):
        self.call.data(capsule(REQUEST, b"".join(wanted)))
        return addresses(self.next(ASSIGN))

    def next(self, kind):
        while True:
            got, value = self.reader.capsule()
            if got == kind:
                return value

    def close(self):
        self.call.close()

    def __enter__(self):
        assert self.call.status == 200, (self.call.status, self.call.headers)
        return self

    def __exit__(self, *exc):
        self.close()


def swapped(data):
    """A UDP packet as its receiver would send it back. Its checksums stay right, since they are sums."""
    return data[:12] + data[16:20] + data[12:16] + data[22:24] + data[20:22] + data[24:]


def udp_right(data):
    udp = data[20:]
    pseudo = data[12:20] + struct.pack(">BBH", 0, 17, len(udp))
    return checksum(data[:20]) == 0 and checksum(pseudo + udp + b"\0" * (len(udp) % 2)) == 0


def test_a_far_end_of_another_kind(certs, session_tmp):
    """It takes and gives ordinary packets: a UDP_SEGMENT run of a program is cut before it enters the tunnel."""
    folder = session_tmp / "other"
    folder.mkdir()
    with Lab() as lab:
        user = lab.namespace("user")
        far = inside(user, lambda: Upstream("h2"))

        def handler(exchange):
            exchange.head(200, [("capsule-protocol", "?1")])
            reader = Reader(exchange)
            kind, value = reader.capsule()
            far.said.put((kind, addresses(value)))
            exchange.data(capsule(ASSIGN, value) + capsule(ROUTES, b"\x04" + bytes([10, 50, 0, 0, 10, 50, 0, 255, 0])))
            while True:
                data = reader.datagram()
                far.said.put((len(data), udp_right(data)))
                exchange.data(datagram(swapped(data)))
        far.handler = handler
        config = {**alice(certs, [{"prefix": "10.50.0.0/16"}]),
                  "clusters": [{"name": "far", "carry": "h2", "endpoints": [f"127.0.0.1:{far.port}"]}], "routes": [{"cluster": "far"}]}
        with hermes.Node("alice", config, folder, wrap=user.wrap) as node:
            assert far.told()[0] == REQUEST
            wait_for(lambda: device(node)["networks"][0]["routes"], message="routes")
            assert not device(node)["networks"][0]["segments"]
            s = inside(user, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            s.settimeout(10)
            s.connect(("10.50.0.9", 9))
            s.setsockopt(socket.IPPROTO_UDP, 103, 1000)              # UDP_SEGMENT
            s.send(bytes(range(256)) * 18)                           # 4,608 bytes
            assert [far.told() for _ in range(5)] == [(1028, True)] * 4 + [(636, True)]
            assert b"".join(s.recv(2000) for _ in range(5)) == bytes(range(256)) * 18
        far.stop()


def test_another_implementation(world):
    with Raw(world, "10.20.0.0/24") as raw:
        routes = raw.next(ROUTES)
        assert routes == b"\x04" + socket.inet_aton("10.20.0.0") + socket.inet_aton("10.20.0.255") + b"\0"
        given = raw.ask(address("0.0.0.0", 1), address("10.8.0.2", 2), address("192.0.2.1", 3))
        assert [n for n, _, _ in given[:3]] == [1, 2, 3]
        own = given[0][1]
        assert own.startswith("10.8.0.") and own != "10.8.0.2"
        assert given[1:3] == [(2, "0.0.0.0", 32), (3, "0.0.0.0", 32)]       # alice's; not in the pool
        raw.call.data(datagram(packet(own, "10.20.0.2", echo_request(b"hello"))))
        back = raw.reader.datagram()
        assert back[9] == 1 and back[20] == 0 and back.endswith(b"hello\0") and back[8] == 62
        # outside its scope: ICMP, and the tunnel lives
        raw.call.data(datagram(packet(own, "10.31.0.1", echo_request(b"there"))))
        back = raw.reader.datagram()
        assert (back[20], back[21]) == (3, 13)
        raw.call.data(datagram(packet(own, "10.20.0.2", echo_request(b"again"))))
        assert raw.reader.datagram().endswith(b"again\0")


def test_scoped_by_protocol(world):
    with Raw(world, "*", "6") as raw:
        own = raw.ask(address("0.0.0.0", 1))[0][1]
        raw.call.data(datagram(packet(own, "10.20.0.2", echo_request(b"icmp always"))))
        assert raw.reader.datagram()[20] == 0
        raw.call.data(datagram(packet(own, "10.20.0.2", struct.pack(">HHHH", 9, 7, 8, 0), protocol=17)))
        assert raw.reader.datagram()[20:22] == b"\x03\x0d"


def test_a_target_outside(world):
    raw = Raw(world, "192.0.2.0/24")
    assert raw.call.status == 403
    assert "destination_ip_prohibited" in dict(raw.call.headers)["proxy-status"]
    raw.close()


def test_a_target_that_is_a_name(world):
    """It is resolved before the answer; what it means must lie within what is advertised (RFC 9484 4.1)."""
    for name, statuses, error in (("no-such-name.invalid", (502, 504), "dns_"), ("localhost", (403,), "destination_ip_prohibited")):
        raw = Raw(world, name)
        assert raw.call.status in statuses and f"error={error}" in dict(raw.call.headers)["proxy-status"], raw.call.headers
        raw.close()


def test_ten_thousand_requests(world):
    with Raw(world) as raw:
        many = b"".join(capsule(REQUEST, address("0.0.0.0", n)) for n in range(1, 10001))
        answered = {}

        def listen():
            while len(answered) < 10000:
                for number, text, _ in addresses(raw.next(ASSIGN)):
                    if number:
                        answered[number] = text
        listener = threading.Thread(target=listen, daemon=True)
        raw.call.data(many)
        listener.start()
        listener.join(60)
        assert len(answered) == 10000
        assert 0 < sum(text != "0.0.0.0" for text in answered.values()) <= 16
    assert answers(world.user, "10.20.0.2")


MALFORMED = {
    "no request": capsule(REQUEST, b""),
    "request 0": capsule(REQUEST, address("0.0.0.0", 0)),
    "version 5": capsule(REQUEST, b"\x01\x05\0\0\0\0\x20"),
    "bits past the prefix": capsule(REQUEST, address("10.8.0.9", 1, 24)),
    "prefix too long": capsule(REQUEST, address("10.8.0.9", 1, 33)),
    "cut address": capsule(ASSIGN, address("10.8.0.9")[:-2]),
    "routes overlap": capsule(ROUTES, (b"\x04" + bytes([10, 0, 0, 1, 10, 0, 0, 9]) + b"\0") * 2),
    "range backwards": capsule(ROUTES, b"\x04" + bytes([10, 0, 0, 9, 10, 0, 0, 1]) + b"\0"),
    "datagram too long": capsule(DATAGRAM, b"\0" + b"x" * 70000),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_capsules_abort(world, what):
    from pairs import Cut
    with Raw(world) as raw:
        raw.next(ROUTES)
        raw.call.data(MALFORMED[what])
        with pytest.raises((Cut, EOFError)):
            while True:
                raw.reader.capsule()
    assert answers(world.user, "10.20.0.2")


def test_bad_packets_do_no_harm(world):
    good = packet("10.8.0.9", "10.20.0.2", echo_request(b"x"))
    bad = [b"", b"\x45", good[:19], good[:10] + b"\0\0" + good[12:], b"\x55" + good[1:], good[:2] + b"\xff\xff" + good[4:],
           b"\x60" + bytes(39), b"\x46" + good[1:], good[:8] + b"\0" + good[9:], b"\x45" * 1500]
    before = device(world.far)["packets_written"]
    with Raw(world) as raw:
        own = raw.ask(address("10.8.0.9", 1))[0][1]
        assert own == "10.8.0.9"
        for data in bad:
            raw.call.data(datagram(data))
        raw.call.data(datagram(good, context=2))           # never agreed on
        raw.call.data(datagram(good, context=9))
        raw.call.data(capsule(0x1234, b"?" * 70000, 8) + capsule(0x17, b"", 8))          # unknown ones are passed over
        raw.call.data(datagram(good))
        assert raw.reader.datagram()[20] == 0
    assert device(world.far)["packets_written"] == before + 1
