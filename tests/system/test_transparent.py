# SPDX-License-Identifier: Apache-2.0
"""Transparent capture: programs that know nothing of Hermes, in a namespace routed through a node, or beside it.

    desk (10.1.0.2) --- node (10.1.0.1, 10.2.0.1) --- far (10.2.0.2; 192.0.2.10 and 2001:db8:9::10, which only the far node reaches)
"""
import os
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest

import hermes
import netlab
from hermes import curl, wait_for
from test_udp_listener import DGRAM, UdpServer, udp_flows

pytestmark = pytest.mark.skipif(not netlab.available(), reason="needs root and network namespaces")

FAR, FAR6 = "192.0.2.10", "2001:db8:9::10"


def inside(namespace, what):
    """what()'s value; sockets that it makes belong to the namespace."""
    result = []

    def run():
        with open(f"/run/netns/{namespace.name}") as f:
            netlab.enter(f.fileno())
        try:
            result.append((what(), None))
        except BaseException as e:
            result.append((None, e))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


def udp_socket(namespace, bind=None, family=socket.AF_INET, timeout=10):
    def make():
        s = socket.socket(family, DGRAM)
        s.settimeout(timeout)
        if bind:
            s.bind(bind)
        return s
    return inside(namespace, make)


class Server(UdpServer):
    """UdpServer in a namespace."""

    def __init__(self, namespace, address, answer):
        self.namespace = namespace
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__(answer, sock=udp_socket(namespace, (address, 0), family, None))

    def stop(self):
        with udp_socket(self.namespace, family=self.sock.family) as s:
            s.sendto(b"\0end", self.sock.getsockname()[:2])
        self.thread.join(5)
        self.sock.close()


def lay_out():
    lab = netlab.Lab()
    try:
        net = SimpleNamespace(lab=lab, desk=lab.namespace("desk"), node=lab.namespace("node"), far=lab.namespace("far"))
        lab.link(net.desk, "10.1.0.2/24", net.node, "10.1.0.1/24")
        lab.link(net.node, "10.2.0.1/24", net.far, "10.2.0.2/24")
        for ns, interface, address in ((net.desk, "veth0", "2001:db8:1::2/64"), (net.node, "veth0", "2001:db8:1::1/64"),
                                       (net.far, "lo", FAR + "/32"), (net.far, "lo", FAR6 + "/128")):
            ns.run("ip", "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        net.desk.run("ip", "route", "add", "default", "via", "10.1.0.1")
        net.desk.run("ip", "route", "add", "default", "via", "2001:db8:1::1")
        # what local programs send must have a way of some kind before it is captured
        net.node.run("ip", "route", "add", "192.0.2.0/24", "via", "10.2.0.2")
        net.node.run("ip", "route", "add", "2001:db8:9::/64", "dev", "lo")
    except BaseException:
        lab.close()
        raise
    return net


def near_config(certs, capture=None):
    return {
        "node": {"name": "alice", "domain": "example.net"},
        "identity": certs.identity("alice"),
        "listeners": [{"name": "captured", "address": ":15001", "accept": "transparent", "add_headers": {"user": "alice"},
                       "capture": {"destinations": ["192.0.2.0/24", "2001:db8:9::/64"], **(capture or {})}}],
        "clusters": [{"name": "ingress", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                      "endpoints": ["10.2.0.2:8443"]}],
        "routes": [{"match": {}, "cluster": "ingress"}]}


def far_config(certs):
    everywhere = {"endpoints": "target", "allow_targets": ["192.0.2.0/24", "2001:db8:9::/64"]}
    return {
        "node": {"name": "ingress", "domain": "example.net"},
        "identity": certs.identity("ingress"),
        "listeners": [{"name": "from-nodes", "address": "10.2.0.2:8443", "accept": "overlay"}],
        "clusters": [{"name": "tcp", "carry": "tcp", **everywhere}, {"name": "udp", "carry": "udp", **everywhere}],
        "routes": [{"match": {"protocol": "connect-udp"}, "cluster": "udp"}, {"match": {}, "cluster": "tcp"}]}


@pytest.fixture(scope="module")
def world(session_tmp, certs):
    net = lay_out()
    folder = session_tmp / "transparent"
    folder.mkdir()
    nodes, web = [], None
    try:
        nodes.append(hermes.Node("ingress", far_config(certs), folder, wrap=net.far.wrap))
        nodes.append(hermes.Node("alice", near_config(certs, {"local": True}), folder, wrap=net.node.wrap))
        net.ingress, net.alice = nodes
        (folder / "www").mkdir()
        (folder / "www/index.html").write_text("from afar\n")
        (folder / "www/big").write_bytes(os.urandom(3 << 20))
        net.www = folder / "www"
        web = subprocess.Popen(net.far.wrap(["/usr/bin/python3", "-m", "http.server", "8080", "--bind", "::", "--directory", folder / "www"]),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: subprocess.run(net.far.wrap(["curl", "-s", "-o", "/dev/null", f"http://{FAR}:8080/"])).returncode == 0)
        yield net
        for n in reversed(nodes):
            n.stop()
    finally:
        if web:
            web.kill()
            web.wait()
        for n in nodes:
            n.kill()
        net.lab.close()


@pytest.mark.parametrize("place", ["desk", "node"])
@pytest.mark.parametrize("host", [FAR, f"[{FAR6}]"])
def test_unchanged_curl(world, place, host):
    ns = getattr(world, place)
    answer = curl(f"http://{host}:8080/", wrap=ns.wrap)
    assert answer.status == 200 and answer.text == "from afar\n", answer
    flows = world.alice.admin("stats", "listener_flows", json=True)["metrics"]
    assert sum(r["value"] for r in flows if r["labels"].get("listener") == "captured") > 0


def test_large_answers(world):
    answer = curl(f"http://{FAR}:8080/big", wrap=world.desk.wrap)
    assert answer.body == (world.www / "big").read_bytes()


@pytest.mark.parametrize("place", ["desk", "node"])
@pytest.mark.parametrize("host", [FAR, FAR6])
def test_unchanged_udp_program(world, place, host):
    """A connected socket takes answers from the very address that it sent to, and from no other."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with Server(world.far, host, lambda data, _: b"answer to " + data) as server:
        with udp_socket(getattr(world, place), family=family) as s:
            s.connect((host, server.port))
            for i in range(20):
                s.send(b"%d" % i)
                assert s.recv(100) == b"answer to %d" % i
            for size in (0, 1400, 20000):
                s.send(b"x" * size)
                assert s.recv(65536) == b"answer to " + b"x" * size


@pytest.mark.parametrize("host", [FAR, FAR6])
def test_udp_flows_live_on_while_workers_are_replaced(world, host):
    """Answers come from the address that was asked, before and after; the target sees the same source port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    peers = set()

    def answer(data, peer):
        peers.add(peer)
        return b"answer to " + data
    with Server(world.far, host, answer) as server:
        with udp_socket(world.desk, family=family) as s:
            s.connect((host, server.port))
            for i in range(50):
                if i % 20 == 10:
                    for n in (world.alice, world.ingress):
                        for worker in n.admin("workers", "list", json=True)["workers"]:
                            if worker["role"] == "tunnel":
                                before = n.log().count("flows taken over")
                                n.admin("workers", "restart", worker["name"])
                                wait_for(lambda: n.log().count("flows taken over") > before, message="the new worker")
                s.send(b"%d" % i)
                assert s.recv(100) == b"answer to %d" % i
    assert len(peers) == 1


def test_one_socket_many_targets(world):
    """One client socket talks to several targets: a flow for each, and answers from the right one."""
    servers = [Server(world.far, FAR, lambda data, _, i=i: b"%d:" % i + data) for i in range(5)]
    try:
        with udp_socket(world.desk) as s:
            for _ in range(3):
                for i, server in enumerate(servers):
                    s.sendto(b"x", (FAR, server.port))
                    assert s.recvfrom(100) == (b"%d:x" % i, (FAR, server.port))
    finally:
        for server in servers:
            server.stop()


def test_many_clients_of_one_target(world):
    with Server(world.far, FAR, lambda data, _: data) as server:
        socks = [udp_socket(world.desk) for _ in range(100)]
        for i, s in enumerate(socks):
            s.sendto(b"%d" % i, (FAR, server.port))
        for i, s in enumerate(socks):
            assert s.recvfrom(100) == (b"%d" % i, (FAR, server.port))
            s.close()


def test_dns(world):
    """A resolver that asks a server over UDP, as programs do (getent by way of a resolv.conf of its own)."""
    def answer(data, _):
        question_end = data.index(b"\0", 12) + 5
        is_a = data[question_end - 4:question_end - 2] == b"\0\1"
        head = data[:2] + b"\x81\x80" + b"\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.77")
        return head + data[12:question_end] + (record if is_a else b"")
    server = Server.__new__(Server)
    server.namespace = world.far
    UdpServer.__init__(server, answer, sock=udp_socket(world.far, (FAR, 53), timeout=None))
    try:
        folder = f"/etc/netns/{world.desk.name}"
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/resolv.conf", "w") as f:
            f.write(f"nameserver {FAR}\noptions timeout:5\n")
        done = subprocess.run(world.desk.wrap(["getent", "ahostsv4", "somewhere.example"]), capture_output=True, text=True, timeout=30)
        assert "203.0.113.77" in done.stdout, done
    finally:
        os.unlink(folder + "/resolv.conf")
        os.rmdir(folder)
        server.stop()


def test_connections_to_the_listener_itself_are_refused(world):
    """They would lead in circles."""
    answer = curl("http://10.1.0.1:15001/", wrap=world.desk.wrap)
    assert answer.exit in (7, 52, 56), answer     # 7: the reset came before curl looked
    world.alice.wait_log("connection was not captured")
    with udp_socket(world.desk, timeout=0.5) as s:
        s.sendto(b"x", ("10.1.0.1", 15001))
        with pytest.raises(TimeoutError):
            s.recv(10)
    world.alice.wait_log("datagram was not captured")


def test_others_pass_untouched(world):
    """What capture does not name is routed as ever."""
    def listen():
        s = socket.socket()
        s.bind(("10.2.0.2", 0))
        s.listen()
        return s
    world.node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    world.far.run("ip", "route", "replace", "10.1.0.0/24", "via", "10.2.0.1")
    with inside(world.far, listen) as server:
        server.settimeout(10)
        with inside(world.desk, lambda: socket.create_connection(server.getsockname(), 10)):
            peer, address = server.accept()
            peer.close()
            assert address[0] == "10.1.0.2"


def test_rules_come_and_go(certs, tmp_path):
    """Without `local` local programs are left alone; reload changes what is captured, stop removes all rules."""
    net = lay_out()
    nodes = []
    try:
        nodes.append(hermes.Node("ingress", far_config(certs), tmp_path, wrap=net.far.wrap))
        nodes.append(hermes.Node("alice", near_config(certs), tmp_path, wrap=net.node.wrap))
        with Server(net.far, FAR, lambda data, peer: peer[0].encode()) as server:
            with udp_socket(net.desk) as s, udp_socket(net.node) as own:
                s.sendto(b"x", (FAR, server.port))
                assert s.recv(100) == FAR.encode()           # the far node asked, from that very machine
                own.sendto(b"x", (FAR, server.port))
                assert own.recv(100) == b"10.2.0.1"
                nodes[1].reload(near_config(certs, {"local": True, "ports": 9}))
                own.sendto(b"x", (FAR, server.port))
                assert own.recv(100) == b"10.2.0.1"          # another port
                nodes[1].reload(near_config(certs, {"local": True}))
                with udp_socket(net.node) as fresh:
                    fresh.sendto(b"x", (FAR, server.port))
                    assert fresh.recv(100) == FAR.encode()
            assert "tproxy" in net.node.run("nft", "list", "ruleset").stdout
            foreign = lambda: f"{FAR}:{server.port}" in net.node.run("ss", "-unl").stdout
            assert foreign()
            nodes[1].reload({**near_config(certs), "listeners": []})
            wait_for(lambda: not foreign() and not udp_flows(nodes[1]))
            assert "tproxy" not in net.node.run("nft", "list", "ruleset").stdout
            nodes[1].reload(near_config(certs, {"local": True}))
            nodes.pop().stop()
            assert "tproxy" not in net.node.run("nft", "list", "ruleset").stdout
            with udp_socket(net.node) as s:
                s.sendto(b"x", (FAR, server.port))
                assert s.recv(100) == b"10.2.0.1"
        nodes.pop().stop()
    finally:
        for n in nodes:
            print(n.log())
            n.kill()
        net.lab.close()


def test_flows_are_captured_ones(world):
    with Server(world.far, FAR, lambda data, _: data) as server, udp_socket(world.desk) as s:
        s.sendto(b"x", (FAR, server.port))
        assert s.recv(10) == b"x"
        flow = next(f for f in udp_flows(world.alice) if f["authority"] == f"{FAR}:{server.port}")
        assert flow["source"] == "10.1.0.2" and flow["listener"] == "captured" and flow["user"] == "alice"
