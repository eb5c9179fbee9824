# SPDX-License-Identifier: Apache-2.0
"""The proxies that are measured, each set up for the same two works:
  one: CONNECT over HTTP/2 and TLS from the client, plain TCP (to nghttpx' and HAProxy's next: with an HTTP/1.1 CONNECT of
       its own) to the server; in namespace p
  two: HTTP/1.1 CONNECT over plain TCP from the client to p, HTTP/2 and TLS from p to q, plain TCP to the server
  late: as two, but the link between p and q has a round trip of 20 ms, and the server is in q
TLS 1.3 with AES-256-GCM everywhere; one worker thread each; windows of 1 MiB a stream, 16 MiB a connection where that can be
set."""
import subprocess

from lab import BUILD, PROXIES, SERVER_PORT, World

ONE = 9000     # the first port; + 100 for each further peer
CIPHER = "TLS_AES_256_GCM_SHA384"
P, Q, LATE_Q = World.address("cp"), World.address("pq"), World.LATE[1]


class Peer:
    def __init__(self, world, certs, number):
        self.world, self.certs, self.folder = world, certs, world.folder / self.name
        self.folder.mkdir(exist_ok=True)
        names = ("one", "two", "inner", "late", "late_inner", "late_tcp")
        self.ports = {name: ONE + 100 * number + i for i, name in enumerate(names)}
        self.server_cert = certs.server("proxy", f"IP:{P}", f"IP:{Q}", out=f"proxy-{self.name}")
        self.late = None

    def pids(self, work):
        raise NotImplementedError

    def link(self, work):
        """LINK HOST PORT AUTHORITY for the load generator."""
        server = {"one": World.address("ps"), "two": World.address("qs"), "late": Q}[work]
        return ("h2" if work == "one" else "h1", P, self.ports[work], f"{server}:{SERVER_PORT}")

    def wait(self):
        self.world.wait_port("c", P, self.ports["one"])
        self.world.wait_port("c", P, self.ports["two"])
        self.world.wait_port("p", Q, self.ports["inner"])

    def start_late(self):
        """The pair across the late link; .late: its two processes or nodes."""
        self.late = self.pair("late", LATE_Q, Q)
        self.world.wait_port("c", P, self.ports["late"])
        self.world.wait_port("p", LATE_Q, self.ports["late_inner"])


class Nghttpx(Peer):
    name = "nghttpx"

    def base(self):
        return ["nghttpx", "--conf=/dev/null", "--http2-proxy", "--workers=1", "--no-ocsp", "--no-via", "--insecure",
                "--errorlog-file=/dev/null", "--accesslog-file=/dev/null", "--backend-connections-per-host=4000",
                f"--tls13-ciphers={CIPHER}", f"--tls13-client-ciphers={CIPHER}", "--frontend-http2-window-size=1048576",
                "--frontend-http2-connection-window-size=16777215", "--backend-http2-window-size=1048576",
                "--backend-http2-connection-window-size=16777215", "--frontend-http2-max-concurrent-streams=1000",
                "--backend-http2-max-concurrent-streams=1000", "--stream-read-timeout=1h",
                "--backend-read-timeout=1h", "--frontend-http2-read-timeout=1h", "--listener-disable-timeout=0"]

    def pair(self, name, inner, server):
        inner_port = self.ports["inner" if name == "two" else f"{name}_inner"]
        near = self.world.start("p", PROXIES, *self.base(), f"--frontend={P},{self.ports[name]};no-tls",
                                f"--backend={inner},{inner_port};;proto=h2;tls", log=f"nghttpx/{name}-near.log")
        far = self.world.start("q", PROXIES, *self.base(), f"--frontend={inner},{inner_port}",
                               f"--backend={server},{SERVER_PORT}", *reversed(self.server_cert),
                               log=f"nghttpx/{name}-far.log")
        return near, far

    def start(self):
        self.one = self.world.start("p", PROXIES, *self.base(), f"--frontend={P},{self.ports['one']}",
                                    f"--backend={World.address('ps')},{SERVER_PORT}", *reversed(self.server_cert),
                                    log="nghttpx/one.log")
        self.near, self.far = self.pair("two", Q, World.address("qs"))
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

    def tls(self):
        pem = self.folder / "proxy.pem"
        pem.write_text("".join(part.read_text() for part in self.server_cert))
        return f"ssl crt {pem} alpn h2"

    def pair(self, name, inner, server):
        inner_port = self.ports["inner" if name == "two" else f"{name}_inner"]
        near = self._run(f"{name}-near", "p", f"""
listen near
  bind {P}:{self.ports[name]}
  server q {inner}:{inner_port} ssl alpn h2""")
        far = self._run(f"{name}-far", "q", f"""
listen far
  bind {inner}:{inner_port} {self.tls()}
  server s {server}:{SERVER_PORT}""")
        return near, far

    def start(self):
        self.one = self._run("one", "p", f"""
listen one
  bind {P}:{self.ports['one']} {self.tls()}
  server s {World.address('ps')}:{SERVER_PORT}""")
        self.near, self.far = self.pair("two", Q, World.address("qs"))
        self.wait()

    pids = Nghttpx.pids


class Hermes(Peer):
    name = "hermes"

    def node(self, name, ns, listeners, cluster):
        import hermes
        config = {"node": {"name": name, "domain": "example.net", "tunnel_workers": 1},
                  "identity": self.certs.identity(name), "listeners": listeners, "clusters": [cluster],
                  "routes": [{"match": {}, "cluster": cluster["name"]}], "log": {"level": "warn"}}
        return hermes.Node(name, config, self.folder, build=BUILD, wrap=self.world.wrap(ns, PROXIES))

    def pair(self, name, inner, server):
        inner_port = self.ports["inner" if name == "two" else f"{name}_inner"]
        far = self.node(f"{name}-far", "q", [{"name": "far", "address": f"{inner}:{inner_port}", "accept": "overlay"}],
                        {"name": "server", "carry": "tcp", "endpoints": [f"{server}:{SERVER_PORT}"]})
        listeners = [{"name": "near", "address": f"{P}:{self.ports[name]}", "accept": "http"}]
        if name == "late":
            listeners.append({"name": "tcp", "address": f"{P}:{self.ports['late_tcp']}", "accept": "tcp",
                              "target": f"{server}:{SERVER_PORT}"})
        near = self.node(f"{name}-near", "p", listeners,
                         {"name": "far", "carry": "h2", "tls": {"server_name": f"{name}-far.example.net"},
                          "endpoints": [f"{inner}:{inner_port}"]})
        return near, far

    def start(self):
        crt, key = self.server_cert
        self.one = self.node("one", "p", [{"name": "one", "address": f"{P}:{self.ports['one']}", "accept": "http",
                                           "tls": {"certificate": crt, "key": key}, "limits": {"streams": 1000}}],
                             {"name": "server", "carry": "tcp", "endpoints": [f"{World.address('ps')}:{SERVER_PORT}"]})
        self.near, self.far = self.pair("two", Q, World.address("qs"))
        self.wait()

    def pids(self, work):
        nodes = [self.one] if work == "one" else [self.near, self.far]
        return [n.process.pid for n in nodes]

    def stop(self):
        for n in (getattr(self, "near", None), getattr(self, "far", None), getattr(self, "one", None), *(self.late or ())):
            if n:
                n.stop(check=False)


ALL = (Nghttpx, Haproxy, Hermes)


def version(name):
    command = {"nghttpx": ["nghttpx", "--version"], "haproxy": ["haproxy", "-v"]}.get(name)
    if not command:
        return subprocess.run([BUILD / "bin/hermesd", "--version"], capture_output=True, text=True).stdout.strip()
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
