"""The stack without Docker: what a user may get wrong, and one whole life of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.stack import databases
from infra.stack.processes import Process, belonging_to
from infra.stack.stack import ORDER, Stack, State, free_ports
from sims_core.common.errors import BadInput

RUN_S = START_S = 400
"""A deployed run, and a start, on a very busy machine; on a quiet one each takes half a minute."""

try:
    databases.find_programs()
    MISSING = ""
except BadInput as missing:
    MISSING = str(missing)
needs_databases = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where PostgreSQL's own user can get to, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="sims-stack-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def _refused(sims, *arguments: str, **settings: str) -> str:
    """The one line that the command says."""
    done = sims("stack", *arguments, **settings)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@needs_databases
def test_a_taken_port_is_named(sims, folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        line = _refused(sims, "start", "--state", str(folder / "stack"), "--port", port)
    assert f"port {port} is taken: choose another with --port" in line
    assert not (folder / "stack" / "postgres").exists()


@needs_databases
def test_a_folder_that_cannot_be_made_is_named(sims, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    line = _refused(sims, "start", "--state", str(tmp_path / "file" / "stack"))
    assert "cannot write the stack's folder" in line
    assert "--state" in line


@needs_databases
@pytest.mark.skipif(os.geteuid() != 0, reason="only as root PostgreSQL has a user of its own")
def test_a_folder_that_postgres_cannot_enter_is_named(sims, folder):
    (folder / "closed").mkdir(mode=0o700)
    state = folder / "closed" / "stack"
    line = _refused(sims, "start", "--state", str(state), "--port", str(free_ports(1)[0]))
    assert f"the user postgres cannot enter {state}" in line
    assert not list(belonging_to(state))


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(databases.shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match="apt-get install redis-server"):
        databases.find_programs()
    redis = {"redis-server": "/usr/bin/redis-server"}
    monkeypatch.setattr(databases.shutil, "which", redis.get)
    monkeypatch.setattr(databases.Path, "glob", lambda path, pattern: [])
    with pytest.raises(BadInput, match="apt-get install postgresql"):
        databases.find_programs()


def test_the_last_of_several_versions_of_postgresql_is_taken(monkeypatch):
    versions = [Path(f"/usr/lib/postgresql/{number}/bin/postgres") for number in (9, 15, 14)]
    redis = {"redis-server": "/usr/bin/redis-server"}
    monkeypatch.setattr(databases.shutil, "which", redis.get)
    monkeypatch.setattr(databases.Path, "glob", lambda path, pattern: versions)
    assert databases.find_programs().postgres == versions[1]


def test_a_stack_that_does_not_run_is_said_to_be_so(sims, tmp_path):
    state = str(tmp_path / "stack")
    done = sims("stack", "status", "--state", state)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{name:<10} not running" for name in ORDER]
    done = sims("stack", "stop", "--state", state)
    assert (done.returncode, done.stdout) == (0, f"nothing runs in {state}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(BadInput, match=r"state\.json: remove it"):
        Stack(tmp_path)


def test_lost_and_damaged_passwords_are_named(tmp_path):
    (tmp_path / "postgres").mkdir()
    with pytest.raises(BadInput, match=r"passwords\.json is gone: put it back"):
        _ = Stack(tmp_path).passwords
    (tmp_path / "passwords.json").write_text('{"POSTGRES_PASSWORD": "x"}')
    with pytest.raises(BadInput, match="PREFECT_AUTH_STRING"):
        _ = Stack(tmp_path).passwords


def test_passwords_are_random_and_nobody_else_s(tmp_path):
    both = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        both += Stack(tmp_path / name).passwords.values()
        assert (tmp_path / name / "passwords.json").stat().st_mode & 0o777 == 0o600
        assert Stack(tmp_path / name).passwords == Stack(tmp_path / name).passwords
    assert len(set(both)) == 6
    assert min(map(len, both)) >= 48


def test_two_commands_at_once_do_not_mix(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another `sims stack` is at work"):
            Stack(tmp_path).stop()


def test_a_process_number_that_is_used_again_is_not_ours(tmp_path):
    state = State(processes={"redis": Process(pid=os.getpid(), born=0.0)})
    (tmp_path / "state.json").write_text(state.model_dump_json())
    assert all(component.pid is None for component in Stack(tmp_path).status())
    assert not Stack(tmp_path).stop()


class Client:
    """Asks a running stack as its user would: with what its `env` file says."""

    def __init__(self, state: Path) -> None:
        shell = subprocess.run(
            ["sh", "-c", f". {state}/env && env"], capture_output=True, text=True, check=True
        )
        named = dict(line.partition("=")[::2] for line in shell.stdout.splitlines())
        self.settings = {
            key: text for key, text in named.items() if key.startswith(("PREFECT_API_", "SIMS_S"))
        }

    def __call__(self, path: str, body: object = None, auth: str | None = None) -> Any:
        auth = self.settings["PREFECT_API_AUTH_STRING"] if auth is None else auth
        reply = httpx.request(
            "GET" if body is None else "POST",
            f"{self.settings['PREFECT_API_URL']}/{path}",
            auth=tuple(auth.split(":")) if auth else None,
            json=body,
            timeout=60,
        )
        reply.raise_for_status()
        return reply.json()

    def run(self, parameters: dict[str, object]) -> dict[str, object]:
        """Runs the deployment through the worker; returns the flow run."""
        prefect = str(Path(sys.executable).with_name("prefect"))
        command = [prefect, "deployment", "run", "sims-loop/digits"]
        done = subprocess.run(
            [*command, "--watch", "--params", json.dumps(parameters)],
            env={**os.environ, **self.settings},
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (newest,) = self(
            "flow_runs/filter",
            {
                "sort": "EXPECTED_START_TIME_DESC",
                "limit": 1,
                "flows": {"name": {"any_": ["sims-loop"]}},
            },
        )
        return newest

    def task_states(self, flow_run: dict[str, object]) -> dict[str, str]:
        """Of the run's stages and its report: by name, how each ended."""
        arms = self(
            "flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run["id"]]}}}
        )
        ids = [flow_run["id"], *(arm["id"] for arm in arms)]
        tasks = self("task_runs/filter", {"flow_runs": {"id": {"any_": ids}}})
        # An arm is a sub-flow, for which Prefect makes a task as well.
        return {t["name"]: t["state"]["name"] for t in tasks if not t["name"].startswith("arm")}


def _start(sims, *arguments: str) -> str:
    """`sims stack start`, which may take longer than a command that computes nothing should."""
    process = sims.start("stack", "start", *arguments)
    output, errors = process.communicate(timeout=START_S)
    assert process.returncode == 0, errors
    return output


def _kill(state: Path, name: str) -> None:
    os.kill(Stack(state).state.processes[name].pid, signal.SIGKILL)


@needs_databases
@pytest.mark.slow
def test_a_whole_life(sims, tiny_parameters, folder):
    state, store = folder / "stack", folder / "store"
    start = ("--state", str(state), "--store", str(store))
    (port,) = free_ports(1)
    try:
        assert f"http://127.0.0.1:{port}" in _start(sims, *start, "--port", str(port))
        _look_at_the_running(sims, state, port)

        client = Client(state)
        first = client.run(tiny_parameters(generations="1"))
        assert first["state"]["type"] == "COMPLETED"
        assert sims("store", "verify", "--store", str(store)).returncode == 0
        assert len(list(store.glob("artifacts/metrics/*"))) == 2, "one an arm"

        before = Stack(state).state.processes
        for name in ("redis", "services"):
            _kill(state, name)
        rows = json.loads(sims("stack", "status", "--state", str(state), "--json").stdout)
        assert {row["name"] for row in rows if row["problem"] == "not running"} == {
            "redis",
            "services",
        }
        _start(sims, *start)
        after = Stack(state).state.processes
        assert {name for name in ORDER if before[name] != after[name]} == {"redis", "services"}

        second = client.run(tiny_parameters(generations="1"))
        assert second["id"] != first["id"]
        tasks = client.task_states(second)
        assert {name for name in tasks if tasks[name] != "Cached"} == {
            name for name in tasks if name.startswith("report ")
        }
        assert len(tasks) > 10
    finally:
        stopped = sims("stack", "stop", "--state", str(state))
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n"), stopped.stderr
    assert not list(belonging_to(state))

    wrong = json.loads((state / "passwords.json").read_text())
    (state / "passwords.json").write_text(json.dumps({**wrong, "POSTGRES_PASSWORD": "wrong"}))
    line = _refused(sims, "start", *start)
    assert "PostgreSQL refuses the password" in line
    assert not list(belonging_to(state))


def _look_at_the_running(sims, state: Path, port: int) -> None:
    """All is well, a second start changes nothing, and strangers are turned away."""
    done = sims("stack", "status", "--state", str(state))
    assert done.returncode == 0, done.stdout
    running = Stack(state).state.processes
    known = {process.pid for process in belonging_to(state)}
    assert {process.pid for process in running.values()} <= known, "none could hide from `stop`"
    store = Stack(state).state.store
    _start(sims, "--state", str(state), "--store", store)
    assert Stack(state).state.processes == running
    line = _refused(sims, "start", "--state", str(state), "--store", store, "--port", "1")
    assert f"runs on port {port}: stop it first" in line

    client = Client(state)
    settings = client("admin/settings")["server"]
    assert settings["analytics_enabled"] is False
    assert settings["ui"]["v2_enabled"] is False
    assert settings["database"]["driver"] == "postgresql+asyncpg"
    for auth in ("", "sims:wrong"):
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            client("admin/settings", auth=auth)
    done = sims("setup", **{**client.settings, "PREFECT_API_AUTH_STRING": "sims:wrong"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "wants another password: set PREFECT_API_AUTH_STRING" in done.stderr
    with pytest.raises(httpx.ConnectError, match="refused"):  # another address of this machine
        httpx.get(f"http://127.0.0.2:{port}/api/health")
    for file in ("env", "passwords.json", "state.json"):
        assert (state / file).stat().st_mode & 0o777 == 0o600
