# SPDX-License-Identifier: Apache-2.0
"""Configuration that changes again and again under load: no request fails, no tunnel breaks, nothing piles up."""
import copy
import socket
import threading

import pytest

import hermes
import servers
from hermes import curl, wait_for
from test_acceptance_changes import lives, open_tunnel

ROUNDS = 12


class Load(threading.Thread):
    """Requests, each on a connection of its own or on one that is kept, until told to stop; .failed holds what went wrong."""

    def __init__(self, port, keep):
        super().__init__(daemon=True)
        self.port, self.keep, self.failed, self.done, self.stopping = port, keep, [], 0, False
        self.sock = None

    def ask(self):
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self.port), 20)
            self.sock.settimeout(20)
            self.file = self.sock.makefile("rb")
        body = b"x" * (self.done * 37 % 3000)
        self.sock.sendall(b"POST http://web/digest HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n%s\r\n%s"
                          % (len(body), b"" if self.keep else b"Connection: close\r\n", body))
        line = self.file.readline()
        length, close, why = 0, not self.keep, b""
        while (field := self.file.readline().strip().lower()):
            why = field if field.startswith(b"proxy-status") else why
            length = int(field.split(b":")[1]) if field.startswith(b"content-length") else length
            close |= field == b"connection: close"
        assert line.startswith(b"HTTP/1.1 200"), f"{line} {why}"
        assert self.file.read(length).endswith(b" %d\n" % len(body))
        if close:
            self.sock.close()
            self.sock = None

    def run(self):
        while not self.stopping:
            try:
                self.ask()
                self.done += 1
            except Exception as error:      # the test looks at it
                self.failed.append(repr(error))
                self.sock = None


@pytest.mark.seconds(180)
def test_changes_under_load(node, certs, odd):
    apps, overlay, extra = hermes.free_port(), hermes.free_port(), hermes.free_port()
    with servers.TcpEcho() as echo:
        inner = hermes.ingress_config(overlay, certs, clusters=[
            {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]},
            {"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]}],
            routes=[{"match": {"authority": "web"}, "cluster": "web"}, {"match": {}, "cluster": "echo"}])
        inner["listeners"][0]["peers"] = [{"node": "alice", "users": ["alice"]}]
        outer = hermes.alice_config(apps, certs, overlay)
        nodes = node("ingress", inner), node("alice", outer)
        tunnels = [open_tunnel(apps, f"service-{i}:1") for i in range(8)]
        loads = [Load(apps, keep=i % 2 == 0) for i in range(4)]
        for load in loads:
            load.start()
        for i in range(ROUNDS):
            one, two = copy.deepcopy(inner), copy.deepcopy(outer)
            one["listeners"][0]["peers"] = [{"node": "alice", "users": ["alice", f"user-{i}"]}, {"node": f"other-{i}"}]
            one["policies"] = [{"name": f"p{i}", "default": "allow", "rules": [{"deny": {"headers": {f"x-{i}": "1"}}}]}]
            one["clusters"].append({"name": f"more-{i}", "carry": "h1", "endpoints": ["127.0.0.1:9"]})
            two["routes"].insert(0, {"match": {"authority": f"nobody-{i}"}, "cluster": "ingress", "add_headers": {f"x-{i}": "1"}})
            two["clusters"][0]["connect_timeout"] = f"{3 + i % 2}s"
            if i % 2:
                two["listeners"].append({"name": f"extra-{i}", "address": f"127.0.0.1:{extra}", "accept": "http"})
            nodes[0].reload(one)
            nodes[1].reload(two)
            assert all(lives(t) for t in tunnels)
        for load in loads:
            load.stopping = True
        for load in loads:
            load.join(30)
        assert not [f for load in loads for f in load.failed]
        assert all(load.done for load in loads), [load.done for load in loads]
        for t in tunnels:
            t.close()
        for n in nodes:
            wait_for(lambda: not n.admin("flows", "list", json=True)["flows"], message="no flow is left")
            assert n.admin("workers", "list", json=True)["workers"] and not [
                w for w in n.admin("workers", "list", json=True)["workers"] if w["restarts"]]
        assert curl("http://web/", proxy=f"127.0.0.1:{apps}").status == 200


def test_clusters_change_under_load(node, odd):
    """Endpoints come and go, weights, balance and checks change, clusters are renamed: every request finds a next hop."""
    port = hermes.free_port()
    with servers.Odd() as second, servers.Odd() as third:
        all_ports = [odd.port, second.port, third.port]

        def document(i):
            name = f"web-{i // 4}"
            return {"node": {"name": "one", "domain": "example.net", "tunnel_workers": 2, "drain_timeout": "2s"},
                    "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
                    "clusters": [{"name": name, "carry": "h1", "balance": ["round_robin", "least_request", "hash"][i % 3],
                                  "endpoints": [{"address": f"127.0.0.1:{p}", "weight": 1 + (i + p) % 3}
                                                for k, p in enumerate(all_ports) if k != i % 4],
                                  "health_check": {"path": "/status/200", "interval": f"{100 + 50 * (i % 2)}ms",
                                                   "timeout": "1s"}, "ejection": {"failures": 1 + i % 3}}],
                    "routes": [{"match": {}, "cluster": name,
                                "retry": {"on": ["connect-failure", "reset"], "attempts": 2}}]}
        n = node("one", document(0))
        loads = [Load(port, keep=i % 2 == 0) for i in range(4)]
        for load in loads:
            load.start()
        for i in range(1, 2 * ROUNDS):
            n.reload(document(i))
        for load in loads:
            load.stopping = True
        for load in loads:
            load.join(30)
        assert not [f for load in loads for f in load.failed]
        assert {e["cluster"] for e in n.admin("clusters", "list", json=True)["clusters"]} == {f"web-{(2 * ROUNDS - 1) // 4}"}
        assert not [w for w in n.admin("workers", "list", json=True)["workers"] if w["restarts"]]
