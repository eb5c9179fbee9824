# SPDX-License-Identifier: Apache-2.0
"""Real and odd servers behind the proxies: nginx, MariaDB, and small Python ones that do what real ones seldom do."""
import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from hermes import free_port, wait_port


class _Program:
    """A server program with its own folder, stopped by its pid."""
    process, stop_signal = None, signal.SIGTERM

    def spawn(self, line, log, wrap=None):
        with open(log, "ab") as out:
            self.process = subprocess.Popen(wrap(line) if wrap else line, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class Nginx(_Program):
    """Debian's nginx. .port (HTTP), .tls_port (HTTPS, HTTP/2 too, names www.example.com and localhost); files in .root;
    access log in .access. big: bytes of /big, its SHA-256 in .big_digest. extra: further lines of the server block."""
    CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
user {user};
events {{ worker_connections 4096; }}
http {{
  access_log {folder}/access.log; default_type application/octet-stream; sendfile on;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5; client_max_body_size 0; keepalive_requests 1000000;
  types {{ text/html html; }}
  server {{ listen {address}:{port}; {tls} root {folder}/html; {extra} }}
}}
"""

    def __init__(self, folder, certs=None, text="hello\n", big=0, extra="", address="127.0.0.1", port=None, tls_port=None,
                 wrap=None):
        self.folder, self.address = Path(folder), address
        self.root = self.folder / "html"
        self.root.mkdir(parents=True)
        self.port = port or free_port()
        (self.root / "index.html").write_text(text)
        self.text = text
        if big:
            self.big_digest = make_file(self.root / "big", big)
        tls = ""
        if certs:
            self.tls_port = tls_port or free_port()
            crt, key = certs.server("www.example.com", "DNS:www.example.com", "DNS:localhost", f"IP:{address}",
                                    out=f"www-{self.port}")
            tls = f"listen {address}:{self.tls_port} ssl http2; ssl_certificate {crt}; ssl_certificate_key {key};"
        self.access = self.folder / "access.log"
        config = self.folder / "nginx.conf"
        config.write_text(self.CONFIG.format(folder=self.folder, port=self.port, address=address, tls=tls, extra=extra,
                                             user=_own_user()))
        self.stop_signal = signal.SIGTERM
        self.spawn(["nginx", "-p", str(self.folder), "-c", str(config), "-e", str(self.folder / "error.log")],
                   self.folder / "log", wrap)
        if not wrap:
            wait_port(self.port, address)


def _own_user():
    import pwd
    return pwd.getpwuid(os.geteuid()).pw_name


def make_file(path, size):
    """Bytes that do not compress or repeat within a megabyte; returns SHA-256."""
    digest, block = hashlib.sha256(), os.urandom(1 << 20)
    with open(path, "wb") as f:
        left, number = size, 0
        while left:
            piece = (number.to_bytes(8, "big") + block[8:])[:left]
            f.write(piece)
            digest.update(piece)
            left -= len(piece)
            number += 1
    return digest.hexdigest()


class MariaDB(_Program):
    """Debian's MariaDB on its own data folder, no passwords. query() goes to host and port (default: its own)."""

    def __init__(self, folder, port=None):
        self.folder, self.port = Path(folder), port or free_port()
        data = self.folder / "data"
        data.mkdir(parents=True)
        user = f"--user={_own_user()}"
        subprocess.run(["mariadb-install-db", "--no-defaults", "--force", f"--datadir={data}", user, "--skip-test-db",
                        "--auth-root-authentication-method=normal", "--innodb-log-file-size=4M"],
                       check=True, capture_output=True)
        self.socket = self.folder / "s"
        self.spawn(["mariadbd", "--no-defaults", f"--datadir={data}", user, f"--socket={self.socket}",
                    f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.folder}/pid",
                    "--skip-grant-tables", "--skip-name-resolve", "--innodb-buffer-pool-size=16M",
                    "--innodb-log-file-size=4M", "--performance-schema=off", "--skip-log-bin"], self.folder / "log")
        wait_port(self.port, timeout=60)

    def query(self, sql, port=None, host="127.0.0.1"):
        done = subprocess.run(["mariadb", "--no-defaults", "-h", host, "-P", str(port or self.port), "--protocol=TCP",
                               "--connect-timeout=15", "-N", "-B", "-e", sql], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


class _OddHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "odd"

    def log_message(self, *args):
        pass

    def do(self):
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        name = url.path.strip("/").split("/")
        self.server.seen.append((self.command, self.path, list(self.headers.items())))
        method = getattr(self, "odd_" + (name[0].replace("-", "_") or "index"), None)
        if method is None:
            return self.answer(404, b"no such oddity\n")
        method(*name[1:])
    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_OPTIONS = do_PATCH = do

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            data = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                data += self.rfile.read(size)
                if not size:
                    self.trailers = []
                    while (line := self.rfile.readline().strip()):
                        self.trailers.append(line.decode())
                    return data
                self.rfile.readline()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def odd_index(self):
        self.answer(200, b"odd\n")

    def odd_echo(self, *_):
        """What arrived, as JSON: headers as a list of pairs."""
        self.trailers = []
        body = self.body()
        text = json.dumps({"method": self.command, "path": self.path, "headers": self.headers.items(),
                           "body": body.decode("latin1"), "trailers": self.trailers, "client": self.client_address})
        self.answer(200, text.encode(), [("Content-Type", "application/json")])

    def odd_digest(self):
        """SHA-256 and length of the request's body."""
        body = self.body()
        self.answer(200, f"{hashlib.sha256(body).hexdigest()} {len(body)}\n".encode())

    def odd_status(self, code, *_):
        self.body()
        self.answer(int(code), f"status {code}\n".encode(), [("X-Odd", "yes"), ("Retry-After", "7")])

    def odd_slow(self):
        """ms= until the head, then gap= ms between each of n= lines."""
        time.sleep(int(self.query.get("ms", 1000)) / 1000)
        self._chunked((b"line %d\n" % i for i in range(int(self.query.get("n", 3)))), int(self.query.get("gap", 0)) / 1000)

    def odd_chunked(self):
        """n= chunks of size= bytes."""
        size = int(self.query.get("size", 1000))
        self._chunked((bytes([65 + i % 26]) * size for i in range(int(self.query.get("n", 10)))))

    def odd_trailers(self):
        self._chunked([b"with trailers\n"], trailers=[("X-Checksum", "abc"), ("X-Last", "1")],
                      headers=[("Trailer", "X-Checksum, X-Last")])

    def _chunked(self, parts, gap=0.0, trailers=(), headers=()):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(gap)
        self.wfile.write(b"0\r\n" + b"".join(f"{n}: {v}\r\n".encode() for n, v in trailers) + b"\r\n")

    def odd_1xx(self):
        """103 twice, then 200."""
        for _ in range(2):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
            time.sleep(0.05)
        self.answer(200, b"after hints\n")

    def odd_expect(self):
        """BaseHTTPRequestHandler has sent 100 Continue where asked."""
        body = self.body()
        self.answer(200, b"got %d\n" % len(body))

    def handle_expect_100(self):
        if self.path.startswith("/expect-refuse"):
            self.close_connection = True
            self.answer(417, b"no\n", [("Connection", "close")])
            return False
        return super().handle_expect_100()

    def odd_early(self):
        """Answers before it has read the body, and never reads it."""
        self.close_connection = True
        self.answer(413, b"too large\n", [("Connection", "close")])

    def odd_reset(self):
        """after= bytes of a body that promised more, then a reset."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"x" * int(self.query.get("after", 1000)))
        time.sleep(0.1)
        self._reset()

    def odd_reset_first(self):
        """Resets without an answer."""
        self._reset()

    def odd_flaky(self, key="x"):
        """Resets the first n= times that this key is asked, then answers. Counts in server.counts."""
        self.body()
        self.server.counts[key] = self.server.counts.get(key, 0) + 1
        if self.server.counts[key] <= int(self.query.get("n", 1)):
            return self._reset()
        self.answer(200, f"try {self.server.counts[key]}\n".encode())

    def odd_flaky_status(self, key="x"):
        """503 (status=) the first n= times."""
        self.body()
        self.server.counts[key] = self.server.counts.get(key, 0) + 1
        bad = self.server.counts[key] <= int(self.query.get("n", 1))
        self.answer(int(self.query.get("status", 503)) if bad else 200, f"try {self.server.counts[key]}\n".encode())

    def _reset(self):
        self.close_connection = True
        self.wfile.flush()
        raw = self.connection
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.forget(raw)
        raw.detach() if hasattr(raw, "_sslobj") else raw.close()

    def odd_until_close(self):
        """HTTP/1.0 style: no length, ends with the connection."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end\n")

    def odd_bad(self, kind):
        """Answers that are no HTTP."""
        self.close_connection = True
        self.wfile.write({"garbage": b"\0\1\2 nonsense\r\n\r\n", "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
                          b"Content-Length: 6\r\n\r\nhello!", "te-cl": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "nul": b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
                          "big-head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200000 + b"\r\n\r\n",
                          "bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
                          "short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"}[kind])

    def odd_ws(self):
        """A websocket that echoes frames (unmasked)."""
        key = self.headers.get("Sec-WebSocket-Key", "")
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        while (head := self.rfile.read(2)) and len(head) == 2:
            opcode, length = head[0] & 15, head[1] & 127
            if length == 126:
                length = struct.unpack(">H", self.rfile.read(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.rfile.read(8))[0]
            mask = self.rfile.read(4) if head[1] & 128 else bytes(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(length)))
            size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length) if length < 65536 \
                else b"\x7f" + struct.pack(">Q", length)
            self.wfile.write(bytes([0x80 | opcode]) + size + data)
            if opcode == 8:
                return


class Odd(ThreadingHTTPServer):
    """See _OddHandler's methods for paths. .seen: [(method, path, headers)], .counts of /flaky, .port."""
    daemon_threads, request_queue_size = True, 1024

    def __init__(self, address="127.0.0.1", port=0, tls=None):
        super().__init__((address, port), _OddHandler)
        self.port, self.seen, self.counts, self._open = self.server_address[1], [], {}, set()
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*map(str, tls))
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def get_request(self):
        request, address = super().get_request()
        self._open.add(request)
        return request, address

    def forget(self, request):
        self._open.discard(request)

    def shutdown_request(self, request):
        self.forget(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        pass          # clients that go away are part of the tests

    def stop(self):
        """Stops listening and cuts every living connection."""
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __exit__(self, *exc):
        self.stop()


class TcpEcho:
    """Echoes bytes; at the client's end of file it finishes echoing and closes. .banner is sent first.
    mode "sink": reads all, then answers with the count and SHA-256. mode "reset": resets at the first byte.
    mode "silent": accepts and says nothing."""

    def __init__(self, address="127.0.0.1", port=0, banner=b"", mode="echo"):
        self.listener = socket.create_server((address, port), backlog=1024)
        self.port, self.banner, self.mode, self.connections = self.listener.getsockname()[1], banner, mode, 0
        self._open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        digest, count = hashlib.sha256(), 0
        try:
            if self.banner:
                client.sendall(self.banner)
            while (data := client.recv(65536)):
                if self.mode == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if self.mode == "echo":
                    client.sendall(data)
                digest.update(data)
                count += len(data)
            if self.mode == "sink":
                client.sendall(f"{count} {digest.hexdigest()}\n".encode())
        except OSError:
            pass
        finally:
            self._open.discard(client)
            client.close()

    def open_count(self):
        return len(self._open)

    def stop(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for client in list(self._open):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
