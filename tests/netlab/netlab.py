# SPDX-License-Identifier: Apache-2.0
"""Small networks of Linux network namespaces joined by veth pairs. Needs root and iproute2.

    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.link(a, "10.9.0.1/24", b, "10.9.0.2/24", mtu=1500)
        subprocess.run(a.wrap(["ping", "-c1", "10.9.0.2"]))
"""
import os
import subprocess


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


def available():
    return os.geteuid() == 0 and subprocess.run(["ip", "netns", "list"], capture_output=True).returncode == 0


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


class Lab:
    """Names carry our pid, so that several labs live side by side; close() removes all of it."""
    _count = 0

    def __init__(self):
        Lab._count += 1
        self.prefix = f"h{os.getpid()}x{Lab._count}"
        self.namespaces = []

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

    def close(self):
        for ns in self.namespaces:
            subprocess.run(["ip", "netns", "del", ns.name], capture_output=True)
        self.namespaces = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
