# SPDX-License-Identifier: Apache-2.0
"""Connects to a port of 127.0.0.1, or to a Unix socket, a hundred times a second, until SIGTERM; then tells how many were refused."""
import signal
import socket
import sys
import time

where = sys.argv[1]
unix = where.startswith("/")
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
done = refused = 0
while not stopped:
    try:
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as s:
            s.settimeout(10)
            s.connect(where if unix else ("127.0.0.1", int(where)))
        done += 1
    except OSError:
        refused += 1
    time.sleep(0.01)
print(f"{done} connections, {refused} refused")
