# SPDX-License-Identifier: Apache-2.0
"""make bench, part two: UDP through one place and through two, and IP packets between two TUN devices, beside forwarders of our
own (the limits), nginx and VPNs in the same run.

    datagrams.py [PART...]      udp ip (default: both)
    QUICK=1                     fewer and shorter rounds       PEERS="gso nginx hermes"   some only
    BENCH_DATAGRAMS=4000000     datagrams of a flood           BENCH_MB=2048              size of a bulk transfer

The load and its far end share one core, what is measured has the other; for latency all is on one core. At most 512 datagrams
are on their way at once, so that nothing is lost to full buffers. Rounds are interleaved."""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datagram_peers as peers
import lab
from lab import ENDS, PROXIES, World, cpu_seconds, summary
from table import cell, finish, number

QUICK = os.environ.get("QUICK") not in (None, "", "0")
ROUNDS = 3 if QUICK else 5
COUNT = int(os.environ.get("BENCH_DATAGRAMS", 400_000 if QUICK else 3_000_000))
BULK = int(os.environ.get("BENCH_MB", 128 if QUICK else 1024)) << 20
PINGS = 3000 if QUICK else 20000
SINK = peers.SINK_PORT

# (result, figure, label, unit, what is compared, with what, goal, higher is better). Machines differ: the goal of ANCHORS.md
# section 5 is held to as a ratio to the limit or the best peer measured in the same run.
ROWS = [
    ("udp_1200", "cpu_s_per_m", "1,200 bytes", "CPU s/M", ("hermes far", "nginx", 1.2 / 4.74), False),
    ("udp_64", "cpu_s_per_m", "64 bytes", "CPU s/M", ("hermes far", "nginx", 0.8 / 4.09), False),
    ("udp_1200", "per_s", "1,200 bytes", "1/s", None, True),
    ("udp_64", "per_s", "64 bytes", "1/s", None, True),
    ("udp_1200", "mb_per_cpu_s", "1,200 bytes", "MB/CPU s", None, True),
    ("udp_ping", "added_p50_us", "adds, p50", "µs", None, False),
    ("udp_ping", "p99_us", "p99", "µs", None, False),
    ("ip_bulk", "cpu_s_per_gb", "TCP", "CPU s/GB", ("hermes", "wireguard-go", 2.0 / 5.96), False),
    ("ip_bulk", "gbit", "TCP", "Gbit/s", None, True),
    ("ip_udp", "cpu_s_per_m", "UDP, 1,200 bytes", "CPU s/M", ("hermes", "openvpn", 4.0 / 9.56), False),
    ("ip_udp", "per_s", "UDP, 1,200 bytes", "1/s", None, True),
    ("ip_ping", "p50_us", "round trip, p50", "µs", ("hermes", "openvpn", 25 / 27.3), False),
    ("ip_ping", "p99_us", "round trip, p99", "µs", None, False),
]
OURS = ("gso", "sendmmsg", "tun", "tun offload")     # limits, not peers


class Bench:
    def __init__(self, world, certs):
        self.world, self.certs, self.results, self.faults, self.versions = world, certs, {}, [], {}

    def attempt(self, what, work):
        """What fails at one thing is reported, and the rest is measured."""
        try:
            return work()
        except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as e:
            self.faults.append(f"{what}: {str(e)[:300]}")
            print(f"  failed: {self.faults[-1]}", flush=True)
            return None

    def started(self, kinds):
        wanted = os.environ.get("PEERS")
        running = []
        for number_, kind in enumerate(kinds):
            if wanted and kind.name.split()[0] not in wanted.split():
                continue
            peer = kind(self.world, self.certs, number_ + 1)
            if self.attempt(f"{peer.name} start", lambda p=peer: (p.start(), True)):
                running.append(peer)
                self.versions[peer.name] = peers.version(peer.name)
            else:
                peer.stop()
        return running

    def rounds(self, jobs, rounds=ROUNDS):
        """jobs: {name: function -> {column: {figure: value}}}; interleaved, the first round warms up."""
        samples = {}
        for turn in range(rounds + 1):
            for name, work in jobs.items():
                for column, figures in (self.attempt(name, work) or {}).items():
                    for figure, value in figures.items() if turn else ():
                        samples.setdefault(column, {}).setdefault(figure, []).append(value)
            print(".", end="", flush=True)
        print()
        return {column: {figure: summary(v) for figure, v in figures.items()} for column, figures in samples.items()}

    def load(self, ns, core, *args):
        return self.world.tool("udp", *args, core=core, ns=ns)

    # --- UDP

    def _flood(self, ns, peer, sink_ns, sink, host, port, size, count=COUNT, losses=0.01):
        parts = {peer.name: peer.pids(), **(peer.parts() if hasattr(peer, "parts") else {})}
        before = {column: cpu_seconds(pids) for column, pids in parts.items()}
        got = self.load(ns, ENDS, "flood", self.world.ns[sink_ns].name, sink, SINK, host, port, size, count)
        used = {column: cpu_seconds(pids) - before[column] for column, pids in parts.items()}
        if got["received"] < got["sent"] * (1 - losses):
            raise RuntimeError(f"{got['sent'] - got['received']} of {got['sent']} datagrams lost")
        figures = {column: {"cpu_s_per_m": cpu / got["received"] * 1e6, "mb_per_cpu_s": got["received"] * size / cpu / 1e6}
                   for column, cpu in used.items()}
        figures[peer.name].update(per_s=got["per_s"], lost=got["sent"] - got["received"])
        return figures

    def _ping(self, ns, column, sink_ns, sink, host, port):
        got = self.load(ns, PROXIES, "ping", self.world.ns[sink_ns].name, sink, SINK, host, port, 64, PINGS)
        return {column: {k: got[k] for k in ("p50_us", "p99_us")}}

    def udp(self):
        running = self.started(peers.UDP)
        try:
            for size in (1200, 64):
                print(f"UDP, {size} bytes ", end="", flush=True)
                jobs = {}
                for peer in running:
                    host, port, sink = peer.target()
                    jobs[peer.name] = lambda p=peer, h=host, o=port, s=sink: self._flood("c", p, "s", s, h, o, size)
                self.results[f"udp_{size}"] = self.rounds(jobs)
            print("UDP, latency ", end="", flush=True)
            direct = World.address("cs")
            jobs = {"direct": lambda: self._ping("c", "direct", "s", direct, direct, SINK)}
            for peer in running:
                host, port, sink = peer.target()
                jobs[peer.name] = lambda p=peer, h=host, o=port, s=sink: self._ping("c", p.name, "s", s, h, o)
            got = self.rounds(jobs)
            for figures in got.values():
                for p in ("p50", "p99"):
                    figures[f"added_{p}_us"] = summary([v - got["direct"][f"{p}_us"]["median"] for v in
                                                        figures[f"{p}_us"]["values"]])
            self.results["udp_ping"] = got
        finally:
            for peer in running:
                peer.stop()

    # --- IP

    def _bulk(self, peer):
        before = cpu_seconds(peer.pids())
        got = self.world.load("tcp", peer.target(), lab.SERVER_PORT, "direct:1", "bulk", "up", BULK, ns="p")
        return {peer.name: {"cpu_s_per_gb": (cpu_seconds(peer.pids()) - before) / (BULK / 1e9), "gbit": got["gbit"]}}

    def ip(self):
        self.world.server(ENDS, self.certs, ns="q")
        running = self.started(peers.IP)
        try:
            print("IP, TCP ", end="", flush=True)
            self.results["ip_bulk"] = self.rounds({p.name: lambda p=p: self._bulk(p) for p in running})
            print("IP, UDP of 1,200 bytes ", end="", flush=True)
            # some of the VPNs' own buffers hold less than the load has on its way
            self.results["ip_udp"] = self.rounds(
                {p.name: lambda p=p: self._flood("p", p, "q", p.target(), p.target(), SINK, 1200, COUNT // 3, 0.05)
                 for p in running})
            print("IP, latency ", end="", flush=True)
            jobs = {"direct": lambda: self._ping("p", "direct", "q", peers.Q, peers.Q, SINK)}
            jobs.update({p.name: lambda p=p: self._ping("p", p.name, "q", p.target(), p.target(), SINK) for p in running})
            self.results["ip_ping"] = self.rounds(jobs)
        finally:
            for peer in running:
                peer.stop()


def goal(results, row):
    """(goal here, ours): the anchor's ratio to its peer, times that peer here; None where there is none."""
    name, figure, _label, _unit, aim, _higher = row
    if not aim:
        return None, None
    ours, other = (results[name].get(column, {}).get(figure) for column in aim[:2])
    return (other["median"] * aim[2] if other else None), ours


def ratio(results, row):
    """How many times better the best of ours is than the best peer (above 1: better)."""
    name, figure, higher = row[0], row[1], row[-1]
    column = "hermes pair" if name.startswith("udp") else "hermes"
    ours = results[name].get(column, {}).get(figure)
    others = [f[figure]["median"] for n, f in results[name].items()
              if figure in f and not n.startswith("hermes") and n not in OURS and n != "direct"]
    if not ours or not others or min(ours["median"], *others) <= 0:
        return "-"
    best = max(others) if higher else min(others)
    return f"{ours['median'] / best if higher else best / ours['median']:.2f}x"


def print_table(results, prefix, columns, aside):
    rows = [r for r in ROWS if r[0].startswith(prefix) and r[0] in results]
    lines = [["work", "unit", *columns, f"{aside}:best peer", "goal here"]]
    for row in rows:
        name, figure, label, unit = row[:4]
        aim, ours = goal(results, row)
        text = "" if aim is None else f"{row[4][0]} {number(aim)}" + (
            "" if not ours else " reached" if ours["median"] <= aim else " missed")
        lines.append([label, unit, *(cell(results[name].get(c), figure) for c in columns), ratio(results, row), text])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def print_tables(record):
    results = record["results"]
    if "udp_64" in results:
        print_table(results, "udp", ("direct", "sendmmsg", "gso", "nginx", "hermes", "hermes near", "hermes far", "hermes pair"),
                    "pair")
    if "ip_bulk" in results:
        print_table(results, "ip", ("direct", "tun offload", "tun", "openvpn", "wireguard-go", "ocserv", "hermes"), "hermes")
    print(f"""
Median (lowest-highest) of {record['rounds']} rounds, all in turn. CPU s/M: CPU seconds for a million datagrams or packets.
UDP: hermes is one node, UDP in and out; the pair has CONNECT-UDP over HTTP/2 and TLS between its two, near and far are its
parts. sendmmsg, gso, tun, tun offload: forwarders of the bench without anything else; offload is the limit.
IP: both ends together. goal here: the goal of ANCHORS.md over what its peer took there, times that peer here.""")


def main(parts):
    out = lab.BUILD / "bench"
    folder = Path(tempfile.mkdtemp(prefix="hermes-bench-"))
    folder.chmod(0o755)
    import hermes
    world = World(folder)
    bench = None
    try:
        bench = Bench(world, hermes.Certs(folder / "tls"))
        for part in parts or ["udp", "ip"]:
            getattr(bench, part)()
    finally:
        world.close()
    record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "quick": QUICK, "rounds": ROUNDS, "datagrams": COUNT,
              "bytes": BULK, "kernel": os.uname().release, "cpus": os.cpu_count(), "versions": bench.versions,
              "results": bench.results, "faults": bench.faults}
    record["goals"] = {f"{row[0]}.{row[1]}": goal(bench.results, row)[0] for row in ROWS if row[0] in bench.results and row[4]}
    (out / "part2.json").write_text(json.dumps(record, indent=1) + "\n")
    print_tables(record)
    print(f"JSON: {out / 'part2.json'}")
    return finish(bench.faults, folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
