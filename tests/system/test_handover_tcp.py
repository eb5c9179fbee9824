# SPDX-License-Identifier: Apache-2.0
"""TCP connections between Hermes ends outlive the replacement of every worker on their way."""
import hashlib
import http.server
import os
import socket
import socketserver
import subprocess
import threading

import pytest

import hermes
from hermes import free_port, wait_for
from test_handover import nobody_lost_anything, replace
from test_resume import middle_config


SOCKS = free_port()


def by_socks(sock):
    """RFC 1928: CONNECT to the name ECHO, port 7."""
    sock.sendall(b"\5\1\0")
    assert sock.recv(2, socket.MSG_WAITALL) == b"\5\0"
    sock.sendall(b"\5\1\0\3\4ECHO\0\7")
    assert sock.recv(10, socket.MSG_WAITALL)[:2] == b"\5\0"


def by_connect(sock):
    sock.sendall(b"CONNECT ECHO:7 HTTP/1.1\r\nHost: ECHO:7\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 200")


class EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True

    def __init__(self):
        self.peers = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                outer.peers.append(self.client_address)
                while data := self.request.recv(65536):
                    self.request.sendall(data)
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Files(http.server.ThreadingHTTPServer):
    """One body of `size` bytes, whose digest is known; HTTP/1.0, no ranges: who retries begins anew, and is counted."""
    daemon_threads = True

    def __init__(self, size):
        block = os.urandom(1 << 20)
        self.asked, self.digest = 0, hashlib.sha256(block * (size >> 20)).hexdigest()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                for _ in range(size >> 20):
                    self.wfile.write(block)

            def log_message(self, *args):
                pass
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Talk:
    """A connection on which numbered blocks go out and must come back in order."""

    def __init__(self, port, greet=lambda sock: None):
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.sock.settimeout(60)
        greet(self.sock)
        self.sent = self.got = 0
        self.error, self.ending = None, False
        self.threads = [threading.Thread(target=self._guard, args=(t,), daemon=True) for t in (self._send, self._receive)]
        for t in self.threads:
            t.start()

    def _guard(self, what):
        try:
            what()
        except Exception as error:      # the test looks at it
            self.error = error

    @staticmethod
    def block(n):
        return (b"%08d" % n) * 128      # 1 KiB

    def _send(self):
        while not self.ending:
            self.sock.sendall(self.block(self.sent))
            self.sent += 1
            threading.Event().wait(0.001)
        self.sock.shutdown(socket.SHUT_WR)

    def _receive(self):
        with self.sock.makefile("rb") as f:
            while data := f.read(1024):
                assert data == self.block(self.got), (self.got, data[:16])
                self.got += 1

    def answered(self, more):
        want = self.got + more
        wait_for(lambda: self.got >= want or self.error, 60, message=f"{more} more blocks")
        assert not self.error, self.error

    def stop(self):
        self.ending = True
        for t in self.threads:
            t.join(60)
        assert not self.error and self.got == self.sent, (self.error, self.got, self.sent)
        self.sock.close()


@pytest.fixture
def way(node, certs):
    """alice's listeners, a middle node, the far end, and servers."""
    overlay, between, port, proxy = (free_port() for _ in range(4))
    echo, files = EchoServer(), Files(100 << 20)
    far = hermes.ingress_config(overlay, certs)
    far["node"].update(tunnel_workers=1, drain_timeout="20s")
    far["clusters"] = [{"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.server_address[1]}"]},
                       {"name": "files", "carry": "tcp", "endpoints": [f"127.0.0.1:{files.server_address[1]}"]}]
    far["routes"] = [{"match": {"authority": "ECHO"}, "cluster": "echo"}, {"match": {}, "cluster": "files"}]
    middle = middle_config(certs, between, overlay)
    middle["node"].update(tunnel_workers=1, drain_timeout="20s")
    alice = hermes.alice_config(proxy, certs, between)
    alice["node"].update(tunnel_workers=1, drain_timeout="20s")
    alice["clusters"][0]["tls"] = {"server_name": "middle.example.net"}
    alice["listeners"].append({"name": "echo", "address": f"127.0.0.1:{port}", "accept": "tcp", "target": "ECHO:7",
                               "add_headers": {"user": "alice"}})
    alice["listeners"].append({"name": "socks", "address": f"127.0.0.1:{SOCKS}", "accept": "socks5"})
    for config in (far, middle, alice):            # for who looks at a failure
        config["telemetry"] = {"access_log": [{"to": "stderr", "format": "json"}]}
    nodes = [node("ingress", far), node("middle", middle), node("alice", alice)]
    yield port, proxy, echo, files, nodes
    for server in (echo, files):
        server.shutdown()
        server.server_close()


def download(proxy, folder, port):
    return subprocess.Popen(["curl", "-sS", "-p", "-x", f"http://127.0.0.1:{proxy}", "-o", folder / "file",
                             "--limit-rate", "12M", f"http://FILES:{port}/file"])


def test_long_connections_live_on(way, tmp_path):
    port, proxy, echo, files, nodes = way
    talk = Talk(port)
    talk.answered(200)
    curl = download(proxy, tmp_path, files.server_address[1])
    rounds = 0
    while curl.poll() is None or rounds < 2:
        for n in nodes:
            replace(n)
            talk.answered(200)
        rounds += 1
    assert curl.returncode == 0 and files.asked == 1
    assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == files.digest
    talk.stop()
    assert len(echo.peers) == 1
    nobody_lost_anything(*nodes)


def test_all_at_once(way):
    port, _, echo, _, nodes = way
    talks = [Talk(port) for _ in range(10)]
    for _ in range(3):
        for t in talks:
            t.answered(50)
        for n in nodes:
            n.admin("workers", "restart", "tunnel-0")
    for t in talks:
        t.answered(100)
        t.stop()
    assert len(echo.peers) == 10
    nobody_lost_anything(*nodes)


def test_by_socks_and_connect(way):
    """However the program came to its connection; and while nothing is said on it."""
    _, proxy, echo, _, nodes = way
    talks = [Talk(SOCKS, by_socks), Talk(proxy, by_connect)]
    with socket.create_connection(("127.0.0.1", proxy), 10) as quiet:
        by_connect(quiet)
        for n in nodes * 2:
            replace(n)
            for t in talks:
                t.answered(50)
        quiet.settimeout(10)
        quiet.sendall(b"still there")
        assert quiet.recv(11, socket.MSG_WAITALL) == b"still there"
    for t in talks:
        t.stop()
    assert len(echo.peers) == 3
    nobody_lost_anything(*nodes)


def test_connections_that_begin_meanwhile(way):
    """None is refused, and none that was being opened is broken."""
    port, _, echo, _, nodes = way
    done, stop = [], threading.Event()

    def connect():
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", port), 20) as s:
                s.settimeout(30)
                s.sendall(b"hello")
                assert s.recv(5, socket.MSG_WAITALL) == b"hello"
                s.shutdown(socket.SHUT_WR)
                assert s.recv(1) == b""
            done.append(1)

    errors = []

    def guarded():
        try:
            connect()
        except Exception as error:      # the test looks at it
            errors.append(error)
    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    for n in nodes * 2:
        before = len(done)
        replace(n)
        wait_for(lambda: len(done) > before + 20 or errors, 30, message="connections")
    stop.set()
    for t in threads:
        t.join(40)
    assert not errors, errors
    nobody_lost_anything(*nodes)
