# SPDX-License-Identifier: Apache-2.0
"""Servers for tests of clusters: backends that say who they are and can be told to misbehave, and a name server."""
import hashlib
import socket
import struct
import threading
import time

import servers


class _BackendHandler(servers._OddHandler):
    """/who: the backend's number. /check: its status for health checks. /count: tries; fails the first .fail of them by
    .how ("reset", or a status), and then answers with the digest of the body. /sleep: waits .delay seconds first."""

    def odd_who(self, *_):
        self.server.asked += 1
        self.body()
        if self.server.status != 200:
            return self.answer(self.server.status, b"broken\n")
        self.answer(200, b"%d\n" % self.server.number)

    def odd_check(self):
        self.server.checks += 1
        self.answer(self.server.health, b"")

    def odd_count(self):
        digest = hashlib.sha256(self.body()).hexdigest()
        self.server.asked += 1
        if self.server.asked <= self.server.fail:
            if self.server.how == "reset":
                return self._reset()
            return self.answer(self.server.how, b"not yet\n")
        self.answer(200, f"{self.server.asked} {digest}\n".encode())

    def odd_sleep(self):
        self.server.asked += 1
        time.sleep(self.server.delay)
        self.answer(200, b"%d\n" % self.server.number)


class Backend(servers.Odd):
    def __init__(self, number=0, port=0):
        self.number, self.asked, self.checks = number, 0, 0
        self.status = self.health = 200
        self.fail, self.how, self.delay = 0, "reset", 0
        super().__init__(port=port)
        self.RequestHandlerClass = _BackendHandler

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.port}"


class NameServer:
    """DNS on 127.0.0.1, UDP and TCP. records: {name: [address, ...]}; ttl, rcode and silent for all; truncate: UDP answers
    say that they do not fit. asked: [(name, type, "udp" or "tcp")]."""

    def __init__(self):
        self.records, self.ttl, self.rcode, self.silent, self.truncate, self.asked = {}, 60, 0, False, False, []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self.udp.bind(("127.0.0.1", 0))
            self.port = self.udp.getsockname()[1]
            try:
                self.tcp = socket.create_server(("127.0.0.1", self.port))
                break
            except OSError:
                self.udp.close()
                self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for run in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=run, daemon=True).start()

    def _answer(self, query, way):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        kind = struct.unpack("!H", query[at + 1:at + 3])[0]
        name = ".".join(labels)
        self.asked.append((name, kind, way))
        if self.silent:
            return None
        question = query[12:at + 5]
        known = name in self.records
        rcode = self.rcode or (0 if known else 3)
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        answers = b""
        count = 0
        for address in self.records.get(name, []) if family and not rcode else []:
            if (":" in address) != (kind == 28):
                continue
            data = socket.inet_pton(family, address)
            answers += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, self.ttl, len(data)) + data
            count += 1
        flags = 0x8180 | rcode
        if self.truncate and way == "udp":
            flags, answers, count = flags | 0x200, b"", 0
        return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + answers

    def _serve_udp(self):
        while True:
            try:
                query, client = self.udp.recvfrom(4096)
            except OSError:
                return
            answer = self._answer(query, "udp")
            if answer:
                self.udp.sendto(answer, client)

    def _serve_tcp(self):
        while True:
            try:
                client, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_client, args=(client,), daemon=True).start()

    def _serve_client(self, client):
        with client:
            file = client.makefile("rb")
            while len(head := file.read(2)) == 2:
                answer = self._answer(file.read(struct.unpack("!H", head)[0]), "tcp")
                if answer:
                    client.sendall(struct.pack("!H", len(answer)) + answer)

    def stop(self):
        self.udp.close()
        self.tcp.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
