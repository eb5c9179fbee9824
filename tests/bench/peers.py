# SPDX-License-Identifier: Apache-2.0
"""The proxies that are measured, each set up for the same two works:
  one: CONNECT over HTTP/2 and TLS from the client, plain TCP (to nghttpx' and HAProxy's next: with an HTTP/1.1 CONNECT of
       its own) to the server; in namespace p
  two: HTTP/1.1 CONNECT over plain TCP from the client to p, HTTP/2 and TLS from p to q, plain TCP to the server
TLS 1.3 with AES-256-GCM everywhere; one worker thread each; windows of 1 MiB a stream, 16 MiB a connection where that can be
set."""
import subprocess

from lab import BUILD, PROXIES, SERVER_PORT, World

ONE, TWO, INNER = 9000, 9001, 9002     # + 100 for each further peer
CIPHER = "TLS_AES_256_GCM_SHA384"
P, Q = World.address("cp"), World.address("pq")


class Peer:
    def __init__(self, world, certs, number):
        self.world, self.certs, self.folder = world, certs, world.folder / self.name
        self.folder.mkdir(exist_ok=True)
        self.ports = {"one": ONE + 100 * number, "two": TWO + 100 * number, "inner": INNER + 100 * number}
        self.server_cert = certs.server("proxy", f"IP:{P}", f"IP:{Q}", out=f"proxy-{self.name}")

    def pids(self, work):
        raise NotImplementedError

    def link(self, work):
        """LINK HOST PORT AUTHORITY for the load generator."""
        server = World.address("ps" if work == "one" else "qs")
        return ("h2" if work == "one" else "h1", P, self.ports[work], f"{server}:{SERVER_PORT}")

    def wait(self):
        self.world.wait_port("c", P, self.ports["one"])
        self.world.wait_port("c", P, self.ports["two"])
        self.world.wait_port("p", Q, self.ports["inner"])


class Nghttpx(Peer):
    name = "nghttpx"

    def start(self):
        crt, key = self.server_cert
        base = ["nghttpx", "--conf=/dev/null", "--http2-proxy", "--workers=1", "--no-ocsp", "--no-via", "--insecure",
                "--errorlog-file=/dev/null", "--accesslog-file=/dev/null", "--backend-connections-per-host=4000",
                f"--tls13-ciphers={CIPHER}", f"--tls13-client-ciphers={CIPHER}", "--frontend-http2-window-size=1048576",
                "--frontend-http2-connection-window-size=16777215", "--backend-http2-window-size=1048576",
                "--backend-http2-connection-window-size=16777215", "--frontend-http2-max-concurrent-streams=1000",
                "--backend-http2-max-concurrent-streams=1000", "--stream-read-timeout=1h",
                "--backend-read-timeout=1h", "--frontend-http2-read-timeout=1h", "--listener-disable-timeout=0"]
        tls = [str(key), str(crt)]
        start = self.world.start
        self.one = start("p", PROXIES, *base, f"--frontend={P},{self.ports['one']}",
                         f"--backend={World.address('ps')},{SERVER_PORT}", *tls, log="nghttpx/one.log")
        self.near = start("p", PROXIES, *base, f"--frontend={P},{self.ports['two']};no-tls",
                          f"--backend={Q},{self.ports['inner']};;proto=h2;tls", log="nghttpx/near.log")
        self.far = start("q", PROXIES, *base, f"--frontend={Q},{self.ports['inner']}",
                         f"--backend={World.address('qs')},{SERVER_PORT}", *tls, log="nghttpx/far.log")
        self.wait()

    def pids(self, work):
        return [self.one.pid] if work == "one" else [self.near.pid, self.far.pid]


class Haproxy(Peer):
    name = "haproxy"
    CONFIG = """
global
  nbthread 1
  maxconn 8000
  tune.bufsize 65536
  tune.h2.initial-window-size 1048576
  tune.h2.max-concurrent-streams 1000
  ssl-default-bind-ciphersuites {cipher}
  ssl-default-server-ciphersuites {cipher}
  ssl-server-verify none
defaults
  mode http
  http-reuse always
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
{rest}
"""

    def _run(self, name, ns, rest):
        path = self.folder / f"{name}.cfg"
        path.write_text(self.CONFIG.format(cipher=CIPHER, rest=rest))
        return self.world.start(ns, PROXIES, "haproxy", "-db", "-f", path, log=f"haproxy/{name}.log")

    def start(self):
        pem = self.folder / "proxy.pem"
        pem.write_text("".join(part.read_text() for part in self.server_cert))
        tls = f"ssl crt {pem} alpn h2"
        self.one = self._run("one", "p", f"""
listen one
  bind {P}:{self.ports['one']} {tls}
  server s {World.address('ps')}:{SERVER_PORT}""")
        self.near = self._run("near", "p", f"""
listen near
  bind {P}:{self.ports['two']}
  server q {Q}:{self.ports['inner']} ssl alpn h2""")
        self.far = self._run("far", "q", f"""
listen far
  bind {Q}:{self.ports['inner']} {tls}
  server s {World.address('qs')}:{SERVER_PORT}""")
        self.wait()

    pids = Nghttpx.pids


class Hermes(Peer):
    name = "hermes"

    def start(self):
        import hermes
        crt, key = self.server_cert

        def node(name, ns, listener, cluster):
            config = {"node": {"name": name, "domain": "example.net", "tunnel_workers": 1},
                      "identity": self.certs.identity(name), "listeners": [listener], "clusters": [cluster],
                      "routes": [{"match": {}, "cluster": cluster["name"]}], "log": {"level": "warn"}}
            wrapped = self.world.wrap(ns, PROXIES)
            return hermes.Node(name, config, self.folder, build=BUILD, wrap=wrapped)

        limits = {"streams": 1000}
        self.one = node("one", "p", {"name": "one", "address": f"{P}:{self.ports['one']}", "accept": "http",
                                     "tls": {"certificate": crt, "key": key}, "limits": limits},
                        {"name": "server", "carry": "tcp", "endpoints": [f"{World.address('ps')}:{SERVER_PORT}"]})
        self.far = node("far", "q", {"name": "far", "address": f"{Q}:{self.ports['inner']}", "accept": "overlay"},
                        {"name": "server", "carry": "tcp", "endpoints": [f"{World.address('qs')}:{SERVER_PORT}"]})
        self.near = node("near", "p", {"name": "near", "address": f"{P}:{self.ports['two']}", "accept": "http"},
                         {"name": "far", "carry": "h2", "tls": {"server_name": "far.example.net"},
                          "endpoints": [f"{Q}:{self.ports['inner']}"]})
        self.wait()

    def pids(self, work):
        nodes = [self.one] if work == "one" else [self.near, self.far]
        return [n.process.pid for n in nodes]

    def stop(self):
        for n in ("near", "far", "one"):
            if hasattr(self, n):
                getattr(self, n).stop(check=False)


ALL = (Nghttpx, Haproxy, Hermes)


def version(name):
    command = {"nghttpx": ["nghttpx", "--version"], "haproxy": ["haproxy", "-v"]}.get(name)
    if not command:
        return subprocess.run([BUILD / "bin/hermesd", "--version"], capture_output=True, text=True).stdout.strip()
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
