# SPDX-License-Identifier: Apache-2.0
"""A controller that says what a test wants it to say, also what no controller would: a plain HTTP/1.1 server behind a Hermes node that
speaks TLS and HTTP/2 for it."""
import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hermes import free_port, wait_for


def signed_text(domain, node, number, digest):
    return f"hermes-config-1\n{domain}\n{node}\n{number}\n{digest}\n".encode()


class FakeController:
    """publish() offers a version to whoever polls; reports holds what came. stop() and start(): away and back, with all it knows."""

    def __init__(self, domain="example.net", node="alice"):
        self.domain, self.node = domain, node
        self.key = Ed25519PrivateKey.generate()
        self.port = free_port()
        self.lock = threading.Condition()
        self.version = None           # what is offered
        self.always = False           # whatever the node has
        self.reports, self.polls, self.renewals = [], [], []
        self.renew = None             # the answer to /v1/renew
        self.ask_renew = False
        self.server = None
        self.connections = set()
        self.start()

    @property
    def public(self):
        raw = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def make(self, number, text, **changes):
        """A version, signed; changes are made afterwards, so that its signature does not fit any more."""
        text = text if isinstance(text, str) else json.dumps(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        version = {"number": number, "version": number, "node": self.node, "domain": self.domain, "time": int(time.time()),
                   "author": "root", "reason": "test", "text": text, "digest": digest}
        key = changes.pop("key", self.key)
        version["signature"] = base64.b64encode(
            key.sign(signed_text(version["domain"], version["node"], number, digest))).decode()
        return {**version, **changes}

    def offer(self, version, always=False):
        with self.lock:
            self.version, self.always = version, always
            self.lock.notify_all()
        return version

    def publish(self, number, text, **changes):
        return self.offer(self.make(number, text, **changes))

    def wait_report(self, what, timeout=15):
        """The first report from now on of which what(report) is true."""
        seen = len(self.reports)

        def found():
            return next((r for r in self.reports[max(seen - 1, 0):] if what(r)), None)
        try:
            return wait_for(found, timeout, message="report")
        except AssertionError as e:
            raise AssertionError(f"{e}; the last one: {self.reports[-1:]}") from None

    def start(self):
        controller = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                controller.connections.add(self.connection)

            def finish(self):
                controller.connections.discard(self.connection)
                super().finish()

            def log_message(self, *_):
                pass

            def answer(self, status, body=None):
                data = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(data)))
                    self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                controller.poll(self)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                controller.post(self, body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                pass
        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def poll(self, handler):
        path, _, query = handler.path.partition("?")
        words = dict(w.split("=") for w in query.split("&") if w)
        if path != "/v1/config":
            return handler.answer(404, {"error": {"code": "x", "message": "no such path"}})
        have, until, server = int(words["have"]), time.monotonic() + float(words["wait"]), self.server
        with self.lock:
            self.polls.append(have)
            while server is self.server and not (self.version and (self.always or self.version["number"] > have)):
                if time.monotonic() > until:
                    return handler.answer(204)
                self.lock.wait(0.5)
            version = self.version
        if server is self.server:
            handler.answer(200, version)

    def post(self, handler, body):
        if handler.path == "/v1/report":
            self.reports.append(body)
            handler.answer(200, {"renew": self.ask_renew, "report_ms": 300})
        elif handler.path == "/v1/renew" and self.renew:
            self.renewals.append(body)
            handler.answer(200, self.renew(body))
        else:
            handler.answer(404, {"error": {"code": "x", "message": "no such path"}})

    def stop(self):
        """Nobody listens any more, and no connection stays."""
        server, self.server = self.server, None
        if not server:
            return
        with self.lock:
            self.lock.notify_all()
        server.shutdown()
        server.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(2)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
