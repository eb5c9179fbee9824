# SPDX-License-Identifier: Apache-2.0
"""A link with delay, for kernels without netem: a TUN device in each of two namespaces, and packets carried between them
MILLISECONDS late. Good for a few thousand packets a second.

    delay.py MILLISECONDS NAMESPACE ADDRESS NAMESPACE ADDRESS      (ADDRESS: 10.9.6.1/24)
Prints "up" when both devices are."""
import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000


def open_tun(namespace, address):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as ns:
        if libc.setns(ns.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"late0", IFF_TUN | IFF_NO_PI))
    for line in (["address", "add", address, "dev", "late0"], ["link", "set", "late0", "mtu", "1500", "up"]):
        subprocess.run(["ip", *line], check=True)
    return fd


def carry(fds, late):
    queue, number = [], 0
    while True:
        wait = max(0, queue[0][0] - time.monotonic()) if queue else None
        for fd in select.select(fds, [], [], wait)[0]:
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                continue
            number += 1
            heapq.heappush(queue, (time.monotonic() + late, number, fds[1] if fd == fds[0] else fds[0], packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, fd, packet = heapq.heappop(queue)
            try:
                os.write(fd, packet)
            except OSError:
                pass


def main():
    late = float(sys.argv[1]) / 1000
    fds = [open_tun(*sys.argv[2:4]), open_tun(*sys.argv[4:6])]
    print("up", flush=True)
    carry(fds, late)


if __name__ == "__main__":
    main()
