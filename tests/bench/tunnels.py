# SPDX-License-Identifier: Apache-2.0
"""Long tunnels for restart.py.

    tunnels.py echo ADDRESS PORT                                    TCP and UDP come back as they are
    tunnels.py load ADDRESS TCP_PORT STREAMS UDP_PORT FLOWS RATE    until standard input ends; then one line of counts:
        streams lines broken       TCP connections, lines echoed, connections that ended or gave anything but their lines
        sent lost doubled          numbered datagrams, RATE a second over all flows; lost: not back 5 s after the last"""
import asyncio
import socket
import sys


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def echo_stream(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def echo(address, port):
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)      # SO_RCVBUFFORCE: what is lost here nobody else lost
    receiver.setblocking(False)
    receiver.bind((address, port))
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=receiver)
    await (await asyncio.start_server(echo_stream, address, port, backlog=4096)).serve_forever()


class Flow(asyncio.DatagramProtocol):
    def __init__(self, counts):
        self.counts, self.sent, self.seen = counts, 0, set()

    def connection_made(self, transport):
        self.transport = transport

    def send(self):
        self.transport.sendto(b"%08d" % self.sent + bytes(192))
        self.sent += 1
        self.counts["sent"] += 1

    def datagram_received(self, data, _address):
        number = int(data[:8])
        self.counts["doubled"] += number in self.seen
        self.seen.add(number)

    def error_received(self, error):
        self.counts["errors"] += 1


class Stream:
    """A line every other second, and the same line back."""

    def __init__(self, counts):
        self.counts = counts

    async def open(self, address, port):
        self.reader, self.writer = await asyncio.open_connection(address, port)
        await self.line(0)

    async def line(self, number):
        text = b"%d %s\n" % (number, b"x" * 100)
        self.writer.write(text)
        if await asyncio.wait_for(self.reader.readline(), 60) != text:
            raise ConnectionError("another line came back")
        self.counts["lines"] += 1

    async def run(self, stop):
        number = 1
        try:
            while not stop.is_set():
                await asyncio.sleep(2)
                await self.line(number)
                number += 1
            self.writer.close()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            self.counts["broken"] += 1


async def load(address, tcp, streams, udp, flows, rate):
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    counts = dict.fromkeys(("streams", "lines", "broken", "flows", "sent", "lost", "doubled", "errors"), 0)
    connections = [Stream(counts) for _ in range(streams)]
    for connection in connections:
        await connection.open(address, tcp)
    senders = []
    for _ in range(flows):
        _transport, flow = await loop.create_datagram_endpoint(lambda: Flow(counts), remote_addr=(address, udp))
        flow.send()
        senders.append(flow)
        await asyncio.sleep(0.002)
    counts.update(streams=streams, flows=flows)
    running = [asyncio.create_task(c.run(stop)) for c in connections]
    print("begun", flush=True)
    asyncio.create_task(asyncio.to_thread(sys.stdin.read)).add_done_callback(lambda _task: stop.set())
    began, count = loop.time(), 0
    while not stop.is_set():
        while count < (loop.time() - began) * rate:
            senders[count % len(senders)].send()
            count += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*running)
    await asyncio.sleep(5)
    counts["lost"] = sum(flow.sent - len(flow.seen) for flow in senders)
    print(*(f"{k}={v}" for k, v in counts.items()), flush=True)


if __name__ == "__main__":
    numbers = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    asyncio.run({"echo": echo, "load": load}[sys.argv[1]](*numbers))
