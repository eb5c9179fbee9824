# SPDX-License-Identifier: Apache-2.0
"""What others must not notice: deciding workers that die, and streams that a next hop refuses."""
import os
import signal
import threading

import h2.config
import h2.connection
import h2.events
import pytest

import hermes
from hermes import curl, wait_for
from test_acceptance_connect import Next


def config(port, cluster, **more):
    return {"node": {"name": "one", "domain": "example.net", "tunnel_workers": 1, "drain_timeout": "1s"},
            "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http"}],
            "clusters": [cluster], "routes": [{"match": {"path": {"prefix": "/"}}, "cluster": cluster["name"], **more}]}


@pytest.mark.parametrize("role", ["policy", "router"])
def test_questions_survive_the_death_of_who_answers(node, odd, role):
    """Each request is a new question; the worker is killed again and again, and no request fails."""
    port = hermes.free_port()
    n = node("one", config(port, {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}))
    answers = []

    def ask():
        for i in range(25):
            answers.append(curl(f"http://web/echo?{i}", proxy=f"127.0.0.1:{port}").status)
    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3):
        before = len(answers)
        wait_for(lambda: len(answers) > before or not asking.is_alive())
        old = n.pids()[role]
        os.kill(old[0], signal.SIGKILL)
        wait_for(lambda: n.pids().get(role, old) != old, timeout=5, message=f"a new {role}")
    asking.join(60)
    assert answers == [200] * 25, answers


@pytest.mark.parametrize("role", ["policy", "router"])
def test_who_answers_hangs(node, odd, role):
    """What is decided already goes on from the cache; a new question gets an answer, or 503 that says so; then all is well."""
    port = hermes.free_port()
    n = node("one", config(port, {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"]}))
    at = f"127.0.0.1:{port}"
    assert curl("http://web/echo?known", proxy=at).status == 200
    os.kill(n.pids()[role][0], signal.SIGSTOP)
    assert curl("http://web/echo?known", proxy=at, timeout=3).status == 200
    answer = curl("http://web/echo?new", proxy=at, timeout=10)
    assert answer.status == 200 or answer.status == 503 and "proxy_internal_error" in answer.headers["proxy-status"], answer
    wait_for(lambda: curl("http://web/echo?later", proxy=at, timeout=10).status == 200, timeout=20, message="decisions again")


def refusing(sock, said):
    """Refuses the first stream of each pair, and answers the second with how many it saw."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    sock.sendall(connection.data_to_send())
    bodies = {}
    while (data := sock.recv(65536)):
        for event in connection.receive_data(data):
            number = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.RequestReceived):
                said.put(number)
                bodies[number] = 0
                if number % 4 == 1:
                    connection.reset_stream(number, 7)      # REFUSED_STREAM
            elif isinstance(event, h2.events.DataReceived):
                bodies[number] += len(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, number)
            elif isinstance(event, h2.events.StreamEnded) and number % 4 != 1:
                connection.send_headers(number, [(":status", "200")])
                connection.send_data(number, b"%d" % bodies[number], end_stream=True)
        sock.sendall(connection.data_to_send())


def test_refused_streams_are_tried_again(node):
    """RFC 9113 8.7: nothing was done, so even POST goes again, with its body; the client notices nothing."""
    port = hermes.free_port()
    with Next(refusing) as there:
        node("one", config(port, {"name": "web", "carry": "h2", "endpoints": [f"127.0.0.1:{there.port}"]}))
        for size in (0, 10, 20000):
            answer = curl("http://web/", "-H", "Expect:", "--data-binary", "x" * size, proxy=f"127.0.0.1:{port}")
            assert (answer.status, answer.text) == (200, str(size)), answer
        assert there.said.qsize() == 6


@pytest.mark.parametrize("on, path, tries", [
    (["reset"], "/reset-first", 3), (["connect-failure"], "/reset-first", 1), (["gateway-error"], "/status/502", 3),
    (["gateway-error"], "/status/500", 1), (["reset"], "/status/503", 1), ([], "/status/504", 1)])
def test_retries_happen_on_what_was_asked_only(node, odd, on, path, tries):
    port = hermes.free_port()
    retry = {"retry": {"on": on, "attempts": 3}} if on else {}
    node("one", config(port, {"name": "web", "carry": "h1", "endpoints": [f"127.0.0.1:{odd.port}"],
                              "ejection": {"failures": 0}}, **retry))
    mark = f"{path}?{on}{tries}".replace("'", "").replace(" ", "").replace("[", "").replace("]", "")
    before = len(odd.seen)
    answer = curl(f"http://web{mark}", "-X", "POST", "-d", "body", proxy=f"127.0.0.1:{port}")
    assert answer.status == (int(path[-3:]) if path[-3:].isdigit() else 502), answer
    assert len([s for s in odd.seen[before:] if s[1] == mark]) == tries, odd.seen[before:]
