# SPDX-License-Identifier: Apache-2.0
"""What carries datagrams and packets beside Hermes. Every peer has `jobs`: {name of a column: pids()}, and target(job), where the
load goes. UDP: from c through p to s (one place) or through p and q to s. IP: a device in p and one in q, the load from p to
q through them."""
import json
import subprocess
import time
from pathlib import Path

import lab
from lab import BUILD, PROXIES, World

SINK_PORT = 7100     # of the far end of UDP load, in s
P, Q, S_FROM_P, S_FROM_Q = World.address("cp"), World.address("pq"), World.address("ps"), World.address("qs")
P_TO_Q = World.address("pq", right=False)


class Peer:
    def __init__(self, world, certs, number):
        self.world, self.certs, self.folder = world, certs, world.folder / self.name
        self.folder.mkdir(exist_ok=True)
        self.port = 9000 + 100 * number
        self.processes = []

    def run(self, ns, *command, log="log"):
        process = self.world.start(ns, PROXIES, *command, log=f"{self.name}/{log}")
        self.processes.append(process)
        return process

    def pids(self):
        return [p.pid for p in self.processes]

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- UDP ------------------------------------------------------------------------------------------------------------------

class Forwarder(Peer):
    """Of our own: recvmmsg and sendmmsg."""
    name, kind = "sendmmsg", "plain"

    def start(self):
        self.run("p", BUILD / "bench/forward", self.kind, P, str(self.port), S_FROM_P, str(SINK_PORT))

    def target(self):
        return P, self.port, S_FROM_P


class GsoForwarder(Forwarder):
    """Of our own: UDP_GRO and UDP_SEGMENT. The limit."""
    name, kind = "gso", "gso"


class Nginx(Peer):
    name = "nginx"

    def start(self):
        path = self.folder / "nginx.conf"
        path.write_text(f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1;
daemon off;
pid {self.folder}/pid;
error_log {self.folder}/error.log;
events {{ worker_connections 1024; }}
stream {{
  server {{
    listen {P}:{self.port} udp rcvbuf=4m sndbuf=4m;
    proxy_pass {S_FROM_P}:{SINK_PORT};
    proxy_timeout 10m;
  }}
}}
""")
        self.run("p", "nginx", "-p", self.folder, "-e", self.folder / "error.log", "-c", path)

    target = Forwarder.target


class Hermes(Peer):
    def node(self, name, ns, **config):
        import hermes
        base = {"node": {"name": name, "domain": "example.net", "tunnel_workers": 1}, "identity": self.certs.identity(name),
                "log": {"level": "warn"}}
        node = hermes.Node(name, {**base, **config}, self.folder, build=BUILD, wrap=self.world.wrap(ns, PROXIES))
        self.processes.append(node.process)
        self.nodes = [*getattr(self, "nodes", ()), node]
        return node

    def to(self, name):
        """The cluster of another node, in q."""
        return {"name": "far", "carry": "h2", "tls": {"server_name": f"{name}.example.net"}, "endpoints": [f"{Q}:{self.port + 1}"]}

    def from_nodes(self):
        return {"name": "nodes", "address": f"{Q}:{self.port + 1}", "accept": "overlay"}

    def stop(self):
        for node in getattr(self, "nodes", ()):
            node.stop(check=False)


class HermesPlain(Hermes):
    """One node, UDP in and UDP out: what nginx and the forwarders do."""
    name = "hermes"

    def start(self):
        self.node("udp-one", "p", listeners=[{"name": "in", "address": f"{P}:{self.port}", "accept": "udp",
                                              "target": f"{S_FROM_P}:{SINK_PORT}"}],
                  clusters=[{"name": "out", "carry": "udp", "endpoints": [f"{S_FROM_P}:{SINK_PORT}"]}],
                  routes=[{"cluster": "out"}])

    target = Forwarder.target


class HermesPair(Hermes):
    """Two nodes: UDP in, CONNECT-UDP over HTTP/2 and TLS, UDP out."""
    name = "hermes pair"

    def start(self):
        self.far = self.node("udp-far", "q", listeners=[self.from_nodes()],
                             clusters=[{"name": "out", "carry": "udp", "endpoints": [f"{S_FROM_Q}:{SINK_PORT}"]}],
                             routes=[{"cluster": "out"}])
        self.near = self.node("udp-near", "p", listeners=[{"name": "in", "address": f"{P}:{self.port}", "accept": "udp",
                                                           "target": f"{S_FROM_Q}:{SINK_PORT}"}],
                              clusters=[self.to("udp-far")], routes=[{"cluster": "far"}])

    def target(self):
        return P, self.port, S_FROM_Q

    def parts(self):
        """Each end by itself: one proxy with HTTP/2 and TLS on its other side."""
        return {"hermes near": [self.near.process.pid], "hermes far": [self.far.process.pid]}


UDP = (Forwarder, GsoForwarder, Nginx, HermesPlain, HermesPair)


# --- IP -------------------------------------------------------------------------------------------------------------------

class Vpn(Peer):
    """A device in p with address near, one in q with address far."""

    def __init__(self, world, certs, number):
        super().__init__(world, certs, number)
        self.near, self.far = f"10.20.{number}.1", f"10.20.{number}.2"
        self.dev = f"vpn{number}"

    def address(self, ns, mine, other, dev=None):
        dev = dev or self.dev
        end = time.monotonic() + 20
        while self.world.ns[ns].run("sh", "-c", f"ip link show {dev} 2>/dev/null || true").stdout == "":
            if time.monotonic() > end:
                raise RuntimeError(f"{dev} did not appear in {ns}, see {self.folder}")
            time.sleep(0.1)
        self.world.ns[ns].run("sh", "-c", f"ip address replace {mine} peer {other} dev {dev}; ip link set {dev} up")

    def wait(self):
        """Until packets go through. The devices' queues hold more than the load has on its way."""
        end = time.monotonic() + 30
        for ns in "pq":
            for dev in json.loads(self.world.ns[ns].run("ip", "-j", "link").stdout):
                if dev["ifname"].startswith(self.dev):
                    self.world.ns[ns].run("ip", "link", "set", dev["ifname"], "txqueuelen", "5000")
        while subprocess.run(self.world.ns["p"].wrap(["ping", "-c1", "-W1", self.far]), capture_output=True).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"nothing goes through {self.name}, see {self.folder}")

    def target(self):
        return self.far


class Tun(Vpn):
    """Of our own: TUN to UDP, nothing else."""
    name, kind = "tun", "tun"

    def start(self):
        for ns, mine, here, there in (("p", self.near, P_TO_Q, Q), ("q", self.far, Q, P_TO_Q)):
            self.run(ns, BUILD / "bench/forward", self.kind, self.dev, here, str(self.port), there, str(self.port), log=ns)
            self.address(ns, mine, self.far if ns == "p" else self.near)
            self.world.ns[ns].run("ip", "link", "set", self.dev, "gso_max_size", "60000", "mtu", "1420")
        self.wait()


class TunOffload(Tun):
    """The same with segmentation offload: the limit."""
    name, kind = "tun offload", "tunoffload"


class OpenVpn(Vpn):
    name = "openvpn"

    def start(self):
        server, client = self.certs.server("vpn"), self.certs.client("vpn-client")
        common = ["openvpn", "--dev", self.dev, "--dev-type", "tun", "--proto", "udp", "--cipher", "AES-256-GCM",
                  "--data-ciphers", "AES-256-GCM", "--ca", str(self.certs.ca), "--dh", "none", "--disable-dco", "--persist-tun",
                  "--sndbuf", "4194304", "--rcvbuf", "4194304", "--verb", "1"]
        self.run("q", *common, "--local", Q, "--port", str(self.port), "--tls-server", "--cert", server[0], "--key", server[1],
                 "--ifconfig", self.far, self.near, log="far")
        self.run("p", *common, "--local", P_TO_Q, "--port", str(self.port), "--remote", Q, str(self.port), "--tls-client",
                 "--cert", client[0], "--key", client[1], "--ifconfig", self.near, self.far, log="near")
        self.wait()


class WireguardGo(Vpn):
    name = "wireguard-go"

    def start(self):
        def wg(*args, **kw):
            return subprocess.run(["wg", *args], capture_output=True, text=True, check=True, **kw).stdout.strip()
        keys = {ns: wg("genkey") for ns in "pq"}
        public = {ns: wg("pubkey", input=key) for ns, key in keys.items()}
        for ns, mine, other, here, there in (("p", self.near, "q", self.port, f"{Q}:{self.port}"),
                                             ("q", self.far, "p", self.port, f"{P_TO_Q}:{self.port}")):
            dev = f"{self.dev}{ns}{self.world.number}"
            (self.folder / ns).write_text(keys[ns])
            self.run(ns, "env", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1", "wireguard-go", "-f", dev, log=f"log-{ns}")
            self.address(ns, mine, self.far if ns == "p" else self.near, dev)
            end = time.monotonic() + 10
            while not Path(f"/var/run/wireguard/{dev}.sock").exists():
                if time.monotonic() > end:
                    raise RuntimeError(f"no control socket of {dev}")
                time.sleep(0.1)
            self.world.ns[ns].run("wg", "set", dev, "listen-port", str(here), "private-key", self.folder / ns, "peer",
                                  public[other], "endpoint", there, "allowed-ips", "10.20.0.0/16")
        self.wait()


class Ocserv(Vpn):
    name = "ocserv"

    def start(self):
        crt, key = self.certs.server("ocserv", f"IP:{Q}")
        net = self.far.rsplit(".", 1)[0]
        self.run_dir = self.folder / "run"
        self.run_dir.mkdir(exist_ok=True)
        passwords = self.folder / "passwords"
        hashed = subprocess.run(["openssl", "passwd", "-5", "secret"], capture_output=True, text=True, check=True).stdout.strip()
        passwords.write_text(f"bench:*:{hashed}\n")
        (self.folder / "conf").write_text(f"""
auth = "plain[passwd={passwords}]"
listen-host = {Q}
tcp-port = {self.port}
udp-port = {self.port}
run-as-user = nobody
run-as-group = nogroup
socket-file = {self.run_dir}/socket
pid-file = {self.run_dir}/pid
server-cert = {crt}
server-key = {key}
isolate-workers = false
max-clients = 4
keepalive = 300
dpd = 300
try-mtu-discovery = false
device = {self.dev}
predictable-ips = true
ipv4-network = {net}.0
ipv4-netmask = 255.255.255.0
mtu = 1420
cisco-client-compat = false
dtls-legacy = false
rx-data-per-sec = 0
tx-data-per-sec = 0
output-buffer = 0
""")
        self.run("q", "ocserv", "-f", "-c", self.folder / "conf", log="far")
        self.world.wait_port("p", Q, self.port)
        script = self.folder / "script"
        script.write_text(f"""#!/bin/sh
[ "$reason" = connect ] || exit 0
ip link set "$TUNDEV" up mtu "$INTERNAL_IP4_MTU"
ip address replace "$INTERNAL_IP4_ADDRESS" peer {net}.1 dev "$TUNDEV"
""")
        script.chmod(0o755)
        secret = self.folder / "secret"
        secret.write_text("secret\n")
        pin = subprocess.run(f"openssl x509 -in {crt} -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 "
                             "-binary | base64", shell=True, capture_output=True, text=True, check=True).stdout.strip()
        self.run("p", "sh", "-c", f"exec openconnect --user=bench --passwd-on-stdin --servercert pin-sha256:{pin} "
                 f"--script {script} --interface {self.dev} --no-proxy {Q}:{self.port} < {secret}", log="near")
        self.near, self.far = None, f"{net}.1"       # the server takes the network's first address
        self.wait()


class HermesIp(Vpn, Hermes):
    """Two nodes: TUN, CONNECT-IP over HTTP/2 and TLS, TUN."""
    name = "hermes"
    tunnel = {}

    def start(self):
        net = self.far.rsplit(".", 1)[0]
        self.node("ip-far", "q", listeners=[self.from_nodes()],
                  tunnels=[{"name": self.dev, "addresses": [f"{self.far}/24"], "mtu": 1420, **self.tunnel}],
                  clusters=[{"name": "out", "carry": "ip", "device": self.dev, "pool": [f"{net}.0/24"]}],
                  routes=[{"cluster": "out"}])
        self.node("ip-near", "p",
                  tunnels=[{"name": self.dev, "addresses": "assigned", "mtu": 1420, "networks": [{"prefix": f"{self.far}/32"}],
                            **self.tunnel}],
                  clusters=[self.to("ip-far")], routes=[{"cluster": "far"}])
        self.wait()

    stop = Hermes.stop


IP = (TunOffload, Tun, OpenVpn, WireguardGo, Ocserv, HermesIp)


def version(name):
    command = {"nginx": ["nginx", "-v"], "openvpn": ["openvpn", "--version"], "wireguard-go": ["wireguard-go", "--version"],
               "ocserv": ["ocserv", "--version"]}.get(name)
    if name.startswith("hermes"):
        command = [BUILD / "bin/hermesd", "--version"]
    if not command:
        return "of the bench"
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]
