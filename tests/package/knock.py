# SPDX-License-Identifier: Apache-2.0
"""Connects to a port of 127.0.0.1 a hundred times a second, until interrupted; then tells how many were refused."""
import socket
import sys
import time

done = refused = 0
try:
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10).close()
            done += 1
        except OSError:
            refused += 1
        time.sleep(0.01)
except KeyboardInterrupt:
    print(f"{done} connections, {refused} refused")
