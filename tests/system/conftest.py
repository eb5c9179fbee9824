# SPDX-License-Identifier: Apache-2.0
"""Fixtures for system tests. See hermes.py for what they hand out."""
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "netlab"):
    sys.path.insert(0, str(folder))

import hermes     # noqa: E402
import servers    # noqa: E402

TEST_SECONDS = int(os.environ.get("TEST_SECONDS", "120"))


def pytest_configure(config):
    config.addinivalue_line("markers", "seconds(n): time limit of this test, fixtures included per phase")


SHARD_ITEMS = 40


def pytest_collection_modifyitems(config, items):
    """HERMES_SHARD=I/N: only part I (from 0) of N, in runs of neighbours, so that modules' fixtures are seldom made twice."""
    part, parts = map(int, os.environ.get("HERMES_SHARD", "0/1").split("/"))
    mine, others = [], []
    for start in range(0, len(items), SHARD_ITEMS):
        (mine if start // SHARD_ITEMS % parts == part else others).extend(items[start:start + SHARD_ITEMS])
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = mine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs fails by itself."""
    mark = item.get_closest_marker("seconds")
    limit = mark.args[0] if mark else TEST_SECONDS

    def expired(_number, _frame):
        raise TimeoutError(f"test took more than {limit} s")
    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(limit)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def session_tmp():
    """Below /tmp and open to all: workers run as another user, who must be able to walk there."""
    path = Path(tempfile.mkdtemp(prefix="hermes-tests-"))
    path.chmod(0o755)
    yield path
    if not os.environ.get("KEEP_TMP"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def tmp_path(session_tmp):
    path = Path(tempfile.mkdtemp(dir=session_tmp))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def certs(session_tmp):
    return hermes.Certs(session_tmp / "tls")


@pytest.fixture(scope="session")
def other_certs(session_tmp):
    """An authority that nobody here believes."""
    return hermes.Certs(session_tmp / "tls-other", "Somebody else")


@pytest.fixture
def node(tmp_path, request):
    """node(name, config, **options): a Node, stopped and checked at the end of the test."""
    nodes = []

    def make(name, config, **options):
        made = hermes.Node(name, config, tmp_path, start=False, **{k: v for k, v in options.items()
                                                                    if k not in ("start", "wait")})
        nodes.append(made)
        if options.get("start", True):
            made.start(options.get("wait", True))
        return made
    yield make
    _stop_all(nodes)


def _stop_all(nodes):
    faults = []
    for n in reversed(nodes):
        print(f"--- log of {n.name} ({n.folder})\n{n.log()[-20000:]}")     # pytest shows it where the test failed
        try:
            n.stop()
        except AssertionError as e:
            faults.append(str(e))
    assert not faults, "\n".join(faults)


@pytest.fixture(scope="session")
def web(session_tmp, certs):
    """nginx with /index.html, /big (8 MiB) over HTTP and HTTPS."""
    with servers.Nginx(session_tmp / "web", certs, text="page of web\n", big=8 << 20) as server:
        yield server


@pytest.fixture(scope="session")
def odd():
    """An HTTP/1.1 server with odd behaviours: servers.Odd."""
    with servers.Odd() as server:
        yield server


@pytest.fixture(scope="session")
def pair(session_tmp, certs):
    """The usual two nodes, alice and ingress, for tests that only use them and change nothing.
    .http, .tcp(port of a listener whose target is .tcp_target's echo server), .socks: alice's ports; .overlay: ingress'."""
    ports = SimpleNamespace(http=hermes.free_port(), tcp=hermes.free_port(), socks=hermes.free_port(),
                            overlay=hermes.free_port())
    with servers.TcpEcho() as echo:
        config = hermes.alice_config(ports.http, certs, ports.overlay)
        config["listeners"] += [
            {"name": "echo", "address": f"127.0.0.1:{ports.tcp}", "accept": "tcp", "target": f"ECHO:{echo.port}",
             "add_headers": {"user": "alice"}},
            {"name": "socks", "address": f"127.0.0.1:{ports.socks}", "accept": "socks5", "add_headers": {"user": "alice"}}]
        inner = hermes.ingress_config(ports.overlay, certs)
        inner["clusters"].append({"name": "echo", "carry": "tcp", "endpoints": [f"127.0.0.1:{echo.port}"]})
        inner["routes"].insert(0, {"match": {"authority": "ECHO"}, "cluster": "echo"})
        folder = session_tmp / "pair"
        folder.mkdir()
        ingress = hermes.Node("ingress", inner, folder)
        try:
            alice = hermes.Node("alice", config, folder)
        except BaseException:
            ingress.stop(check=False)
            raise
        yield SimpleNamespace(alice=alice, ingress=ingress, echo=echo, **vars(ports))
        _stop_all([ingress, alice])
