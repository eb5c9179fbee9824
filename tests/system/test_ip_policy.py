# SPDX-License-Identifier: Apache-2.0
"""Policies for packets: programs that do not know of the overlay meet them at a TUN device and at the far end.

    curl, ping in A -- hermes0 == alice (A) ===== ingress (B) == hermes0 -- servers in B: 10.99.0.1, 10.99.0.2, fd99::1
"""
import errno
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest
from hermes import wait_for
from netlab import Lab, available, enter

pytestmark = pytest.mark.skipif(not available(), reason="needs root and namespaces")

SERVERS = {"10.99.0.1/32": "alice", "10.99.0.2/32": "bob", "fd99::1/128": "alice"}
WEB = {"ip": {"protocol": "tcp", "port": 80}}
ANY_PING = [{"allow": {"ip": {"protocol": "icmp"}}}, {"allow": {"ip": {"protocol": "icmpv6"}}}]


def only(*allowed, name="packets", **match):
    return {"name": name, "match": {"ip": {}, **match}, "default": "deny",
            "rules": [rule if "allow" in rule else {"allow": rule} for rule in allowed]}


def alice(certs, *policies):
    return {
        "node": {"name": "alice", "domain": "example.net"}, "identity": certs.identity("alice"),
        "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.2/32", "fd08::2/128"],
                     "networks": [{"prefix": p, "add_headers": {"user": user}} for p, user in SERVERS.items()]}],
        "clusters": [{"name": "ingress", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                      "endpoints": ["10.79.1.2:8443"]}],
        "routes": [{"cluster": "ingress"}], "policies": list(policies),
    }


def ingress(certs, *policies):
    return {
        "node": {"name": "ingress", "domain": "example.net"}, "identity": certs.identity("ingress"),
        "listeners": [{"name": "from-nodes", "address": "10.79.1.2:8443", "accept": "overlay"}],
        "tunnels": [{"name": "hermes0", "addresses": ["10.8.0.1/24", "fd08::1/64"]}],
        "clusters": [{"name": "here", "carry": "ip", "device": "hermes0", "pool": ["10.8.0.0/24", "fd08::/64"],
                      "advertise": list(SERVERS)}],
        "routes": [{"cluster": "here"}], "policies": list(policies),
    }


# --- programs -----------------------------------------------------------------------------------------------------------------

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
    return out[0]


def connect(namespace, host, port):
    """A socket, or the OSError."""
    return inside(namespace, lambda: socket.create_connection((host, port), 15))


def curl(namespace, url):
    return subprocess.run(namespace.wrap(["curl", "-sS", "-g", "--noproxy", "*", "-m", "20", url]), capture_output=True,
                          text=True)


def ping(namespace, host, *options):
    return subprocess.run(namespace.wrap(["ping", "-n", "-c", "1", "-W", "10", *options, host]), capture_output=True,
                          text=True)


class Echo:
    """TCP and UDP at port 7, on every address of a namespace."""

    def __init__(self, namespace):
        self.tcp = inside(namespace, lambda: socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True))
        self.udp = inside(namespace, lambda: socket.socket(type=socket.SOCK_DGRAM))
        self.udp.bind(("10.99.0.1", 7))
        for work in (self._accept, self._datagrams):
            threading.Thread(target=work, daemon=True).start()

    def _accept(self):
        while True:
            connection = self.tcp.accept()[0]
            threading.Thread(target=self._bytes, args=(connection,), daemon=True).start()

    @staticmethod
    def _bytes(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def _datagrams(self):
        while True:
            data, sender = self.udp.recvfrom(65536)
            self.udp.sendto(data, sender)


@pytest.fixture(scope="module")
def lab(session_tmp):
    folder = session_tmp / "ip-policy-www"
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text("hello\n")
    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.link(a, "10.79.1.1/24", b, "10.79.1.2/24")
        for prefix in SERVERS:
            b.run("ip", "address", "add", prefix, "dev", "lo", *(["nodad"] if ":" in prefix else []))
        Echo(b)
        server = ["/usr/bin/python3", "-m", "http.server", "--bind", "::", "--directory", str(folder)]
        web = [subprocess.Popen(b.wrap([*server, port]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for port in ("80", "81")]
        for port in (80, 81):
            wait_for(lambda: not isinstance(connect(b, "10.99.0.1", port), OSError), message="a web server")
        yield SimpleNamespace(a=a, b=b)
        for process in web:
            process.kill()
            process.wait()


@pytest.fixture
def pair(lab, certs, node):
    """Makes the two nodes with their policies; returns when packets pass."""
    def make(here=(), there=()):
        far = node("ingress", ingress(certs, *there), wrap=lab.b.wrap)
        near = node("alice", alice(certs, *here), wrap=lab.a.wrap)

        def ready():
            device = next(t for t in near.admin("tunnels", "list", json=True)["tunnels"] if t["name"] == "hermes0")
            return all(n["state"].lower() == "open" for n in device["networks"])
        wait_for(ready, 20, message="open tunnels")
        return SimpleNamespace(near=near, far=far)
    return make


# --- tests --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("where", ("near", "far"))
def test_only_web(pair, lab, where):
    """What is denied is answered at once, with ICMP: programs do not wait."""
    policy = only(WEB, **({"listener": "hermes0"} if where == "near" else {"user": ["alice", "bob"]}))
    nodes = pair(here=[policy]) if where == "near" else pair(there=[policy])
    for host in ("10.99.0.1", "[fd99::1]"):
        for _ in range(3):
            assert curl(lab.a, f"http://{host}/").stdout == "hello\n"
    assert connect(lab.a, "10.99.0.1", 81).errno == errno.EHOSTUNREACH
    assert connect(lab.a, "fd99::1", 81).errno == errno.EACCES
    assert curl(lab.a, "http://10.99.0.1:81/").returncode == 7      # could not connect; 28 would be its patience
    denied = ping(lab.a, "10.99.0.1")
    assert denied.returncode == 1 and "Packet filtered" in denied.stdout
    denied = ping(lab.a, "fd99::1")
    assert denied.returncode == 1 and "Administratively prohibited" in denied.stdout
    # what begins at the other end is a flow of its own
    assert isinstance(connect(lab.b, "10.8.0.2", 80), OSError)
    if where == "near":
        packet = ["--listener", "hermes0", "--ip-source", "10.8.0.2", "--ip-destination", "10.99.0.1", "--ip-protocol", "tcp"]
        assert nodes.near.admin("policy", "explain", *packet, "--ip-port", "80", json=True)["accepted"]
        refused = nodes.near.admin("policy", "explain", *packet, "--ip-port", "81", json=True)
        assert refused["status"] == 403 and refused["policies"] == ["packets"]


def test_users_apart(pair, lab):
    """The same device, two networks of different users: one is held to port 80."""
    pair(there=[only(WEB, user="bob")])
    assert curl(lab.a, "http://10.99.0.1:81/").stdout == "hello\n"
    assert ping(lab.a, "10.99.0.1").returncode == 0
    assert curl(lab.a, "http://10.99.0.2/").stdout == "hello\n"
    assert connect(lab.a, "10.99.0.2", 81).errno == errno.EHOSTUNREACH
    assert ping(lab.a, "10.99.0.2").returncode == 1


def test_fragments(pair, lab):
    """Large pings come and go in pieces; the later ones follow their first."""
    policies = [only(WEB, *ANY_PING)]
    pair(here=policies, there=policies)
    for host in ("10.99.0.1", "fd99::1"):
        for _ in range(3):
            done = ping(lab.a, host, "-s", "6000", *(["-M", "dont"] if ":" not in host else []))
            assert done.returncode == 0 and "6008 bytes from" in done.stdout, done.stdout


def test_a_policy_for_tunnels_is_not_for_packets(pair, lab):
    """It was asked when the tunnels began; one for packets has no say there."""
    tunnels = {"name": "tunnels", "match": {"method": "CONNECT-IP"}, "default": "deny",
               "rules": [{"allow": {"authority": list(SERVERS)}}]}
    pair(there=[tunnels, only(WEB, {"ip": {"protocol": "udp"}})])
    assert curl(lab.a, "http://10.99.0.1/").stdout == "hello\n"
    assert connect(lab.a, "10.99.0.1", 81).errno == errno.EHOSTUNREACH


@pytest.mark.parametrize("where", ("near", "far"))
def test_a_change_ends_living_inner_flows(pair, lab, certs, where):
    """The next packet of a flow that is denied now is answered with ICMP; one that is allowed still goes on."""
    keep, gone = {"ip": {"protocol": "tcp", "port": 7}}, {"ip": {"protocol": "udp", "port": 7}}
    nodes = pair(**{"here" if where == "near" else "there": [only(keep, gone)]})

    def change(*policies):
        config = alice(certs, *policies) if where == "near" else ingress(certs, *policies)
        (nodes.near if where == "near" else nodes.far).reload(config)

    tcp = connect(lab.a, "10.99.0.1", 7)
    udp = inside(lab.a, lambda: socket.socket(type=socket.SOCK_DGRAM))
    udp.connect(("10.99.0.1", 7))
    udp.settimeout(15)
    tcp.settimeout(15)

    def echoes(s):
        s.send(b"ping")
        return s.recv(100) == b"ping"
    assert echoes(tcp) and echoes(udp)
    change(only(keep))
    assert echoes(tcp)
    with pytest.raises(OSError) as failed:
        for _ in range(20):
            echoes(udp)
    assert failed.value.errno == errno.EHOSTUNREACH
    change(only(gone))
    assert echoes(udp)
    tcp.send(b"ping")
    tcp.settimeout(1.5)
    with pytest.raises(TimeoutError):
        tcp.recv(100)
    tcp.settimeout(30)
    change(only(keep, gone))             # TCP had only been kept from sending
    assert tcp.recv(100) == b"ping" and echoes(tcp)
    tcp.close()
    udp.close()
