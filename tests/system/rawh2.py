# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 without manners, for tests of bad input: frames as they come, over any socket. And who watches that nobody else is
hurt: Watch."""
import contextlib
import http.client
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CALM, REFUSED, PROTOCOL = 0xb, 0x7, 0x1


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def setting(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in pairs))


def reset(stream, code=8):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window(stream, n):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", n))


class H2:
    """A connection. tls: an ssl.SSLContext. Frames that come are kept in .frames as (kind, flags, stream, payload)."""

    def __init__(self, port, tls=None, preface=True, settings=(), host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), 10)
        if tls:
            tls.set_alpn_protocols(["h2"])
            self.sock = tls.wrap_socket(self.sock, server_hostname="ingress.example.net")
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.frames, self.closed, self.acks = b"", [], False, True
        self.decoded, self.heads = 0, {}      # frames looked at; header lists by stream
        if preface:
            self.send(PREFACE + setting(*settings))

    def send(self, data):
        """False when the peer does not want to hear more."""
        self.sock.settimeout(20)
        try:
            self.sock.sendall(data)
            return True
        except OSError:
            self.closed = True
            return False

    def headers(self, stream, *extra, method="GET", scheme="http", authority="www", path="/", end=True):
        fields = [(":method", method)]
        if method != "CONNECT":
            fields += [(":scheme", scheme), (":path", path)]
        if authority is not None:
            fields.append((":authority", authority))
        return self.block(stream, fields + list(extra), end)

    def block(self, stream, fields, end=True):
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.encoder.encode(fields, huffman=False))

    def read(self, timeout=0.2):
        """Takes what has come; False when nothing did."""
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(1 << 18)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        self.buffer += data
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                break
            kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
            payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
            self.frames.append((kind, flags, stream, payload))
            if kind == SETTINGS and not flags & ACK and self.acks:
                self.send(frame(SETTINGS, ACK))
        return True

    def wait(self, what, timeout=15.0):
        """Reads until what(self) is true, its value; None when the connection ends or time is over."""
        end = time.monotonic() + timeout
        while True:
            value = what(self)
            if value:
                return value
            if self.closed or time.monotonic() > end:
                return None
            self.read()

    def of(self, kind, stream=None):
        return [f for f in self.frames if f[0] == kind and (stream is None or f[2] == stream)]

    def goaway(self):
        """(last stream, error code) of the last GOAWAY."""
        found = self.of(GOAWAY)
        return struct.unpack(">II", found[-1][3][:8]) if found else None

    def wait_goaway(self, timeout=15.0):
        return self.wait(H2.goaway, timeout)

    def code(self, stream):
        """The error code that stream was reset with, or None."""
        found = self.of(RST_STREAM, stream)
        return struct.unpack(">I", found[-1][3])[0] if found else None

    def status(self, stream):
        """The (last) status of the response on stream; decodes all header blocks so far in their order."""
        while self.decoded < len(self.frames):
            kind, _flags, number, payload = self.frames[self.decoded]
            self.decoded += 1
            if kind == HEADERS:
                fields = dict(self.decoder.decode(payload))
                self.heads.setdefault(number, []).append(fields)
        return next((int(h[":status"]) for h in reversed(self.heads.get(stream, [])) if ":status" in h), None)

    def get(self, stream, *extra, timeout=15.0, **how):
        """Asks, and returns the status, or ("reset", code), or None."""
        self.send(self.headers(stream, *extra, **how))
        return self.answer(stream, timeout)

    def answer(self, stream, timeout=15.0):
        def done(h2):
            if h2.code(stream) is not None:
                return ("reset", h2.code(stream))
            if h2.goaway() and h2.goaway()[1]:
                return ("goaway", h2.goaway()[1])
            return h2.status(stream)
        return self.wait(done, timeout)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def client_tls(certs, pair=None, ca=None, minimum=None, maximum=None):
    """A context that shows certificate and key `pair` (may be None) and believes the certs' authority (or ca)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(ca or certs.ca))
    context.check_hostname = False
    if pair:
        context.load_cert_chain(*map(str, pair))
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    return context


def rss(pid):
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


SLACK_KIB = 24 * 1024      # allocators keep what was freed; under AddressSanitizer rather more


class Watch:
    """A well-behaved client that asks all the time, through its own connections, and memory and processes of the node.

        with Watch(node, port, url) as watch: ...

    fails when any of its requests failed or took more than `patience`, a worker was replaced, or the node's tunnel workers
    grew by more than `grow` KiB at any time."""

    def __init__(self, node, port, url, grow=SLACK_KIB, patience=8.0):
        self.node, self.port, self.url, self.grow, self.patience = node, port, url, grow, patience
        self.failures, self.served, self.peak = [], 0, 0

    def __enter__(self):
        self.before = self.node.pids()
        assert self.before.get("tunnel"), f"no tunnel worker: {self.before}"
        self.ask()
        assert not self.failures, self.failures
        self.base = self.memory()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(what, every), daemon=True)
                        for what, every in ((self.ask, 0.05), (self.measure, 0.02))]
        for thread in self.threads:
            thread.start()
        return self

    def memory(self):
        return sum(rss(pid) for pid in self.before["tunnel"])

    def measure(self):
        with contextlib.suppress(OSError):
            self.peak = max(self.peak, self.memory())

    def run(self, what, every):
        while not self.over.wait(every):
            what()

    def ask(self):
        started = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
            connection.request("GET", self.url)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if answer.status != 200:
                self.failures.append(f"{answer.status} {body[:200]}")
            self.served += 1
        except (OSError, http.client.HTTPException) as e:
            self.failures.append(f"{e!r} after {time.monotonic() - started:.1f} s")

    def __exit__(self, kind, *rest):
        if kind is None:
            self.ask()             # at least one during or after
        self.over.set()
        for thread in self.threads:
            thread.join()
        print(f"served {self.served}; memory {self.base} KiB, at most {self.peak} KiB")
        if kind is not None:
            return
        assert self.node.pids() == self.before, f"workers were replaced: {self.before} {self.node.pids()}\n{self.node.log()}"
        assert not self.failures, f"another client was hurt: {self.failures[:3]} ({len(self.failures)} of {self.served})"
        assert self.peak - self.base <= self.grow, f"memory grew from {self.base} to {self.peak} KiB"


def sanitizer_small_quarantine():
    """Freed memory goes back soon, so that growth means something."""
    return {"ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=64:abort_on_error=0"}
