# SPDX-License-Identifier: Apache-2.0
"""Four nodes in a row, three links between them at 10 Mbit/s, only one of them up at a time: plain curl downloads and uploads
through it, without a retry of its own, and what arrives is whole."""
import hashlib
import os
import subprocess
import threading
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

    def download(self, path="/big", proxy=False, limit=100, whole=True):
        """Seconds that it took."""
        began = time.monotonic()
        curl = self.curl(self.url(path, proxy), proxy=proxy, limit=limit)
        out, error = curl.communicate()
        assert curl.returncode == 0, error
        assert not whole or hashlib.sha256(out).hexdigest() == self.nginx.big_digest
        return time.monotonic() - began


@pytest.fixture
def row(node, certs, tmp_path):
    with netlab.Lab() as lab:
        yield lambda *args, **options: Row(lab, node, certs, tmp_path, *args, **options)


RUNS = int(os.environ.get("OUTAGE_RUNS", "0"))     # of the figures, which take long: ANCHORS.md section 6


@pytest.mark.skipif(not RUNS, reason="figures: OUTAGE_RUNS says how many")
@pytest.mark.seconds(900)
@pytest.mark.parametrize("plain", [False, True], ids=["nodes", "plain"])
@pytest.mark.parametrize("size", [1, 5])
def test_figures(row, size, plain):
    r = row(size * 1000 * 1000, plain=plain, rate="10mbit", delay="1ms")
    r.take_turns()
    seconds = [r.download(limit=300) for _ in range(RUNS)]
    print(f"FIGURE size={size}MB plain={plain} seconds={' '.join(f'{s:.1f}' for s in seconds)}")


@pytest.mark.parametrize("proxy", [False, True], ids=["tcp", "connect"])
def test_one_link_up_at_a_time(row, proxy):
    """From before the first connection is made, to the end."""
    r = row(1000 * 1000, rate="10mbit", delay="1ms")
    r.take_turns()
    r.download(proxy=proxy)


@pytest.mark.seconds(200)
def test_a_hundred_megabytes(row):
    r = row(100 * MIB, rate="200mbit", queue="1MiB", delay="1ms")
    r.download("/index.html", whole=False)
    r.take_turns("500ms", "1s")
    r.download(limit=180)


def test_upload(row):
    r = row(1000, rate="50mbit", delay="1ms")
    path = r.nginx.folder / "up"
    digest = servers.make_file(path, 5 * MIB)
    r.take_turns("500ms", "1s")
    curl = r.curl("-T", str(path), r.url("/up/file"))
    out, error = curl.communicate()
    assert curl.returncode == 0, error
    assert hashlib.sha256((r.nginx.root / "up/file").read_bytes()).hexdigest() == digest


def reset_all(space, device):
    """Every TCP connection that comes in there is answered by a reset; until mended."""
    space.run("nft", f'add table inet cut; add chain inet cut in {{ type filter hook input priority 0; }}; '
              f'add rule inet cut in iifname "{device}" meta l4proto tcp reject with tcp reset')


def test_links_that_die_by_resets(row):
    """Each in turn, and a node in the middle is killed."""
    r = row(40 * MIB, rate="50mbit", delay="1ms")
    curl = r.curl(r.url("/big"))
    digest = hashlib.sha256()
    reader = threading.Thread(target=lambda: [digest.update(d) for d in iter(lambda: curl.stdout.read(65536), b"")])
    reader.start()
    time.sleep(1)
    for i in range(3):
        reset_all(r.spaces[i + 1], r.links[i].name_b)
        time.sleep(0.7)
        r.spaces[i + 1].run("nft", "delete table inet cut")
        time.sleep(1)
    r.nodes[1].kill()
    time.sleep(0.5)
    r.nodes[1].start()
    reader.join(100)
    assert curl.wait(10) == 0, curl.stderr.read()
    assert digest.hexdigest() == r.nginx.big_digest
    assert "tunnel resumed" in r.nodes[0].log() and "tunnel joined" in r.nodes[3].log()
