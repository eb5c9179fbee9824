# SPDX-License-Identifier: Apache-2.0
"""A domain for tests: a controller node made by `controller init`, and nodes that enrol by tokens, as an operator would."""
import json
import os
import subprocess

import hermes

DOMAIN = "example.net"


def run_admin(*args, build=None, check=True, json_=False, timeout=60):
    """hermes-admin without a hermesd: init, enroll. CompletedProcess, or the document."""
    line = [str((build or hermes.build_dir()) / "bin/hermes-admin"), *(["--json"] if json_ else []), *map(str, args)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=timeout,
                          env=dict(os.environ, ASAN_OPTIONS="detect_leaks=1"))
    assert not hermes.BAD_WORDS.search(done.stderr), done.stderr
    if check and done.returncode:
        raise hermes.AdminError(list(map(str, args)), done)
    return json.loads(done.stdout) if json_ else done


class Machine(hermes.Node):
    """A node whose configuration and keys hermes-admin writes. extra: JSON text (YAML) appended to the bootstrap configuration; a dict
    of sections, by key. `node:` is the bootstrap's own."""

    def __init__(self, name, folder, *, extra=None, env=None):
        self._extra = extra or {}
        super().__init__(name, "", folder, env=env, start=False)
        self.config_file.unlink()

    @property
    def state(self):
        return self.folder / "state"

    @property
    def keys(self):
        return self.state / "keys"

    def places(self):
        return ["--config", self.config_file, "--state-dir", self.state]

    def add_extra(self):
        text = self.config_file.read_text()
        if "drain_timeout" not in text:
            text = text.replace("\nidentity:", "\n  drain_timeout: 2s\nidentity:", 1)
        for key, value in self._extra.items():
            if key in ("control", "controller", "node", "identity"):
                lines = "".join(f"  {k}: {json.dumps(v)}\n" for k, v in value.items())
                text = text.replace(f"\n{key}:\n", f"\n{key}:\n{lines}", 1)
            else:
                text += f"{key}: {json.dumps(value)}\n"
        self.config_file.write_text(text)

    def init(self, port, *args, start=True):
        run_admin("controller", "init", "--domain", DOMAIN, "--name", self.name, "--address", f"127.0.0.1:{port}",
                  *self.places(), *args)
        self.port = port
        self.add_extra()
        if start:
            self.start()
        return self

    def enroll(self, controller, *args, token=None, check=True, start=True):
        token = token or controller.token("--node", self.name)
        done = run_admin("enroll", f"https://127.0.0.1:{controller.port}", "--token", token, "--node", self.name, *self.places(),
                         *args, check=check)
        if done.returncode == 0:
            self.add_extra()
            if start:
                self.start()
        return done if not check else self

    def token(self, *args):
        return self.admin("controller", "token", "create", *args).strip()

    def node_state(self, name):
        """What the controller says of a node, or None."""
        done = self.admin("nodes", "show", name, check=False, json=True)
        return json.loads(done.stdout) if done.returncode == 0 else None


def online(controller, name, timeout=20):
    return hermes.wait_for(lambda: (controller.node_state(name) or {}).get("state") == "online", timeout,
                           message=f"{name} online at {controller.name}")
