# SPDX-License-Identifier: Apache-2.0
"""Where measurements run: namespaces, pinned processes, CPU and memory of process trees."""
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/system"), str(ROOT / "tests/netlab")]
import netlab    # noqa: E402

BUILD = (ROOT / os.environ.get("HERMES_BUILD", "build")).resolve()
ENDS, PROXIES = 0, 1     # the core of client and server, and that of the proxies
SERVER_PORT, TLS_PORT = 7000, 7443


class World:
    """client - p - q - server, in a row, and client - q, p - server and client - server beside. Addresses: 10.9.LINK.1 at
    the left end and .2 at the right one."""
    LINKS = {"cp": ("c", "p", 1), "pq": ("p", "q", 2), "qs": ("q", "s", 3), "ps": ("p", "s", 4), "cs": ("c", "s", 5)}

    LATE = ("10.9.6.1", "10.9.6.2")      # p and q once more, over late()

    def __init__(self, folder):
        self.folder = Path(folder)
        self.lab = netlab.Lab()
        self.ns = {name: self.lab.namespace(name) for name in "cpqs"}
        for left, right, number in self.LINKS.values():
            self.lab.link(self.ns[left], f"10.9.{number}.1/24", self.ns[right], f"10.9.{number}.2/24", mtu=1500)
        for ns in self.ns.values():
            ns.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000", "net.ipv4.tcp_tw_reuse=1",
                   "net.core.somaxconn=8192")
        self.processes = []
        self.number = os.getpid()

    @staticmethod
    def address(link, right=True):
        return f"10.9.{World.LINKS[link][2]}.{2 if right else 1}"

    def wrap(self, ns, core):
        return lambda command: self.ns[ns].wrap(["taskset", "-c", core, *command])

    def start(self, ns, core, *command, log="log"):
        with open(self.folder / log, "ab") as out:
            process = subprocess.Popen(self.wrap(ns, core)(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.processes.append(process)
        return process

    def server(self, core, certs, ns="s"):
        crt, key = certs.server("server", out=f"server-{ns}")
        return self.start(ns, core, BUILD / "bench/server", SERVER_PORT, TLS_PORT, crt, key, log="server.log")

    def late(self, milliseconds):
        """A second link between p and q, with this one-way delay."""
        self.lab.emulated_link(self.ns["p"], f"{self.LATE[0]}/24", self.ns["q"], f"{self.LATE[1]}/24", delay=f"{milliseconds}ms")

    def tool(self, program, *args, core=ENDS, timeout=300, ns="c"):
        """Runs one of the bench's programs in a namespace; its JSON."""
        command = self.wrap(ns, core)([BUILD / "bench" / program, *args])
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(map(str, args))}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def load(self, *args, **kw):
        """The load generator, in the client's namespace where no other is named."""
        return self.tool("load", *args, **kw)

    def wait_port(self, ns, address, port, process=None, timeout=20):
        probe = f"exec 3<>/dev/tcp/{address}/{port}"
        end = time.monotonic() + timeout
        while subprocess.run(self.ns[ns].wrap(["bash", "-c", probe]), capture_output=True).returncode:
            if time.monotonic() > end or (process and process.poll() is not None):
                raise RuntimeError(f"nobody listens on {address}:{port}, see {self.folder}")
            time.sleep(0.1)

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.lab.close()


def tree(pid):
    """pid and all its descendants."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        queue += children.get(one, [])
    return found


def cpu_seconds(pids):
    """User and system time of these processes and their descendants, from the scheduler's own clock (ns); utime + stime of
    /proc/PID/stat is the same clock in ticks."""
    total = 0
    for root in pids:
        for pid in tree(root):
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(task.read_text().split()[0])
                except (OSError, IndexError):
                    pass
    return total / 1e9


def pss_kib(pids):
    total = 0
    for root in pids:
        for pid in tree(root):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def pin(pids, core):
    for root in pids:
        for pid in tree(root):
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    os.sched_setaffinity(int(task.name), {core})
                except OSError:
                    pass


def summary(values):
    """Median and spread (lowest, highest) of one figure's rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}
