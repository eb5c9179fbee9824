# SPDX-License-Identifier: Apache-2.0
"""Capsules (RFC 9297) as raw ends of tunnels speak them, over an exchange of pairs.py, and plain UDP ends."""
import socket
import threading

UDP, IP = "/.well-known/masque/udp/", "/.well-known/masque/ip/"
DATAGRAM = 0


def varint(n, size=None):
    """size: bytes to use, more than needed being legal (RFC 9000 16)."""
    size = size or (1 if n < 64 else 2 if n < 16384 else 4 if n < 1 << 30 else 8)
    return (n | {1: 0, 2: 1, 4: 2, 8: 3}[size] << 8 * size - 2).to_bytes(size, "big")


def capsule(kind, value, size=None):
    return varint(kind, size) + varint(len(value), size) + value


def datagram(payload, context=0, size=None):
    return capsule(DATAGRAM, varint(context, size) + payload, size)


def udp_path(host, port):
    return f"{UDP}{host.replace(':', '%3A')}/{port}/"


class Reader:
    """Takes capsules off an exchange."""

    def __init__(self, exchange):
        self.exchange, self.buffer = exchange, b""

    def _take(self, n):
        while len(self.buffer) < n:
            data = self.exchange.read()
            if not data:
                raise EOFError(f"the stream ended with {self.buffer!r}")
            self.buffer += data
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def _varint(self):
        first = self._take(1)
        rest = self._take((1 << (first[0] >> 6)) - 1)
        return int.from_bytes(bytes([first[0] & 0x3f]) + rest, "big")

    def capsule(self):
        """(type, value) of the next."""
        kind, length = self._varint(), self._varint()
        return kind, self._take(length)

    def datagram(self):
        """The payload of the next DATAGRAM with context 0; others are passed over."""
        while True:
            kind, value = self.capsule()
            if kind == DATAGRAM and value[:1] == b"\0":
                return value[1:]


class UdpServer:
    """answer(data, source, socket) for each datagram, by default back as it is. .seen: (data, source)."""

    def __init__(self, host="127.0.0.1", answer=None):
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.host, self.port, self.seen = host, self.sock.getsockname()[1], []
        self.answer = answer or (lambda data, source, sock: sock.sendto(data, source))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                data, source = self.sock.recvfrom(70000)
            except OSError:
                return
            if not source:          # shut down
                return
            self.seen.append((data, source))
            self.answer(data, source, self.sock)

    def stop(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
