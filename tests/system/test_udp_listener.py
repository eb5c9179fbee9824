# SPDX-License-Identifier: Apache-2.0
"""UDP programs through two nodes: a listener with `accept: udp` on the one, `carry: udp` on the other."""
import json
import os
import signal
import socket
import struct
import threading
import time
from types import SimpleNamespace

import pytest

import hermes
from hermes import free_port, wait_for

DGRAM = socket.SOCK_DGRAM


class UdpServer:
    """Answers each datagram by answer(data, address): bytes, a list of them, or None. Keeps what came."""

    def __init__(self, answer=lambda data, _: data, address="127.0.0.1", port=0, sock=None):
        self.sock = sock or socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if not sock:
            self.sock.bind((address, port))
        self.port = self.sock.getsockname()[1]
        self.answer, self.got, self.peers = answer, [], set()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                data, peer = self.sock.recvfrom(65536)
            except OSError:
                return
            if data == b"\0end":
                return
            self.got.append(data)
            self.peers.add(peer)
            answers = self.answer(data, peer)
            for a in answers if isinstance(answers, list) else [answers]:
                if a is not None:
                    self.sock.sendto(a, peer)

    def stop(self):
        name = self.sock.getsockname()
        with socket.socket(self.sock.family, DGRAM) as s:
            s.sendto(b"\0end", name[:2])
        self.thread.join(5)
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


def client(port, host="127.0.0.1", timeout=10, bind=None):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.settimeout(timeout)
    if bind:
        s.bind(bind)
    s.connect((host, port))
    return s


def ask(sock, data):
    sock.send(data)
    return sock.recv(65536)


def outer(certs, port, overlay, **more):
    """alice: programs send to `port`; everything goes to the target ECHO:7 by way of ingress."""
    config = hermes.alice_config(free_port(), certs, overlay)
    config["listeners"].append({"name": "echo", "address": f"127.0.0.1:{port}", "accept": "udp", "target": "ECHO:7",
                                "add_headers": {"user": "alice"}, **more})
    return config


def inner(certs, overlay, target):
    config = hermes.ingress_config(overlay, certs)
    config["clusters"].append({"name": "echo", "carry": "udp", "endpoints": [f"127.0.0.1:{target}"]})
    config["routes"].insert(0, {"match": {"authority": "ECHO"}, "cluster": "echo"})
    return config


def drops(node, listener="echo"):
    """Dropped datagrams of a listener by reason, over all workers."""
    reasons = {}
    for row in node.admin("stats", "listener_dropped_datagrams", json=True)["metrics"]:
        if row["labels"].get("listener") == listener and row["value"]:
            reason = row["labels"]["reason"]
            reasons[reason] = reasons.get(reason, 0) + row["value"]
    return reasons


def udp_flows(node):
    return [f for f in node.admin("flows", "list", json=True)["flows"] if f.get("protocol") == "connect-udp"]


@pytest.fixture(scope="module")
def pair(session_tmp, certs):
    """Two nodes for tests that change nothing. .port: alice's listener; .server: what it leads to."""
    p = SimpleNamespace(port=free_port(DGRAM), overlay=free_port())
    with UdpServer() as server:
        p.server = server
        folder = session_tmp / "udp-pair"
        folder.mkdir()
        p.ingress = hermes.Node("ingress", inner(certs, p.overlay, server.port), folder)
        try:
            p.alice = hermes.Node("alice", outer(certs, p.port, p.overlay), folder)
        except BaseException:
            p.ingress.stop(check=False)
            raise
        yield p
        for n in (p.alice, p.ingress):
            n.stop()


def test_a_datagram_there_and_back(pair):
    with client(pair.port) as s:
        for i in range(50):
            assert ask(s, b"hello %d" % i) == b"hello %d" % i


def test_empty_and_large_datagrams(pair):
    with client(pair.port) as s:
        for size in (0, 1, 2, 63, 64, 1200, 1472, 9000, 16384, 40000, 60000, 65507):
            data = bytes(i * 7 & 255 for i in range(size))
            assert ask(s, data) == data, size


def test_an_answer_that_does_not_fit_is_dropped(node, certs):
    """What comes by IPv6 may be longer than IPv4 carries: it is dropped and counted, and the tunnel lives."""
    port, overlay = free_port(DGRAM), free_port()

    def answer(data, _):
        return [b"x" * 65520, data] if data == b"too much" else data
    with UdpServer(answer, "::1") as server:
        far = inner(certs, overlay, 1)
        far["clusters"][-1]["endpoints"] = [f"[::1]:{server.port}"]
        node("ingress", far)
        near = node("alice", outer(certs, port, overlay))
        with client(port) as s:
            assert ask(s, b"one") == b"one"
            assert ask(s, b"too much") == b"too much"
            assert ask(s, b"two") == b"two"
            wait_for(lambda: drops(near) == {"too_long": 1}, message="the datagram is counted")
        assert len(server.peers) == 1           # the same tunnel


def test_boundaries_are_kept(pair):
    """Datagrams of many sizes at once come back each as it was, in order."""
    with client(pair.port) as s:
        sent = [b"%06d" % i + b"x" * (i * 131 % 1400) for i in range(400)]
        got = []
        for start in range(0, len(sent), 50):
            for data in sent[start:start + 50]:
                s.send(data)
            got += [s.recv(65536) for _ in range(50)]
        assert got == sent


def test_bursts_of_equal_datagrams(pair):
    """What the kernel joins and cuts (GRO, GSO) arrives as it was sent, the shorter last one too."""
    with client(pair.port) as s:
        for size in (1, 100, 1200, 1472):
            sent = [struct.pack("!I", i) * (size // 4 + 1) for i in range(64)]
            sent = [d[:size] for d in sent[:-1]] + [b"end"]
            for data in sent:
                s.send(data)
            assert [s.recv(65536) for _ in sent] == sent


def test_a_thousand_clients(pair):
    """Each client is a flow of its own and gets its own answers; the target sees as many sockets."""
    socks = [client(pair.port, timeout=20) for _ in range(1000)]
    pair.server.peers.clear()
    try:
        for start in range(0, 1000, 100):
            some = socks[start:start + 100]
            for i, s in enumerate(some):
                s.send(b"client %d" % (start + i))
            for i, s in enumerate(some):
                assert s.recv(100) == b"client %d" % (start + i)
        assert len(pair.server.peers) == 1000
        assert len(udp_flows(pair.alice)) >= 1000
        for i, s in enumerate(socks):
            s.send(b"again %d" % i)
            assert s.recv(100) == b"again %d" % i
        assert len(pair.server.peers) == 1000
    finally:
        for s in socks:
            s.close()


def test_answers_without_questions(node, certs, tmp_path):
    """What the target sends by itself arrives, as much as it sends."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer(lambda data, _: [b"%05d" % i + data for i in range(int(data))]) as server:
        node("ingress", inner(certs, overlay, server.port))
        node("alice", outer(certs, port, overlay))
        with client(port) as s:
            s.send(b"500")
            assert [s.recv(100) for _ in range(500)] == [b"%05d500" % i for i in range(500)]


def test_flows_are_shown(pair):
    with client(pair.port) as s:
        ask(s, b"x")
        mine = [f for f in udp_flows(pair.alice) if f["bytes_in"]]
        assert mine and all(f["method"] == "CONNECT-UDP" and f["authority"].upper() == "ECHO:7" for f in mine)
        assert all(f["carry_in"] == "udp" and f["listener"] == "echo" and f["user"] == "alice" for f in mine)
        assert all(f["carry_out"] == "udp" and f["user"] == "alice" for f in udp_flows(pair.ingress))
    rows = pair.alice.admin("listeners", "list", json=True)["listeners"]
    assert [r["protocol"] for r in rows if r["name"] == "echo"] == ["udp"]


def test_any_address_answers_from_where_it_was_asked(node, certs):
    """":port" takes IPv4 and IPv6; answers come from the address that was asked (a connected client takes no others)."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        config["listeners"][-1]["address"] = f":{port}"
        node("alice", config)
        for host in ("127.0.0.1", "127.0.0.2", "127.7.7.7", "::1"):
            with client(port, host) as s:
                assert ask(s, b"to " + host.encode()) == b"to " + host.encode()
                assert ask(s, b"again") == b"again"


def test_same_client_two_addresses(node, certs):
    """One client socket that asks two of our addresses has two flows, and the answers do not cross."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        config["listeners"][-1]["address"] = f"0.0.0.0:{port}"
        node("alice", config)
        with socket.socket(socket.AF_INET, DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            s.settimeout(10)
            for host in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
                s.sendto(host.encode(), (host, port))
                assert s.recvfrom(100) == (host.encode(), (host, port))
        assert len(server.peers) == 2


# --- refusals -----------------------------------------------------------------------------------------------------------------

def test_a_node_between_ends_one_tunnel_and_opens_another(node, certs):
    """Its datagrams are plain in between: from a UDP cluster into a UDP listener of the same node."""
    port, between = free_port(DGRAM), free_port(DGRAM)
    first, second = free_port(), free_port()
    with UdpServer() as server:
        node("exit", {**inner(certs, second, server.port), "node": {"name": "exit", "domain": "example.net"},
                      "identity": certs.identity("exit")})
        middle = inner(certs, first, between)
        middle["listeners"].append({"name": "again", "address": f"127.0.0.1:{between}", "accept": "udp", "target": "ECHO:9",
                                    "add_headers": {"user": "bob"}})
        middle["clusters"].append({"name": "exit", "carry": "h2", "tls": {"server_name": "exit.example.net"},
                                   "endpoints": [f"127.0.0.1:{second}"]})
        middle["routes"].insert(0, {"match": {"listener": "again"}, "cluster": "exit"})
        middle = node("ingress", middle)
        node("alice", outer(certs, port, first))
        with client(port) as a, client(port) as b:
            for i in range(20):
                assert ask(a, b"a%d" % i) == b"a%d" % i and ask(b, b"b%d" % i * 300) == b"b%d" % i * 300
            users = sorted((f["listener"], f["user"]) for f in udp_flows(middle))
            assert users == [("again", "bob")] * 2 + [("from-nodes", "alice")] * 2
        assert len(server.peers) == 2


def test_denied(node, certs):
    """A refusal is remembered for a second: a flood asks no storm of questions."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        config["policies"] = [{"name": "nobody", "match": {"authority": "ECHO"}, "default": "deny"}]
        alice = node("alice", config)
        with client(port, timeout=0.3) as s:
            for i in range(300):
                s.send(b"x" * 100)
            with pytest.raises(TimeoutError):
                s.recv(100)
            wait_for(lambda: drops(alice).get("no_tunnel") == 300)
            flows = alice.admin("stats", "listener_flows", json=True)["metrics"]
            assert sum(r["value"] for r in flows if r["labels"].get("listener") == "echo") == 1
            assert not server.got and not udp_flows(alice)
            del config["policies"]
            alice.reload(config)

            def answered():
                s.send(b"now")
                try:
                    return s.recv(100) == b"now"
                except TimeoutError:
                    return False
            wait_for(answered)


def test_denied_while_it_lives(node, certs):
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        alice = node("alice", config)
        with client(port, timeout=0.5) as s:
            assert ask(s, b"1") == b"1"
            alice.reload({**config, "policies": [{"name": "nobody", "match": {"authority": "ECHO"}, "default": "deny"}]})
            wait_for(lambda: not udp_flows(alice))
            s.send(b"2")
            with pytest.raises(TimeoutError):
                s.recv(100)


def test_full_table(node, certs):
    """limits.flows: more clients than that are not served, those that are, go on."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay, limits={"flows": 5})
        config["node"]["tunnel_workers"] = 1
        alice = node("alice", config)
        socks = [client(port, timeout=10) for _ in range(5)]
        for s in socks:
            assert ask(s, b"in") == b"in"
        with client(port, timeout=0.3) as late:
            for _ in range(3):
                late.send(b"late")
            with pytest.raises(TimeoutError):
                late.recv(100)
            wait_for(lambda: drops(alice).get("table_full") == 3)
        for s in socks:
            assert ask(s, b"still") == b"still"
            s.close()
        assert b"late" not in server.got


def test_nobody_there(node, certs):
    """While the next hop is away datagrams are dropped and counted; when it is back they pass."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        alice = node("alice", outer(certs, port, overlay))
        with client(port, timeout=0.3) as s:
            s.send(b"lost")
            wait_for(lambda: drops(alice).get("no_tunnel") == 1)
            node("ingress", inner(certs, overlay, server.port))

            def answered():
                s.send(b"now")
                try:
                    return s.recv(100) == b"now"
                except TimeoutError:
                    return False
            wait_for(answered, timeout=20)
        assert b"lost" not in server.got


def test_what_comes_before_the_tunnel_waits(node, certs):
    """Datagrams sent while the tunnel is being opened arrive, all and in order."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        node("alice", outer(certs, port, overlay))
        with client(port) as s:
            sent = [b"%03d" % i + b"." * 1000 for i in range(200)]
            for data in sent:
                s.send(data)
            assert [s.recv(2000) for _ in sent] == sent


def test_unreachable_ends_the_flow(node, certs):
    """ICMP port unreachable at the target ends the flow; the next datagram begins a new one, which works once somebody listens."""
    port, overlay, target = free_port(DGRAM), free_port(), free_port(DGRAM)
    ingress = node("ingress", inner(certs, overlay, target))
    alice = node("alice", outer(certs, port, overlay))
    with client(port, timeout=0.5) as s:
        s.send(b"nobody")
        wait_for(lambda: alice.admin("stats", "listener_flows", json=True))
        wait_for(lambda: not udp_flows(alice) and not udp_flows(ingress))
        with UdpServer(port=target) as server:
            def answered():
                s.send(b"somebody")
                try:
                    return s.recv(100) == b"somebody"
                except TimeoutError:
                    return False
            wait_for(answered)
            assert b"nobody" not in server.got


def test_idle_flows_end_in_peace(node, certs, tmp_path):
    """A flow on which nothing moves ends without an error and without a reset, and another begins with the next datagram."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        far, near = inner(certs, overlay, server.port), outer(certs, port, overlay)
        for config, name in ((far, "far"), (near, "near")):
            for route in config["routes"]:
                route["timeout"] = {"idle": "1s"}
            config["telemetry"] = {"access_log": [{"to": str(tmp_path / f"{name}.log"), "format": "json"}]}
        node("ingress", far)
        alice = node("alice", near)

        def records(name):
            path = tmp_path / f"{name}.log"
            return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        with client(port) as s:
            for i in range(2):
                assert ask(s, b"x") == b"x"
                wait_for(lambda: not udp_flows(alice))
                for name in ("near", "far"):
                    wait_for(lambda: len(records(name)) > i)
        assert len(server.peers) == 2
        for name in ("near", "far"):
            assert [r["result"] for r in records(name)] == ["ok", "ok"], records(name)
        failures = alice.admin("stats", "cluster_failures", json=True)["metrics"]
        assert sum(r["value"] for r in failures) == 0


# --- workers and changes --------------------------------------------------------------------------------------------------------

class Traffic(threading.Thread):
    """Sends numbered datagrams at a steady pace and collects the answers."""

    def __init__(self, port, pace=0.002):
        super().__init__(daemon=True)
        self.sock, self.pace = client(port, timeout=0.2), pace
        self.sent, self.got, self.stopping = 0, [], False
        self.reader = threading.Thread(target=self._read, daemon=True)

    def run(self):
        self.reader.start()
        while not self.stopping:
            self.sock.send(b"%08d" % self.sent)
            self.sent += 1
            time.sleep(self.pace)

    def _read(self):
        idle = 0
        while idle < 5:
            try:
                self.got.append(int(self.sock.recv(100)))
                idle = 0
            except TimeoutError:
                idle += self.stopping

    def finish(self):
        self.stopping = True
        self.join()
        self.reader.join()
        self.sock.close()
        return self.sent, self.got


def test_reload_under_traffic(node, certs):
    """Changes that do not concern a flow lose nothing of it: not one datagram in ten reloads, on two workers."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        ingress = node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        config["node"]["tunnel_workers"] = 2
        alice = node("alice", config)
        loads = [Traffic(port) for _ in range(6)]
        for load in loads:
            load.start()
        for i in range(10):
            changed = {**config, "listeners": config["listeners"] + [
                {"name": f"more-{i}", "address": f"127.0.0.1:{free_port(DGRAM)}", "accept": "udp", "target": "X:1"}]}
            alice.reload(changed if i % 2 else config)
            if i == 5:
                ingress.reload({**inner(certs, overlay, server.port), "overlay_headers": ["x-new"]})
        for load in loads:
            sent, got = load.finish()
            assert got == list(range(sent)), f"{sent} sent, {len(got)} back"
        assert len(server.peers) == len(loads)


def test_new_target_for_new_flows(node, certs):
    """The listener's target changes: who comes anew goes there."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer(lambda data, _: b"one " + data) as one, UdpServer(lambda data, _: b"two " + data) as two:
        config = inner(certs, overlay, one.port)
        config["clusters"].append({"name": "two", "carry": "udp", "endpoints": [f"127.0.0.1:{two.port}"]})
        config["routes"].insert(0, {"match": {"authority": "OTHER"}, "cluster": "two"})
        node("ingress", config)
        config = outer(certs, port, overlay)
        alice = node("alice", config)
        with client(port) as old, client(port) as new:
            assert ask(old, b"a") == b"one a"
            config["listeners"][-1]["target"] = "OTHER:7"
            alice.reload(config)
            assert ask(new, b"b") == b"two b"
            assert ask(old, b"c") == b"one c"       # it was asked for ECHO:7, and goes on there


def test_listener_goes_and_comes(node, certs):
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        alice = node("alice", config)
        with client(port) as s:
            assert ask(s, b"a") == b"a"
            alice.reload({**config, "listeners": config["listeners"][:1]})
            wait_for(lambda: not udp_flows(alice))
            with client(port, timeout=5) as refused:
                refused.send(b"x")
                with pytest.raises(ConnectionRefusedError):
                    refused.recv(100)
            alice.reload(config)
            with client(port) as again:
                assert ask(again, b"b") == b"b"


def test_address_in_use_is_named(node, certs):
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer(port=port), UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, free_port(DGRAM), overlay)
        alice = node("alice", config)
        config["listeners"][-1]["address"] = f"127.0.0.1:{port}"
        with pytest.raises(hermes.AdminError) as refused:
            alice.reload(config)
        assert "listener echo" in refused.value.stderr and "ss -lunp" in refused.value.stderr


def test_sockets_of_a_refused_configuration_are_closed(node, certs):
    """What was bound for a configuration that is refused goes again; the one in force serves on."""
    port, overlay, new = free_port(DGRAM), free_port(), free_port(DGRAM)
    with UdpServer() as server, UdpServer() as other, client(port) as s:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        alice = node("alice", config)
        assert ask(s, b"a") == b"a"
        more = [{"name": f"new-{i}", "address": f"127.0.0.1:{p}", "accept": "udp", "target": "X:1"}
                for i, p in enumerate((new, other.port))]
        assert alice.reload({**config, "listeners": config["listeners"] + more}, check=False).returncode == 1
        with client(new, timeout=5) as nobody, pytest.raises(ConnectionRefusedError):
            nobody.send(b"x")
            nobody.recv(10)
        assert ask(s, b"b") == b"b"
        assert len(server.peers) == 1


def test_a_client_stays_with_its_worker(node, certs):
    """Sockets are shared out by the kernel: each client's datagrams all reach one worker, and a replaced worker's clients its
    successor."""
    port, overlay = free_port(DGRAM), free_port()
    with UdpServer() as server:
        node("ingress", inner(certs, overlay, server.port))
        config = outer(certs, port, overlay)
        config["node"]["tunnel_workers"] = 2
        alice = node("alice", config)
        socks = [client(port) for _ in range(40)]
        for _ in range(5):
            for s in socks:
                assert ask(s, b"x") == b"x"
        flows = udp_flows(alice)
        assert len(flows) == 40 and len(server.peers) == 40        # nobody has flows on two workers
        assert {f["worker"] for f in flows} == {0, 1}
        alice.admin("workers", "restart", "tunnel-0")
        killed = next(w["pid"] for w in alice.admin("workers", "list", json=True)["workers"] if w["name"] == "tunnel-1")
        os.kill(killed, signal.SIGKILL)
        for s in socks:
            def answered():
                s.send(b"y")
                s.settimeout(0.5)
                try:
                    return s.recv(100) in (b"y", b"x")
                except TimeoutError:
                    return False
            wait_for(answered)
            s.close()
