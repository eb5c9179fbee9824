# SPDX-License-Identifier: Apache-2.0
"""Four nodes in a row, three links between them at 10 Mbit/s, only one of them up at a time: plain curl downloads and uploads
through it, without a retry of its own, and what arrives is whole."""
import hashlib
import os
import subprocess
import time

import pytest

import hermes
import netlab
import servers
from hermes import free_port

MIB = 1 << 20
NAMES = ["alice", "east", "west", "ingress"]
pytestmark = pytest.mark.skipif(not netlab.available(), reason="needs root, namespaces and TUN")


class Row:
    """alice - east - west - ingress, each in its namespace, a web server beside the last; plain: instead of the last node, so
    that the last link carries plain TCP."""

    def __init__(self, lab, node, certs, folder, size, plain=False, **shape):
        self.spaces = [lab.namespace(n) for n in NAMES]
        self.links = [lab.emulated_link(self.spaces[i], f"10.77.{i}.1/24", self.spaces[i + 1], f"10.77.{i}.2/24", **shape)
                      for i in range(3)]
        self.nginx = servers.Nginx(folder / "nginx", big=size, address="10.77.2.2" if plain else "127.0.0.1",
                                   extra="client_body_buffer_size 1m; dav_methods PUT;", wrap=self.spaces[3].wrap)
        (self.nginx.root / "up").mkdir(mode=0o777)
        (self.nginx.root / "up").chmod(0o777)
        port = free_port()
        self.nodes = []
        for i, name in list(enumerate(NAMES))[:3 if plain else 4][::-1]:
            config = {"node": {"name": name, "domain": "example.net", "resume_timeout": "60s", "resume_bytes": "16MiB"},
                      "identity": certs.identity(name), "routes": [{"match": {}, "cluster": "next"}]}
            if i == 0:
                self.proxy = free_port()
                config["listeners"] = [{"name": "apps", "address": f"127.0.0.1:{self.proxy}", "accept": "http",
                                        "add_headers": {"user": "alice"}},
                                       {"name": "web", "address": f"127.0.0.1:{self.proxy + 1}", "accept": "tcp",
                                        "target": f"{self.nginx.address}:{self.nginx.port}"}]
            else:
                config["listeners"] = [{"name": "from-nodes", "address": f"10.77.{i - 1}.2:{port}", "accept": "overlay"}]
            if i == (2 if plain else 3):
                config["clusters"] = [{"name": "next", "carry": "tcp", "endpoints": "target", "connect_timeout": "30s",
                                       "allow_targets": ["loopback", "private"]}]
            else:
                config["clusters"] = [{"name": "next", "carry": "h2", "tls": {"server_name": f"{NAMES[i + 1]}.example.net"},
                                       "endpoints": [f"10.77.{i}.2:{port}"], "connect_timeout": "30s"}]
            self.nodes.insert(0, node(name, config, wrap=self.spaces[i].wrap))

    def take_turns(self, up="1s", down="2s"):
        for i, link in enumerate(self.links):
            link.set(outages=(up, down, f"{i}s"))

    def curl(self, *args, proxy=False, limit=100):
        """By CONNECT (proxy), or by the listener that makes one of each connection."""
        line = ["curl", "-sS", "--max-time", str(limit), *(["-p", "-x", f"http://127.0.0.1:{self.proxy}"] if proxy else []), *args]
        return subprocess.Popen(self.spaces[0].wrap(line), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def url(self, path, proxy=False):
        return f"http://{self.nginx.address}:{self.nginx.port}{path}" if proxy else f"http://127.0.0.1:{self.proxy + 1}{path}"

    def download(self, path="/big", proxy=False, limit=100):
        """Seconds that it took."""
        began = time.monotonic()
        curl = self.curl(self.url(path, proxy), proxy=proxy, limit=limit)
        out, error = curl.communicate()
        assert curl.returncode == 0, error
        assert hashlib.sha256(out).hexdigest() == self.nginx.big_digest
        return time.monotonic() - began


@pytest.fixture
def row(node, certs, tmp_path):
    with netlab.Lab() as lab:
        yield lambda *args, **options: Row(lab, node, certs, tmp_path, *args, **options)


@pytest.mark.seconds(900)
@pytest.mark.parametrize("plain", [False, True], ids=["nodes", "plain"])
@pytest.mark.parametrize("size", [1, 5])
def test_one_link_up_at_a_time(row, size, plain):
    r = row(size * 1000 * 1000, plain=plain, rate="10mbit", delay=os.environ.get("OUTAGE_DELAY", "1ms"))
    r.take_turns()
    seconds = [r.download(limit=300) for _ in range(int(os.environ.get("OUTAGE_RUNS", "1")))]
    print(f"FIGURE size={size}MB plain={plain} seconds={' '.join(f'{s:.1f}' for s in seconds)}")
