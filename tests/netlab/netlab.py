# SPDX-License-Identifier: Apache-2.0
"""Small networks of Linux network namespaces joined by veth pairs, or by emulated links (linkem.c) with delay, loss, a rate
and outages. Needs root and iproute2.

    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.link(a, "10.9.0.1/24", b, "10.9.0.2/24", mtu=1500)
        wan = lab.emulated_link(a, "10.8.0.1/24", b, "10.8.0.2/24", delay="20ms", loss=0.01, rate="10mbit", queue="64KiB")
        subprocess.run(a.wrap(["ping", "-c1", "10.9.0.2"]))
        wan.set(loss=0, delay="50ms", direction="ab")
        print(wan.stats()["ab"]["lost"])
"""
import ctypes
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


def enter(fd):
    """Takes this thread into the network namespace that a descriptor names."""
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):      # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


def linkem():
    """The emulator's program; made when it is not there yet."""
    build = Path(os.environ.get("HERMES_BUILD", "build"))
    program = (build if build.is_absolute() else TOP / build) / "tests/netlab/linkem"
    if not program.exists():
        subprocess.run(["make", "-s", "-C", str(TOP), f"BUILD={program.parent.parent.parent}", str(program)], check=True,
                       capture_output=True)
    return program


def shape_text(shape):
    """delay="20ms", jitter="1ms", reorder=True, loss=0.01, burst=(p, r[, loss while bad]), rate="10mbit", queue="64KiB",
    outages=(up, down[, offset]) such as ("1s", "2s", "1s"), cut=True. None and 0 switch off."""
    words = []
    for key, value in shape.items():
        if isinstance(value, (tuple, list)):
            value = ":".join(str(v) for v in value)
        words.append(f"{key}={'0' if value is None else int(value) if isinstance(value, bool) else value}")
    return " ".join(words)


def available():
    return os.geteuid() == 0 and os.access("/dev/net/tun", os.W_OK) and subprocess.run(["ip", "netns", "list"], capture_output=True).returncode == 0


class Namespace:
    def __init__(self, name):
        self.name = name
        self.links = 0
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")

    def wrap(self, command):
        """The command line that runs `command` inside; the process keeps its pid (ip execs)."""
        return ["ip", "netns", "exec", self.name, *[str(c) for c in command]]

    def run(self, *command, **kw):
        return subprocess.run(self.wrap(command), check=True, capture_output=True, text=True, **kw)


class EmulatedLink:
    """Two TUN devices, name_a in namespace a and name_b in b, with linkem between them."""

    def __init__(self, a, address_a, b, address_b, mtu, seed, epoch, ab, ba):
        self.name_a, self.name_b = f"emu{a.links}", f"emu{b.links}"
        a.links += 1
        b.links += 1
        self.folder = tempfile.TemporaryDirectory(prefix="linkem-")
        self.control = str(Path(self.folder.name) / "control")
        self.final = None
        self.process = subprocess.Popen(
            [str(linkem()), "--a", f"{a.name}:{self.name_a}", "--b", f"{b.name}:{self.name_b}", "--control", self.control,
             "--seed", str(seed), "--epoch", str(epoch), "--ab", shape_text(ab), "--ba", shape_text(ba)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"linkem: {self.process.stderr.read()}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(Path(self.folder.name) / "client"))
        self.socket.settimeout(10)
        for ns, name, address in ((a, self.name_a, address_a), (b, self.name_b, address_b)):
            ip("-n", ns.name, "link", "set", name, "mtu", str(mtu), "txqueuelen", "10000", "addrgenmode", "none")
            if address:
                ip("-n", ns.name, "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            ip("-n", ns.name, "link", "set", name, "up")

    def _ask(self, text):
        self.socket.sendto(text.encode(), self.control)
        answer = json.loads(self.socket.recv(65536))
        if "error" in answer:
            raise ValueError(f"{text}: {answer['error']}")
        return answer

    def set(self, direction="both", **shape):
        """Changes what is named, at once; packets on their way stay as they are. direction: ab, ba or both."""
        self._ask(f"set {direction} {shape_text(shape)}")

    def cut(self, direction="both"):
        self.set(direction, cut=True)

    def mend(self, direction="both"):
        self.set(direction, cut=False)

    def stats(self):
        """{"ab": {...}, "ba": {...}}: packets received, delivered (as decided), written, lost, lost_burst, queue_full, outage;
        delay_mean_s and others as decided, late_mean_s and late_max_s of writing after that."""
        return self.final or self._ask("stats")

    def close(self):
        """Ends the emulator; its devices go with it. Returns the last counters."""
        if self.final is None:
            self.process.terminate()
            out, error = self.process.communicate(timeout=10)
            self.socket.close()
            self.folder.cleanup()
            if self.process.returncode:
                raise RuntimeError(f"linkem: exit status {self.process.returncode}: {error}")
            self.final = json.loads(out)
        return self.final


class Lab:
    """Names carry our pid, so that several labs live side by side; close() removes all of it."""
    _count = 0

    def __init__(self):
        Lab._count += 1
        self.prefix = f"h{os.getpid()}x{Lab._count}"
        self.namespaces = []
        self.links = []
        self.epoch = time.monotonic_ns()    # of outages: the links of a lab can take turns

    def namespace(self, name):
        ns = Namespace(f"{self.prefix}-{name}")
        self.namespaces.append(ns)
        return ns

    def link(self, a, address_a, b, address_b, mtu=1500):
        """A veth pair between two namespaces; returns the interfaces' names in a and b."""
        name_a, name_b = f"veth{a.links}", f"veth{b.links}"
        a.links += 1
        b.links += 1
        ip("-n", a.name, "link", "add", name_a, "mtu", str(mtu), "type", "veth",
           "peer", "name", name_b, "mtu", str(mtu), "netns", b.name)
        for ns, interface, address in ((a, name_a, address_a), (b, name_b, address_b)):
            ip("-n", ns.name, "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
            ip("-n", ns.name, "link", "set", interface, "up")
        return name_a, name_b

    def emulated_link(self, a, address_a, b, address_b, mtu=1500, seed=1, back=None, **shape):
        """A link with a shape (shape_text) in both directions; back: what is different from b to a. Sizes and rates are of IP
        packets. Returns an EmulatedLink."""
        link = EmulatedLink(a, address_a, b, address_b, mtu, seed, self.epoch, shape, {**shape, **(back or {})})
        self.links.append(link)
        return link

    def nft_loss(self, ns, dev, percent):
        """Drops a share of what comes in at a device, at random, by nftables; 0 takes the rule away. On a veth a segment that the
        sender's offload left whole counts as one packet."""
        table = f"loss_{dev}"
        subprocess.run(ns.wrap(["nft", "delete", "table", "netdev", table]), capture_output=True)
        if percent:
            ns.run("nft", f'add table netdev {table}; add chain netdev {table} lose {{ type filter hook ingress device "{dev}" '
                   f"priority 0; }}; add rule netdev {table} lose numgen random mod 1000000 < {round(percent * 10000)} drop")

    def close(self):
        links, self.links = self.links, []
        for link in links:
            link.close()
        for ns in self.namespaces:
            subprocess.run(["ip", "netns", "del", ns.name], capture_output=True)
        self.namespaces = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
