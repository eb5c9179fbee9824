# SPDX-License-Identifier: Apache-2.0
"""make bench, part three: hot restarts under load, beside HAProxy's reload in the same run.

    restart.py                  QUICK=1: a tenth of everything
    BENCH_RESTARTS=40           restarts, BENCH_CONNECTIONS=400000 new connections over them, BENCH_TUNNELS=1000 long tunnels

The load is ab, a new connection per request, to nginx by way of two proxies (HAProxy: one). Hermes' two nodes also carry long
tunnels: TCP connections that echo lines, UDP flows of numbered datagrams and pings through TUN devices, together 1,000 packets
a second each way. `hermes-admin restart` replaces the supervisor in place and every worker, of one node and then of the
other; HAProxy is reloaded by SIGUSR2 to its master. What fails, breaks or is lost is counted; nothing else is measured."""
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import lab
from lab import BUILD, ENDS, PROXIES, World

QUICK = os.environ.get("QUICK") not in (None, "", "0")
RESTARTS = int(os.environ.get("BENCH_RESTARTS", 4 if QUICK else 40))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", 40_000 if QUICK else 400_000))
TUNNELS = int(os.environ.get("BENCH_TUNNELS", 100 if QUICK else 1000))
IP_TUNNELS = 10
PACKETS = 1000                # a second, each way, over all UDP flows and pings
PROXY, HAPROXY, TCP, UDP, OVERLAY = 9500, 9501, 9502, 9503, 9504
WEB, ECHO = 8080, 7
P, Q, SERVER = World.address("cp"), World.address("pq"), World.address("qs")

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{ access_log off; server {{ listen 0.0.0.0:{port} backlog=8192; location / {{ return 200 "0123456789\\n"; }} }} }}
"""
HAPROXY_CONFIG = """
global
  nbthread 1
  maxconn 8000
  stats socket {folder}/haproxy.sock level admin expose-fd listeners
defaults
  mode http
  timeout connect 10s
  timeout client 1m
  timeout server 1m
listen web
  bind {p}:{port}
  option httpclose
  server s {server}:{web}
"""


class Restarts:
    def __init__(self, folder):
        import hermes
        self.folder, self.world, self.nodes, self.faults = folder, World(folder), {}, []
        self.certs, self.hermes = hermes.Certs(folder / "tls"), hermes
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=WEB))
        self.world.start("s", ENDS, "nginx", "-c", folder / "nginx.conf", log="nginx")
        self.world.start("s", ENDS, sys.executable, Path(__file__).with_name("tunnels.py"), "echo", SERVER, ECHO, log="echo")
        self.world.wait_port("q", SERVER, WEB)
        self.world.wait_port("q", SERVER, ECHO)

    # --- who is restarted

    def node(self, name, ns, **config):
        config = {"node": {"name": name, "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "10s"},
                  "identity": self.certs.identity(name), **config}
        self.nodes[name] = self.hermes.Node(name, config, self.folder, build=BUILD, wrap=self.world.wrap(ns, PROXIES))

    def start_hermes(self):
        ways = [f"10.66.{i}.1" for i in range(IP_TUNNELS)]
        self.node("far", "q", listeners=[{"name": "from-nodes", "address": f"{Q}:{OVERLAY}", "accept": "overlay"}],
                  tunnels=[{"name": "hbf", "addresses": [f"{way}/32" for way in ways], "mtu": 1420}],
                  clusters=[{"name": "server", "carry": "tcp", "endpoints": [f"{SERVER}:{ECHO}"]},
                            {"name": "web", "carry": "h1", "endpoints": [f"{SERVER}:{WEB}"]},
                            {"name": "datagrams", "carry": "udp", "endpoints": [f"{SERVER}:{ECHO}"]},
                            {"name": "packets", "carry": "ip", "device": "hbf", "pool": ["10.67.0.0/24"]}],
                  routes=[{"match": {"protocol": "connect-udp"}, "cluster": "datagrams"},
                          {"match": {"protocol": "connect-ip"}, "cluster": "packets"},
                          {"match": {"method": "CONNECT"}, "cluster": "server"}, {"cluster": "web"}])
        self.node("near", "p", listeners=[{"name": "apps", "address": f"{P}:{PROXY}", "accept": "http"},
                                          {"name": "tcp", "address": f"{P}:{TCP}", "accept": "tcp", "target": "ECHO:7"},
                                          {"name": "udp", "address": f"{P}:{UDP}", "accept": "udp", "target": "ECHO:7"}],
                  tunnels=[{"name": "hbn", "addresses": "assigned", "mtu": 1420,
                            "networks": [{"prefix": f"{way}/32"} for way in ways]}],
                  clusters=[{"name": "far", "carry": "h2", "tls": {"server_name": "far.example.net"},
                             "endpoints": [f"{Q}:{OVERLAY}"]}], routes=[{"cluster": "far"}])
        for way in ways:
            self.hermes.wait_for(lambda w=way: subprocess.run(self.world.ns["p"].wrap(["ping", "-c1", "-W1", w]),
                                                              capture_output=True).returncode == 0, 20, message=f"ping {way}")
        return ways

    def restart_hermes(self, turn):
        name = ("near", "far")[turn % 2]
        self.nodes[name].admin("restart", timeout=120)

    def start_haproxy(self):
        conf = self.folder / "haproxy.cfg"
        conf.write_text(HAPROXY_CONFIG.format(folder=self.folder, p=P, port=HAPROXY, server=World.address("ps"), web=WEB))
        self.haproxy = self.world.start("p", PROXIES, "haproxy", "-W", "-db", "-f", conf, log="haproxy")
        self.world.wait_port("c", P, HAPROXY)

    def restart_haproxy(self, _turn):
        self.haproxy.send_signal(12)       # SIGUSR2: the master executes itself, new workers take the sockets over
        time.sleep(1)

    # --- load

    def tunnels(self, ways):
        """Starts the long ones; end() tells what became of them."""
        pings = PACKETS // 10 // max(len(ways), 1) or 1
        flows, streams = TUNNELS * 6 // 10, TUNNELS - TUNNELS * 6 // 10 - len(ways)
        command = [sys.executable, str(Path(__file__).with_name("tunnels.py")), "load", P, str(TCP), str(streams), str(UDP),
                   str(flows), str(PACKETS * 9 // 10)]
        load = subprocess.Popen(self.world.wrap("c", ENDS)(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert load.stdout.readline().strip() == "begun"
        running = [subprocess.Popen(self.world.wrap("p", ENDS)(["ping", "-n", "-q", "-i", f"{1 / pings}", "-W", "5", way]),
                                    stdout=subprocess.PIPE, text=True) for way in ways]

        def end():
            lost = sent = 0
            for ping in running:
                ping.send_signal(2)
                said = re.search(r"(\d+) packets transmitted, (\d+) received", ping.communicate(timeout=20)[0])
                sent, lost = sent + int(said[1]), lost + max(0, int(said[1]) - int(said[2]) - 1)   # one may be under way
            load.stdin.close()
            words = load.stdout.readline().split()
            load.wait(60)
            for ns in self.world.ns.values():       # a full socket buffer: the end's own, or a node's
                full = re.search(r"UdpRcvbufErrors +(\d+)", ns.run("nstat", "-asz", "UdpRcvbufErrors").stdout)
                if full and int(full[1]):
                    print(f"{ns.name}: {full[1]} datagrams did not fit into a socket's buffer")
            return {"pings": sent, "pings lost": lost, **{k: int(v) for k, v in (w.split("=") for w in words)}}
        return end, {"TCP": streams, "UDP": flows, "IP": len(ways)}

    def churn(self, port, restart):
        """New connections until there were enough restarts and connections. Returns the counts."""
        done, failed, stop = [0], [0], threading.Event()
        said = []

        def load():
            batch = max(CONNECTIONS // RESTARTS, 1000)
            while not stop.is_set() or done[0] < CONNECTIONS:
                got = subprocess.run(self.world.wrap("c", ENDS)(
                    ["ab", "-q", "-r", "-s", "30", "-n", str(batch), "-c", "32", "-X", f"{P}:{port}", f"http://{SERVER}:{WEB}/"]),
                    capture_output=True, text=True)
                count = {k: int(v) for k, v in re.findall(r"(Complete requests|Failed requests|Non-2xx responses|Write errors): +(\d+)",
                                                          got.stdout)}
                done[0] += count.get("Complete requests", 0)
                bad = count.get("Failed requests", 0) + count.get("Non-2xx responses", 0) + count.get("Write errors", 0)
                failed[0] += bad + (batch if not count else 0)
                if bad or not count:
                    said.append((got.stdout[-400:] + got.stderr[-200:]).strip())
        thread = threading.Thread(target=load)
        thread.start()
        seconds = []
        for turn in range(RESTARTS):
            # spread over the connections
            while done[0] < CONNECTIONS * turn // RESTARTS:
                time.sleep(0.05)
            began = time.monotonic()
            try:
                restart(turn)
            except (AssertionError, subprocess.SubprocessError) as e:
                self.faults.append(f"restart {turn}: {str(e)[:300]}")
            seconds.append(time.monotonic() - began)
            print(".", end="", flush=True)
        stop.set()
        thread.join()
        print()
        for text in said[:3]:
            print(text)
        return {"restarts": len(seconds), "connections": done[0], "failed": failed[0]}

    def run(self):
        results = {}
        print("HAProxy, reloads ", end="", flush=True)
        self.start_haproxy()
        results["HAProxy"] = self.churn(HAPROXY, self.restart_haproxy)
        self.haproxy.terminate()
        print("Hermes, restarts ", end="", flush=True)
        ways = self.start_hermes()
        end, tunnels = self.tunnels(ways)
        results["Hermes"] = self.churn(PROXY, self.restart_hermes)
        results["Hermes"].update(tunnels=tunnels, **end())
        return results

    def close(self):
        for node in self.nodes.values():
            node.stop(check=False)
        self.world.close()


def main():
    folder = Path(tempfile.mkdtemp(prefix="hermes-bench-"))
    folder.chmod(0o755)
    bench = Restarts(folder)
    try:
        results = bench.run()
    finally:
        bench.close()
    bad = [f"{who}: {what} {value}" for who, figures in results.items() for what, value in figures.items()
           if what in ("failed", "broken", "lost", "doubled", "pings lost") and value and who == "Hermes"]
    for who, figures in results.items():
        print(who + ": " + ", ".join(f"{what} {value:,}" if isinstance(value, int) else f"{what} {value}"
                                     for what, value in figures.items()))
    from table import finish
    return finish(bench.faults + bad, folder)


if __name__ == "__main__":
    sys.exit(main())
