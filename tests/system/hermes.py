# SPDX-License-Identifier: Apache-2.0
"""What system tests start and look at: nodes, certificates, curl. Real servers: servers.py.

HERMES_BUILD names the build folder (default: build/san where it exists, else build). Nodes run with the sandbox on unless
a test passes env={"HERMES_SANDBOX": "off"}. LeakSanitizer needs ptrace, which the sandbox refuses; leaks are looked for
only in nodes without one.
"""
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BAD_WORDS = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error|UndefinedBehavior|Assertion .* failed")


def build_dir():
    named = os.environ.get("HERMES_BUILD")
    if named:
        return (ROOT / named).resolve()
    san = ROOT / "build/san"
    return san if (san / "bin/hermesd").exists() else ROOT / "build"


_given_out = set()


def free_port(kind=socket.SOCK_STREAM):
    """A port of 127.0.0.1 that nobody listens on, below the ephemeral range; never the same twice in a session.
    Connects too, since SO_REUSEPORT listeners of another session would let us bind."""
    while True:
        port = random.randrange(10000, 32000)
        if port in _given_out:
            continue
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_out.add(port)
        return port


def wait_for(what, timeout=10.0, every=0.05, message="condition"):
    """Calls what() until it is true; its value. AssertionError after timeout seconds."""
    end = time.monotonic() + timeout
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{message} did not come true within {timeout} s")
        time.sleep(every)


def wait_port(port, host="127.0.0.1", timeout=20.0):
    def connects():
        try:
            socket.create_connection((host, port), 1).close()
            return True
        except OSError:
            return False
    wait_for(connects, timeout, message=f"{host}:{port} listening")


class Certs:
    """An authority in its own folder (tests/certs.sh). Each maker returns (certificate, key) as paths."""

    def __init__(self, folder, name="Hermes test authority"):
        self.folder = Path(folder)
        self._call("ca", name)
        self.ca = self.folder / "ca.crt"

    def _call(self, verb, *args, out=None):
        env = dict(os.environ, **({"OUT": out} if out else {}))
        subprocess.run([ROOT / "tests/certs.sh", self.folder, verb, *args], check=True, env=env)
        return self._pair(out or args[0]) if args else None

    def _pair(self, name):
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def node(self, name, domain="example.net", out=None):
        return self._call("node", name, domain, out=out)

    def server(self, name, *sans, out=None):
        """sans: "DNS:x", "IP:127.0.0.1"; default DNS:name."""
        return self._call("server", name, *sans, out=out)

    def client(self, name, out=None):
        return self._call("client", name, out=out)

    def expired(self, name, domain="example.net", out=None):
        return self._call("expired", name, domain, out=out or f"{name}-expired")

    def wrong_usage(self, name, domain="example.net", out=None):
        return self._call("wrong-usage", name, domain, out=out or f"{name}-usage")

    def revoke(self, out):
        """out: the file name (without .crt) of a certificate made here."""
        self._call("revoke", out)

    def crl(self):
        """(Re)writes the revocation list and returns its path."""
        self._call("crl")
        return self.folder / "ca.crl"

    def identity(self, name, domain="example.net"):
        """The `identity:` block of a node."""
        certificate, key = self.node(name, domain)
        return {"certificate": str(certificate), "key": str(key), "authorities": [str(self.ca)]}


class AdminError(AssertionError):
    def __init__(self, args, done):
        super().__init__(f"hermes-admin {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        self.status, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


class Node:
    """A running hermesd. config: dict (written as JSON, which is YAML) or YAML text.

    folder/NAME/ holds hermes.yaml, log, state/ and run/admin.sock. stop() checks that it exited 0 and that no sanitizer
    spoke. start=False: nothing runs until start()."""

    def __init__(self, name, config, folder, *, env=None, args=(), start=True, wait=True, wrap=None, build=None):
        self.name = name
        self.build = Path(build) if build else build_dir()
        self.folder = Path(folder) / name
        for sub in (self.folder, self.folder / "state", self.folder / "run"):
            sub.mkdir(exist_ok=True)
        self.config_file = self.folder / "hermes.yaml"
        self.socket = self.folder / "run/admin.sock"
        self.log_file = self.folder / "log"
        self.env, self.args, self.wrap = env or {}, args, wrap or (lambda command: command)
        self.process = None
        self.expect_bad_words = False     # a test that crashes a worker on purpose
        self.write(config)
        if start:
            self.start(wait)

    def write(self, config):
        """A dict without node.drain_timeout gets a short one."""
        if not isinstance(config, str):
            # tests leave connections open, and stopping would wait for them
            config = {**config, "node": {"drain_timeout": "2s", **config["node"]}} if "node" in config else config
            config = json.dumps(config, indent=1, default=str) + "\n"
        self.config_file.write_text(config)

    def _environment(self):
        sandbox = self.env.get("HERMES_SANDBOX", os.environ.get("HERMES_SANDBOX")) != "off"
        return {**os.environ,
                "ASAN_OPTIONS": f"detect_leaks={0 if sandbox else 1}:abort_on_error=0:quarantine_size_mb=8",
                "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1", **self.env}

    def command(self):
        return [str(self.build / "bin/hermesd"), "-c", str(self.config_file), "--state-dir", str(self.folder / "state"),
                "--runtime-dir", str(self.folder / "run"), *map(str, self.args)]

    def start(self, wait=True, timeout=20):
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(self.wrap(self.command()), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self._environment())
        if not wait:
            return
        wait_for(lambda: self.socket.exists() or self.process.poll() is not None, timeout, message="admin socket")
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name}: hermesd ended with {self.process.returncode}\n{self.log()}")
        try:
            self.admin("wait", "ready", "--timeout", str(timeout))
        except AssertionError:
            print(self.log())
            self.kill()
            raise

    def admin(self, *args, json=False, check=True, stdin=None, timeout=60):
        """hermes-admin's standard output, or with json=True its document. check=False: the CompletedProcess."""
        args = [str(a) for a in args]
        line = [str(self.build / "bin/hermes-admin"), "-s", str(self.socket), *(["--json"] if json else []), *args]
        done = subprocess.run(line, capture_output=True, text=True, input=stdin, timeout=timeout,
                              env=dict(os.environ, ASAN_OPTIONS="detect_leaks=1"))
        assert not BAD_WORDS.search(done.stderr), done.stderr
        if not check:
            return done
        if done.returncode:
            raise AdminError(args, done)
        return _loads(done.stdout) if json else done.stdout

    def reload(self, config=None, check=True):
        """Writes config (where given) and reloads; answers when it is in force. Refused: AdminError (check=True)."""
        if config is not None:
            self.write(config)
        return self.admin("reload", check=check)

    def signal(self, number):
        self.process.send_signal(number)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_log(self, pattern, timeout=10):
        """Waits for a line that matches; the match."""
        return wait_for(lambda: re.search(pattern, self.log()), timeout, message=f"{self.name}'s log to say {pattern!r}")

    def pids(self):
        """{role: [pid, ...]} of the workers, from /proc: names of executables are hermes-ROLE."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
                exe = stat.parent.joinpath("cmdline").read_bytes().split(b"\0")[0].decode()
            except (OSError, IndexError, ValueError):
                continue
            if parent == self.process.pid:
                found.setdefault(os.path.basename(exe).removeprefix("hermes-"), []).append(int(stat.parent.name))
        return found

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait(10)

    def stop(self, check=True, timeout=20):
        """SIGTERM; then the log is checked for sanitizers' reports and the exit status for 0."""
        if self.process is None:
            return
        hung = False
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                hung = True
                self.kill()
        status, self.process = self.process.returncode, None
        if not check:
            return
        assert not hung, f"{self.name}: hermesd did not stop within {timeout} s\n{self.log()}"
        if not self.expect_bad_words:
            assert not BAD_WORDS.search(self.log()), f"{self.name}: a sanitizer spoke\n{self.log()}"
        assert status == 0, f"{self.name}: hermesd exited with {status}\n{self.log()}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind:
            print(f"--- log of {self.name}\n{self.log()}")
        self.stop(check=kind is None)


_loads = json.loads    # Node.admin has a parameter of that name


class Answer:
    """What curl got. headers: lower-case names, last response only; all_headers: list of (name, value)."""

    def __init__(self, done, head, body):
        self.exit, self.error, self.body = done.returncode, done.stderr, body
        # a proxy's answer to CONNECT comes first, then 1xx, then the response itself
        blocks = [b for b in re.split(r"\r?\n\r?\n", head) if b.strip()]
        self.blocks = blocks
        lines = blocks[-1].splitlines() if blocks else []
        # trailers follow as a block without a status line
        if lines and not lines[0].startswith("HTTP/") and len(blocks) > 1:
            lines = blocks[-2].splitlines()
        self.status = int(lines[0].split()[1]) if lines and lines[0].startswith("HTTP/") else 0
        self.version = lines[0].split()[0] if lines else ""
        self.all_headers = [tuple(p.strip() for p in line.split(":", 1)) for line in lines[1:] if ":" in line]
        self.headers = {name.lower(): value for name, value in self.all_headers}

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def json(self):
        return _loads(self.body)

    def __repr__(self):
        return f"<{self.exit=} {self.status=} {self.headers} {self.text[:300]!r} {self.error[-300:]!r}>"


_curl_count = 0


def curl(url, *args, proxy=None, folder="/tmp", timeout=30, wrap=None):
    """Real curl. proxy: "host:port", or a whole proxy URL. Returns an Answer."""
    global _curl_count
    _curl_count += 1
    head = Path(folder) / f".curl-{os.getpid()}-{_curl_count}"
    line = ["curl", "-sS", "--max-time", str(timeout), "-D", str(head), "-o", "-"]
    if proxy:
        line += ["-x", str(proxy) if "//" in str(proxy) else f"http://{proxy}"]
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    line = [*line, *map(str, args), url]
    done = subprocess.run(wrap(line) if wrap else line, capture_output=True, timeout=timeout + 10, env=env)
    body, done.stderr = done.stdout, done.stderr.decode(errors="replace")
    text = head.read_text(errors="replace") if head.exists() else ""
    head.unlink(missing_ok=True)
    return Answer(done, text, body)


def alice_config(port, certs, ingress_port, **more):
    """A dependent node as DESIGN.md section 4 draws it: everything goes to ingress over HTTP/2 and TLS."""
    return {
        "node": {"name": "alice", "domain": "example.net"},
        "identity": certs.identity("alice"),
        "listeners": [{"name": "apps", "address": f"127.0.0.1:{port}", "accept": "http",
                       "add_headers": {"user": "alice"}}],
        "clusters": [{"name": "ingress", "carry": "h2", "tls": {"server_name": "ingress.example.net"},
                      "endpoints": [f"127.0.0.1:{ingress_port}"]}],
        "routes": [{"match": {}, "cluster": "ingress"}],
        **more,
    }


def ingress_config(port, certs, **more):
    """A standalone node: takes overlay links, and dials what the request names, also on loopback."""
    return {
        "node": {"name": "ingress", "domain": "example.net"},
        "identity": certs.identity("ingress"),
        "listeners": [{"name": "from-nodes", "address": f"127.0.0.1:{port}", "accept": "overlay"}],
        "clusters": [{"name": "anywhere", "carry": "tcp", "endpoints": "target", "allow_targets": ["loopback"]}],
        "routes": [{"match": {}, "cluster": "anywhere"}],
        **more,
    }
