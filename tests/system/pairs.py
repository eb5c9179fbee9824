# SPDX-License-Identifier: Apache-2.0
"""One exchange at a time, as client or as server, over HTTP/1.1 or HTTP/2, with the same words for both:

    head(...), info(...), data(bytes), end(trailers), reset(), read() -> bytes (b"" at the end), .trailers

Strict where a proxy could be sloppy: Cut is raised where a message does not end as it should."""
import base64
import contextlib
import hashlib
import os
import queue
import socket
import struct
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

TIMEOUT = 20
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Cut(Exception):
    """The peer broke the message off."""


def accept_key(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


class Message:
    """What both versions share. A request has method, authority, path, protocol; a response status."""

    def __init__(self):
        self.method = self.authority = self.path = self.protocol = self.status = None
        self.headers, self.trailers, self.infos = [], [], []

    def get(self, name):
        return next((v for n, v in self.headers if n == name), None)

    def read_all(self):
        return b"".join(iter(self.read, b""))


# --- HTTP/1.1 ----------------------------------------------------------------------------------------------------------------

class H1(Message):
    """server: reads a request and answers; client: the reverse. After a tunnel opened, bytes."""

    def __init__(self, sock):
        super().__init__()
        self.sock, self.file = sock, sock.makefile("rb")
        self.out = self.framing = None
        self.left, self.done = 0, False

    # reading
    def _line(self):
        line = self.file.readline(100000)
        if not line.endswith(b"\r\n"):
            raise Cut(f"head cut: {line!r}")
        return line[:-2].decode("latin1")

    def _fields(self):
        fields = []
        while (line := self._line()):
            name, value = line.split(":", 1)
            fields.append((name.lower(), value.strip()))
        return fields

    def _frame(self, nothing, default):
        lengths = [v for n, v in self.headers if n == "content-length"]
        codings = [v for n, v in self.headers if n == "transfer-encoding"]
        assert not (lengths and codings) and len(lengths) < 2 and len(codings) < 2, self.headers
        self.framing = "none" if nothing else "chunked" if codings else "length" if lengths else default
        self.left = int(lengths[0]) if self.framing == "length" else 0
        self.done = self.framing == "none" or self.framing == "length" and self.left == 0

    def read(self):
        if self.done:
            return b""
        if self.framing in ("tunnel", "close"):
            data = self.file.read1(65536)
            self.done = not data
            return data
        if self.framing == "chunked" and self.left == 0:
            self.left = int(self._line(), 16)
            if self.left == 0:
                self.trailers, self.done = self._fields(), True
                return b""
        data = self.file.read1(min(self.left, 65536))
        if not data:
            raise Cut("body cut")
        self.left -= len(data)
        if self.framing == "chunked" and self.left == 0 and self._line() != "":
            raise Cut("chunk too long")
        self.done = self.framing == "length" and self.left == 0
        return data

    # writing
    def _send(self, data):
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise Cut(str(error)) from error

    def _head(self, line, fields):
        self._send("".join([line + "\r\n", *(f"{n}: {v}\r\n" for n, v in fields), "\r\n"]).encode("latin1"))

    def data(self, data):
        self._send(b"%x\r\n%s\r\n" % (len(data), data) if self.out == "chunked" else data)

    def end(self, trailers=()):
        if self.out == "chunked":
            self._send(b"0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in trailers).encode() + b"\r\n")
        elif self.out in ("tunnel", "close"):
            with contextlib.suppress(OSError):   # the other side may be gone already
                self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()


class H1Client(H1):
    version = "h1"

    def __init__(self, port):
        super().__init__(socket.create_connection(("127.0.0.1", port), TIMEOUT))

    def request(self, method, authority, path="/", headers=(), body=None, protocol=None):
        """body: None, "stream" (no length), or a length."""
        self.__init__again()
        self.method, self.protocol = method, protocol
        fields = [("Host", authority), *headers]
        if protocol:
            fields += [("Upgrade", protocol), ("Connection", "Upgrade")]
            method = "GET"
        if protocol == "websocket":
            self.key = base64.b64encode(os.urandom(16)).decode()
            fields += [("Sec-WebSocket-Key", self.key), ("Sec-WebSocket-Version", "13")]
        if body is not None:
            fields.append(("Transfer-Encoding", "chunked") if body == "stream" else ("Content-Length", body))
        if any(n == "te" for n, _ in headers):
            fields.append(("Connection", "TE"))
        self.out = "tunnel" if self.method == "CONNECT" else "chunked" if body == "stream" else "length"
        self._head(f"{method} {authority if method == 'CONNECT' else f'http://{authority}{path}'} HTTP/1.1", fields)
        return self

    def __init__again(self):
        sock, file = self.sock, self.file
        Message.__init__(self)
        self.sock, self.file = sock, file

    def response(self, informational=False):
        """Reads up to the final head, or one 1xx."""
        while True:
            line = self.file.readline(100000)
            if not line:
                raise Cut("no response")
            version, status, _reason = line.decode("latin1").rstrip("\r\n").split(" ", 2)
            assert version == "HTTP/1.1"
            self.status, self.headers = int(status), self._fields()
            if self.status >= 200 or self.status == 101:
                break
            self.infos.append((self.status, self.headers))
            if informational:
                return self
        if self.status == 101:
            assert self.protocol and self.get("upgrade").lower() == self.protocol.lower(), self.headers
            assert self.get("connection").lower() == "upgrade", self.headers
            if self.protocol == "websocket":
                assert self.get("sec-websocket-accept") == accept_key(self.key), self.headers
            self.status, self.framing = 200, "tunnel"
        elif self.method == "CONNECT" and not self.protocol and self.status < 300:
            assert not self.get("content-length") and not self.get("transfer-encoding")
            self.framing = "tunnel"
        else:
            self._frame(self.method == "HEAD" or self.status in (204, 304), "close")
        return self


class H1Exchange(H1):
    """A request as an upstream sees it."""
    version = "h1"

    def __init__(self, sock, file=None):
        super().__init__(sock)
        self.file = file or self.file
        line = self._line()
        self.method, target, version = line.split(" ")
        assert version == "HTTP/1.1", line
        self.headers = self._fields()
        self.authority, self.path = self.get("host"), target
        assert len([n for n, _ in self.headers if n == "host"]) == 1
        upgrade = self.get("upgrade")
        if self.method == "CONNECT":
            assert target == self.authority
        elif upgrade:
            self.method, self.protocol, self.key = "CONNECT", upgrade, self.get("sec-websocket-key")
            assert "upgrade" in self.get("connection").lower()
            assert upgrade != "websocket" or self.get("sec-websocket-version") == "13"
        self._frame(False, "none")

    def info(self, status, headers=()):
        self._head(f"HTTP/1.1 {status} Info", headers)

    def head(self, status, headers=(), body=None):
        """body: None: none follows; "stream", "close", or a length. A tunnel: status 200."""
        fields = list(headers)
        if self.method == "CONNECT" and status == 200:
            if self.protocol:
                status = 101
                fields += [("Upgrade", self.protocol), ("Connection", "Upgrade")]
                if self.protocol == "websocket":
                    fields.append(("Sec-WebSocket-Accept", accept_key(self.key)))
            self.out = self.framing = "tunnel"
            self.done = False
        else:
            self.out = {None: "length", "stream": "chunked", "close": "close"}.get(body, "length")
            if self.out == "chunked":
                fields.append(("Transfer-Encoding", "chunked"))
            elif self.out == "close":
                fields.append(("Connection", "close"))
            elif status not in (204, 304):
                fields.append(("Content-Length", body or 0))
        self._head(f"HTTP/1.1 {status} Whatever", fields)


# --- HTTP/2 ------------------------------------------------------------------------------------------------------------------

class Connection2:
    """An h2 connection of which one stream at a time is looked at."""

    def __init__(self, sock, client):
        self.sock, self.streams, self.new, self.gone = sock, {}, [], None
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=client, header_encoding="utf-8", validate_inbound_headers=False, validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.h2.local_settings = h2.settings.Settings(client=client, initial_values={
            h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1, h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100})
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        try:
            self.sock.sendall(self.h2.data_to_send())
        except OSError as error:
            self.gone = str(error)

    def pump(self):
        """Waits for bytes and hands out the events."""
        data = b""
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            self.gone = str(error)
        if not data:
            self.gone = self.gone or "closed"
            return
        for event in self.h2.receive_data(data):
            self.dispatch(event)
        self.flush()

    def dispatch(self, event):
        number = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.RequestReceived):
            stream = self.streams[number] = Stream2(self, number)
            stream.request_fields(event.headers)
            self.new.append(stream)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.gone = f"GOAWAY {event.error_code}" if event.error_code else self.gone
        elif number in self.streams:
            self.streams[number].event(event)
        if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
            self.h2.acknowledge_received_data(event.flow_controlled_length, number)


class Stream2(Message):
    def __init__(self, connection, number):
        super().__init__()
        self.connection, self.number = connection, number
        self.inbox, self.ended, self.reset_code, self.tunnel, self.has_head = [], False, None, False, False

    def request_fields(self, fields):
        pseudo = {n: v for n, v in fields if n.startswith(":")}
        self.headers = [(n, v) for n, v in fields if not n.startswith(":")]
        self.method, self.authority = pseudo[":method"], pseudo.get(":authority")
        self.path, self.protocol = pseudo.get(":path"), pseudo.get(":protocol")
        if self.method == "CONNECT" and not self.protocol:
            assert set(pseudo) == {":method", ":authority"}, pseudo
        assert not [n for n, _ in self.headers if n in ("connection", "upgrade", "transfer-encoding", "keep-alive", "host",
                                                        "sec-websocket-key", "proxy-connection")], self.headers

    def event(self, event):
        if isinstance(event, (h2.events.ResponseReceived, h2.events.InformationalResponseReceived)):
            status = int(dict(event.headers)[":status"])
            fields = [(n, v) for n, v in event.headers if not n.startswith(":")]
            if status < 200:
                self.infos.append((status, fields))
            else:
                self.status, self.headers, self.has_head = status, fields, True
        elif isinstance(event, h2.events.DataReceived):
            self.inbox.append(event.data)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.reset_code = event.error_code

    def _wait(self, what):
        while not what():
            if self.reset_code is not None and not (self.ended and self.reset_code == 0):
                raise Cut(f"reset with {self.reset_code}")
            if self.connection.gone:
                raise Cut(self.connection.gone)
            self.connection.pump()

    def read(self):
        self._wait(lambda: self.inbox or self.ended)
        while self.inbox:
            if (data := self.inbox.pop(0)):
                return data
        return b"" if self.ended else self.read()

    def data(self, data):
        while data:
            room = lambda: min(self.connection.h2.local_flow_control_window(self.number),
                               self.connection.h2.max_outbound_frame_size)
            self._wait(lambda: self.reset_code is not None or room() > 0)
            if self.reset_code is not None:
                raise Cut(f"reset with {self.reset_code}")
            n = room()
            self.connection.h2.send_data(self.number, data[:n])
            self.connection.flush()
            data = data[n:]

    def end(self, trailers=()):
        if self.closed_for_us():
            return
        if trailers:
            self.connection.h2.send_headers(self.number, list(trailers), end_stream=True)
        else:
            self.connection.h2.end_stream(self.number)
        self.connection.flush()

    def closed_for_us(self):
        return self.number in getattr(self, "_finished", ())

    def reset(self):
        self.connection.h2.reset_stream(self.number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self.connection.flush()

    def info(self, status, headers=()):
        self.connection.h2.send_headers(self.number, [(":status", str(status)), *headers])
        self.connection.flush()

    def head(self, status, headers=(), body=None):
        """As H1Exchange.head: None: nothing follows."""
        tunnel = self.method == "CONNECT" and status == 200
        fields = [(":status", str(status)), *headers]
        if isinstance(body, int):
            fields.append(("content-length", str(body)))
        end = body is None and not tunnel
        self.connection.h2.send_headers(self.number, fields, end_stream=end)
        if end:
            self._finished = (self.number,)
        self.connection.flush()

    version = "h2"


class H2Client(Stream2):
    """Prior knowledge over plain TCP."""

    def __init__(self, port):
        super().__init__(Connection2(socket.create_connection(("127.0.0.1", port), TIMEOUT), True), 0)

    def request(self, method, authority, path="/", headers=(), body=None, protocol=None):
        connection = self.connection
        Stream2.__init__(self, connection, connection.h2.get_next_available_stream_id())
        connection.streams[self.number] = self
        self.method, self.protocol = method, protocol
        fields = [(":method", method), (":authority", authority)]
        if method != "CONNECT" or protocol:
            fields += [(":scheme", "http"), (":path", path)]
        if protocol:
            fields.append((":protocol", protocol))
            while not connection.h2.remote_settings.enable_connect_protocol:
                connection.pump()
            if protocol == "websocket":
                headers = [*headers, ("sec-websocket-version", "13")]
        if isinstance(body, int):
            headers = [*headers, ("content-length", str(body))]
        end = body is None and method != "CONNECT"
        connection.h2.send_headers(self.number, [*fields, *headers], end_stream=end)
        connection.flush()
        return self

    def response(self, informational=False):
        before = len(self.infos)
        self._wait(lambda: self.has_head or informational and len(self.infos) > before)
        if self.method == "CONNECT" and self.has_head and self.status < 300:
            assert not self.get("content-length") and not self.get("sec-websocket-accept"), self.headers
        return self

    def close(self):
        self.connection.sock.close()


# --- upstreams ---------------------------------------------------------------------------------------------------------------

class Upstream:
    """Listens and hands every request to a handler: handler(exchange) in a thread of its connection. What handlers raised or
    put is in .said (a queue)."""

    def __init__(self, version):
        self.version, self.handler, self.said, self.connections = version, None, queue.Queue(), 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            sock.settimeout(TIMEOUT)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            self._serve_h1(sock) if self.version == "h1" else self._serve_h2(sock)
        except (OSError, Cut, ValueError):
            pass
        finally:
            sock.close()

    def _handle(self, exchange):
        try:
            self.handler(exchange)
        except Exception as error:      # the test looks at it
            self.said.put(error)
            raise Cut("handler failed") from error

    def _serve_h1(self, sock):
        file = None
        while True:
            exchange = H1Exchange(sock, file)
            file = exchange.file
            self._handle(exchange)
            if exchange.out in ("tunnel", "close") or not exchange.done:
                return file.close()

    def _serve_h2(self, sock):
        connection = Connection2(sock, False)
        while not connection.gone:
            while connection.new:
                self._handle(connection.new.pop(0))
            connection.pump()

    def told(self):
        """What the handler put; raises what it raised."""
        what = self.said.get(timeout=TIMEOUT)
        if isinstance(what, Exception):
            raise what
        return what

    def stop(self):
        self.listener.close()
