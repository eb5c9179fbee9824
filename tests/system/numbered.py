# SPDX-License-Identifier: Apache-2.0
"""Numbered datagrams at a steady rate through a node to an echo, and what became of each; a relay whose connections break."""
import collections
import socket
import struct
import threading
import time

from hermes import free_port, wait_for


class Echo:
    """A UDP program that sends back what comes, and counts."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.counts, self.peers = collections.Counter(), set()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            data, peer = self.sock.recvfrom(65536)
            if data == b"end":
                return
            self.counts[struct.unpack("!I", data[:4])[0]] += 1
            self.peers.add(peer)
            self.sock.sendto(data, peer)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"end", ("127.0.0.1", self.port))
        self.thread.join(10)
        self.sock.close()


class Numbered:
    """A UDP program that sends `rate` datagrams a second from its start to stop(), each with its number."""

    def __init__(self, port, rate=1000, size=100):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.connect(("127.0.0.1", port))
        self.rate, self.size = rate, size
        self.sent, self.ending, self.counts = 0, False, collections.Counter()
        self.threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._receive)]
        for t in self.threads:
            t.start()

    def _send(self):
        began = time.monotonic()
        while not self.ending:
            due = int((time.monotonic() - began) * self.rate)
            while self.sent < due:
                self.sock.send(struct.pack("!I", self.sent) + b"x" * (self.size - 4))
                self.sent += 1
            time.sleep(0.005)

    def _receive(self):
        self.sock.settimeout(0.2)
        while not self.ending or len(self.counts) < self.sent:
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                if self.ending and time.monotonic() > self.until:
                    return
                continue
            self.counts[struct.unpack("!I", data[:4])[0]] += 1

    def answered(self, more, timeout=30):
        """Waits until `more` further ones came back."""
        want = len(self.counts) + more
        wait_for(lambda: len(self.counts) >= want, timeout, message=f"{more} more datagrams")

    def stop(self, patience=20):
        """No more are sent; those under way may come."""
        self.until = time.monotonic() + patience
        self.ending = True
        for t in self.threads:
            t.join()
        time.sleep(0.2)
        self.sock.setblocking(False)
        while True:
            try:
                self.counts[struct.unpack("!I", self.sock.recv(65536)[:4])[0]] += 1
            except BlockingIOError:
                break
        self.sock.close()

    def check(self, *echoes):
        """None was lost, none came twice, there or back."""
        there = sum((e.counts for e in echoes), collections.Counter())
        for name, counts in (("there", there), ("back", self.counts)):
            lost = [n for n in range(self.sent) if not counts[n]]
            twice = [n for n in range(self.sent) if counts[n] > 1]
            assert not lost and not twice, \
                f"{name}, of {self.sent}: lost {len(lost)} {lost[:5]}..{lost[-3:]}, doubled {len(twice)} {twice[:5]}"


class Relay:
    """TCP in between: connections can be reset, or stand still."""

    def __init__(self, to):
        self.port, self.to = free_port(), to
        self.pairs, self.still, self.lock = [], threading.Event(), threading.Lock()
        self.still.set()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                a, _ = self.listener.accept()
            except OSError:
                return
            try:
                b = socket.create_connection(("127.0.0.1", self.to), 5)
                b.settimeout(None)
            except OSError:
                self._reset(a)
                continue
            with self.lock:
                self.pairs.append((a, b))
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self._move, args=(x, y), daemon=True).start()

    def _move(self, x, y):
        try:
            while data := x.recv(65536):
                self.still.wait()
                y.sendall(data)
        except OSError:
            pass
        self._reset(x)
        self._reset(y)

    @staticmethod
    def _reset(s):
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.shutdown(socket.SHUT_RD)
            s.close()
        except OSError:
            pass

    def reset(self):
        """Every connection; what is under way in it is lost."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for a, b in pairs:
            self._reset(a)
            self._reset(b)

    def stand_still(self, seconds):
        self.still.clear()
        time.sleep(seconds)
        self.still.set()

    def close(self):
        self.listener.close()
        self.still.set()
        self.reset()
