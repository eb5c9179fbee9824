# SPDX-License-Identifier: Apache-2.0
"""Workers are replaced under traffic: their flows go over to their successors, and nobody at either side notices."""
import collections
import contextlib
import selectors
import socket
import struct
import threading
import time

import pytest

from hermes import free_port, wait_for
from numbered import Echo, Numbered
from test_resume import DGRAM, client_config, far_config, middle_config


def replace(node, name="tunnel-0"):
    """Orderly; back when the new one serves and has taken over."""
    before = node.log().count("flows taken over")
    node.admin("workers", "restart", name)
    wait_for(lambda: node.log().count("flows taken over") > before, 20, message=f"the successor of {name} of {node.name}")
    node.admin("wait", "ready", "--timeout", "20")


def flows(node):
    return [f for f in node.admin("flows", "list", json=True)["flows"] if f.get("protocol") == "connect-udp"]


def nobody_lost_anything(*nodes):
    for node in nodes:
        log = node.log()
        for word in ("tunnel lost", "flow not taken over", "flow not handed over", "says nothing"):
            assert word not in log, (node.name, word)


@pytest.fixture
def three(node, certs):
    """alice, a middle node, the far end with an echo; one worker each."""
    port, overlay, between = free_port(DGRAM), free_port(), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port, tunnel_workers=1))
        config = middle_config(certs, between, overlay)
        config["node"]["tunnel_workers"] = 1
        middle = node("middle", config)
        config = client_config(certs, port, between, tunnel_workers=1)
        config["clusters"][0]["tls"] = {"server_name": "middle.example.net"}
        alice = node("alice", config)
        yield port, echo, {"alice": alice, "middle": middle, "ingress": far}


@pytest.mark.parametrize("which", ["alice", "middle", "ingress"])
def test_udp_flows_live_on(three, which):
    port, echo, nodes = three
    program = Numbered(port)
    program.answered(300)
    for _ in range(3):
        replace(nodes[which])
        program.answered(500)
    program.stop()
    program.check(echo)
    assert len(echo.peers) == 1                    # the same socket at the far end
    nobody_lost_anything(*nodes.values())
    assert [f["state"] for f in flows(nodes["alice"]) if f["idle_seconds"] < 5] == ["STREAMING"]


def test_both_ends_at_once(three):
    port, echo, nodes = three
    program = Numbered(port)
    program.answered(300)
    for _ in range(3):
        for node in nodes.values():
            node.admin("workers", "restart", "tunnel-0")
        time.sleep(1.5)
        program.answered(500)
    program.stop()
    program.check(echo)
    assert len(echo.peers) == 1
    nobody_lost_anything(*nodes.values())


class Many:
    """Programs with a socket each, by turns, 2,000 datagrams a second together; each numbered."""

    def __init__(self, port, count):
        self.socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for s in self.socks:
            s.connect(("127.0.0.1", port))
        self.sent, self.ending, self.counts = 0, False, collections.Counter()
        self.threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._receive)]
        for t in self.threads:
            t.start()

    def _send(self):
        began = time.monotonic()
        while not self.ending:
            while self.sent < int((time.monotonic() - began) * 2000):
                self.socks[self.sent % len(self.socks)].send(struct.pack("!I", self.sent))
                self.sent += 1
            time.sleep(0.005)

    def _receive(self):
        with selectors.DefaultSelector() as selector:
            for i, s in enumerate(self.socks):
                selector.register(s, selectors.EVENT_READ, i)
            until = None
            while not until or time.monotonic() < until and len(self.counts) < self.sent:
                for key, _ in selector.select(0.2):
                    number = struct.unpack("!I", key.fileobj.recv(100))[0]
                    assert number % len(self.socks) == key.data
                    self.counts[number] += 1
                if self.ending:
                    until = until or time.monotonic() + 20

    def answered(self, more):
        want = len(self.counts) + more
        wait_for(lambda: len(self.counts) >= want, 30, message=f"{more} more datagrams")

    def stop(self):
        self.ending = True
        for t in self.threads:
            t.join()
        for s in self.socks:
            s.close()


def test_many_flows(three):
    """200 programs, each with datagrams under way."""
    port, echo, nodes = three
    programs = Many(port, 200)
    programs.answered(2000)
    for name in ("alice", "ingress", "middle", "alice", "ingress"):
        replace(nodes[name])
        programs.answered(2000)
    programs.stop()
    for counts in (echo.counts, programs.counts):
        lost = [n for n in range(programs.sent) if not counts[n]]
        assert not lost and set(counts.values()) == {1}, (len(lost), lost[:5], programs.sent)
    assert len(echo.peers) == 200
    nobody_lost_anything(*nodes.values())
    assert "flows=200" in nodes["alice"].log()


def test_flows_that_begin_meanwhile(three):
    """Programs that ask once, each from a port of its own, 100 a second: all are answered."""
    port, echo, nodes = three
    asked, answered, stop = [], set(), threading.Event()

    def ask():
        while not stop.is_set():
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.connect(("127.0.0.1", port))
            s.send(struct.pack("!I", len(asked)))
            asked.append(s)
            time.sleep(0.01)

    def collect():
        for n, s in enumerate(asked[:]):
            with contextlib.suppress(BlockingIOError):
                if n not in answered:
                    assert struct.unpack("!I", s.recv(100, socket.MSG_DONTWAIT))[0] == n
                    answered.add(n)
        return len(answered) == len(asked)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    for name in ("alice", "ingress", "middle") * 2:
        replace(nodes[name])
        time.sleep(0.3)
    stop.set()
    thread.join()
    wait_for(collect, 20, message="all answers")
    assert set(echo.counts.values()) == {1}
    for s in asked:
        s.close()


def test_within_one_node(node, certs):
    """Both ends of a tunnel in the same worker: from the program's socket straight to the target's."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        config = far_config(certs, overlay, echo.port, tunnel_workers=1)
        config["listeners"].append({"name": "echo", "address": f"127.0.0.1:{port}", "accept": "udp", "target": "ECHO:7"})
        only = node("ingress", config)
        program = Numbered(port)
        program.answered(300)
        for _ in range(3):
            replace(only)
            program.answered(500)
        program.stop()
        program.check(echo)
        assert len(echo.peers) == 1
        nobody_lost_anything(only)


def test_several_workers(node, certs):
    """The stream that comes back may come to another worker, which asks the new one."""
    port, overlay = free_port(DGRAM), free_port()
    with Echo() as echo:
        far = node("ingress", far_config(certs, overlay, echo.port, tunnel_workers=3))
        alice = node("alice", client_config(certs, port, overlay, tunnel_workers=2))
        programs = [Numbered(port, rate=200) for _ in range(4)]
        for p in programs:
            p.answered(50)
        for n, names in ((far, range(3)), (alice, range(2))):
            for i in names:
                replace(n, f"tunnel-{i}")
        for p in programs:
            p.answered(100)
            p.stop()
            assert len(p.counts) == p.sent and set(p.counts.values()) == {1}
        assert len(echo.peers) == 4
        nobody_lost_anything(far, alice)


def test_several_far_ends(node, certs):
    """Who goes on does so where it was, of all the endpoints that there are."""
    port, overlays = free_port(DGRAM), [free_port() for _ in range(3)]
    with Echo() as echo:
        fars = []
        for i, overlay in enumerate(overlays):
            config = far_config(certs, overlay, echo.port, tunnel_workers=1)
            config["node"]["name"] = f"ingress-{i}"
            fars.append(node(f"ingress-{i}", config))
        config = client_config(certs, port, overlays[0], tunnel_workers=1)
        config["clusters"][0]["endpoints"] = [f"127.0.0.1:{p}" for p in overlays]
        alice = node("alice", config)
        programs = [Numbered(port, rate=200) for _ in range(6)]
        for p in programs:
            p.answered(50)
        for n in (alice, *fars, alice):
            replace(n)
        for p in programs:
            p.answered(100)
            p.stop()
            assert len(p.counts) == p.sent and set(p.counts.values()) == {1}
        assert len(echo.peers) == 6
        nobody_lost_anything(alice, *fars)


def test_a_successor_that_is_replaced_at_once(three):
    """It is told to stop while it still takes over: it passes on what it has."""
    port, echo, nodes = three
    program = Numbered(port)
    program.answered(300)
    for name in ("ingress", "alice"):
        for _ in range(3):
            nodes[name].admin("workers", "restart", "tunnel-0", check=False)
        program.answered(1500, timeout=60)
    program.stop()
    program.check(echo)
    assert len(echo.peers) == 1
    nobody_lost_anything(*nodes.values())
