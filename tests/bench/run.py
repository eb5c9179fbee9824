# SPDX-License-Identifier: Apache-2.0
"""make bench, part one: CONNECT over HTTP/2 and TLS, one hop and two, beside nghttpx and HAProxy in the same run.

    run.py [PART...]      bulk latency requests late memory, udp ip of part two (datagrams.py), control: simulated nodes (control.py), restart (restart.py), kill (kill.py); default: all
    QUICK=1               fewer and shorter rounds       PEERS="nghttpx haproxy hermes"   some only
    BENCH_MB=2048         size of a bulk transfer

Client and server share one core, the proxies the other, in namespaces joined by veth at MTU 1500; for latency all is on one
core. Rounds are interleaved: every proxy once, then again. Figures: median of the rounds, spread in JSON."""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import control
import datagrams
import kill
import lab
import peers
import restart
from lab import ENDS, PROXIES, World, cpu_seconds, pss_kib, summary
from table import ROWS, finish, goal_here, print_tables

QUICK = os.environ.get("QUICK") not in (None, "", "0")
ROUNDS = 3 if QUICK else 5
BULK = int(os.environ.get("BENCH_MB", 256 if QUICK else 2048)) << 20
PINGS = 5000 if QUICK else 30000
DIRECT = ("tcp", World.address("cs"), lab.SERVER_PORT, "direct:1")
DIRECT_TLS = ("tls", World.address("cs"), lab.TLS_PORT, "direct:1")


class Bench:
    def __init__(self, world, certs):
        self.world, self.certs, self.results, self.faults = world, certs, {}, []
        self.server = world.server(ENDS, certs)
        world.wait_port("c", World.address("cs"), lab.SERVER_PORT)
        self.peers = []

    def start_peers(self):
        wanted = os.environ.get("PEERS", "nghttpx haproxy hermes").split()
        for number, kind in enumerate(k for k in peers.ALL if k.name in wanted):
            peer = kind(self.world, self.certs, number)
            self.peers.append(peer)
            self.attempt(f"{peer.name} start", peer.start)
        self.peers = [p for p in self.peers if not any(f.startswith(f"{p.name} start") for f in self.faults)]

    def stop_peers(self):
        for peer in self.peers:
            if hasattr(peer, "stop"):
                peer.stop()
            else:
                for process in (peer.one, peer.near, peer.far):
                    process.terminate()
                    process.wait()
        self.peers = []

    def attempt(self, what, work):
        """A proxy that fails at one thing is reported, and the rest is measured."""
        try:
            return work()
        except (RuntimeError, AssertionError, subprocess.TimeoutExpired) as e:
            self.faults.append(f"{what}: {str(e)[:300]}")
            print(f"  failed: {self.faults[-1]}", flush=True)
            return None

    def rounds(self, jobs, rounds=ROUNDS):
        """jobs: {name: function -> {figure: value}}; interleaved. Returns {name: {figure: summary}}."""
        samples = {}
        for turn in range(rounds + 1):      # the first warms up
            for name, work in jobs.items():
                got = self.attempt(name, work)
                if got and turn:
                    for figure, value in got.items():
                        samples.setdefault(name, {}).setdefault(figure, []).append(value)
            print(".", end="", flush=True)
        print()
        return {name: {figure: summary(v) for figure, v in figures.items()} for name, figures in samples.items()}

    def _bulk(self, peer, work, way):
        pids = peer.pids(work)
        before = cpu_seconds(pids)
        got = self.world.load(*peer.link(work), "bulk", way, BULK)
        return {"cpu_s_per_gb": (cpu_seconds(pids) - before) / (BULK / 1e9), "gbit": got["gbit"]}

    def bulk(self):
        for work in ("one", "two"):
            for way in ("up", "down"):
                print(f"bulk, {work} hop, {way} ", end="", flush=True)
                self.results[f"bulk_{work}_{way}"] = self.rounds(
                    {p.name: lambda p=p: self._bulk(p, work, way) for p in self.peers})

    def latency(self):
        """One byte there and back, all on one core."""
        lab.pin([self.server.pid], PROXIES)
        try:
            for work in ("one", "two"):
                print(f"latency, {work} hop ", end="", flush=True)
                jobs = {"direct": lambda: self.world.load(*DIRECT, "ping", PINGS, core=PROXIES)}
                jobs.update({p.name: lambda p=p: self.world.load(*p.link(work), "ping", PINGS, core=PROXIES)
                             for p in self.peers})
                got = self.rounds({name: lambda w=w: {k: v for k, v in w().items() if k in ("p50_us", "p99_us")}
                                   for name, w in jobs.items()})
                for name, figures in got.items():
                    for p in ("p50", "p99"):
                        base = got["direct"][f"{p}_us"]["median"]
                        figures[f"added_{p}_us"] = summary([v - base for v in figures[f"{p}_us"]["values"]])
                self.results[f"latency_{work}"] = got
        finally:
            lab.pin([self.server.pid], ENDS)

    def _requests(self, link, pids, concurrent, links):
        total = {1: 300, 100: 6000, 1000: 20000}[concurrent] // (4 if QUICK else 1)
        if link is DIRECT_TLS:
            total //= 4
        before = cpu_seconds(pids)
        got = self.world.load(*link, "requests", concurrent, max(total, concurrent), links)
        return {"per_s": got["count"] / got["seconds"], "p50_ms": got["p50_us"] / 1000, "p99_ms": got["p99_us"] / 1000,
                "cpu_us": (cpu_seconds(pids) - before) / got["count"] * 1e6}

    def requests(self):
        """1 KB each: over a fresh TLS connection, or in a fresh tunnel of pooled links."""
        for concurrent in (1, 100, 1000):
            for work in ("one", "two"):
                print(f"requests, {concurrent} at once, {work} hop ", end="", flush=True)
                links = 1 if concurrent == 1 else 10
                jobs = {} if work == "two" else {"direct TLS": lambda: self._requests(DIRECT_TLS, [], concurrent, 1)}
                jobs.update({p.name: lambda p=p: self._requests(p.link(work), p.pids(work), concurrent, links)
                             for p in self.peers})
                self.results[f"requests_{concurrent}_{work}"] = self.rounds(jobs)

    def late(self):
        """One 1 KB request at a time over a round trip of 20 ms: a fresh TLS connection; a tunnel whose client waits for the
        200; and, with a TCP listener, one that does not."""
        print("late link ", end="", flush=True)
        self.world.late(10)
        self.world.server(ENDS, self.certs, ns="q")
        for peer in self.peers:
            self.attempt(f"{peer.name} late", peer.start_late)

        def one(link, ns="c"):
            got = self.world.load(*link, "requests", 1, 20, 1, ns=ns)
            return {"p50_ms": got["p50_us"] / 1000}
        jobs = {"direct TLS": lambda: one(("tls", World.LATE[1], lab.TLS_PORT, "direct:1"), ns="p")}
        for peer in self.peers:
            jobs[peer.name] = lambda p=peer: one(p.link("late"))
            if "late_tcp" in peer.ports and peer.name == "hermes":
                jobs["hermes tcp"] = lambda p=peer: one(("tcp", peers.P, p.ports["late_tcp"], "direct:1"))
        self.results["late"] = self.rounds(jobs, 3)
        tcp = self.results["late"].pop("hermes tcp", None)
        self.results["late_tcp"] = {"hermes": tcp} if tcp else {}

    def _hold(self, peer, links, tunnels=1000):
        pids = peer.pids("one")
        before = pss_kib(pids)
        command = self.world.wrap("c", ENDS)([lab.BUILD / "bench/load", *peer.link("one"), "hold", tunnels, links])
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        said = process.stdout.readline()
        time.sleep(1)
        held = pss_kib(pids)
        process.stdin.close()
        process.wait(30)
        if not said:
            raise RuntimeError(f"hold: {process.stderr.read()[:200]}")
        return {"kib_per_tunnel": (held - before) / tunnels, "base_mib": before / 1024}

    def memory(self):
        """Fresh processes for every figure: freed memory of earlier work would hide what tunnels take."""
        for links in (1, 200):
            print(f"memory, 1,000 tunnels on {links} connections ", end="", flush=True)
            got = {}
            for _ in range(1 if QUICK else 3):
                self.stop_peers()
                self.start_peers()
                for peer in self.peers:
                    self.world.load(*peer.link("one"), "bulk", "down", 1 << 20)
                    one = self.attempt(peer.name, lambda p=peer: self._hold(p, links))
                    for figure, value in (one or {}).items():
                        got.setdefault(peer.name, {}).setdefault(figure, []).append(value)
                print(".", end="", flush=True)
            print()
            self.results[f"memory_{links}"] = {n: {f: summary(v) for f, v in fs.items()} for n, fs in got.items()}


def part_one(parts):
    out = lab.BUILD / "bench"
    folder = Path(tempfile.mkdtemp(prefix="hermes-bench-"))
    folder.chmod(0o755)
    import hermes
    world = World(folder)
    bench = None
    try:
        bench = Bench(world, hermes.Certs(folder / "tls"))
        bench.start_peers()
        names = [p.name for p in bench.peers]
        for part in parts:
            getattr(bench, part)()
    finally:
        if bench:
            bench.stop_peers()
        world.close()
    record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "quick": QUICK, "rounds": ROUNDS,
              "bytes": BULK, "kernel": os.uname().release, "cpus": os.cpu_count(),
              "versions": {n: peers.version(n) for n in names}, "results": bench.results, "faults": bench.faults}
    record["goals"] = {f"{row[0]}.{row[1]}": goal_here(bench.results, row) for row in ROWS if row[0] in bench.results}
    (out / "part1.json").write_text(json.dumps(record, indent=1) + "\n")
    print_tables(record)
    print(f"JSON: {out / 'part1.json'}")
    return finish(bench.faults, folder)


def main():
    parts = sys.argv[1:] or ["bulk", "latency", "requests", "late", "memory", "udp", "ip", "restart", "kill", "control"]
    two = [part for part in parts if part in ("udp", "ip")]
    others = {"restart": restart.main, "kill": kill.main, "control": control.main}
    one = [part for part in parts if part not in [*two, *others]]
    return max(part_one(one) if one else 0, datagrams.main(two) if two else 0, *(main() for name, main in others.items() if name in parts), 0)


if __name__ == "__main__":
    sys.exit(main())
