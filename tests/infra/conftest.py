"""A real Prefect server and a real worker, each a process, set up as the README says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
SIMS = str(Path(sys.executable).with_name("sims"))
SETTINGS = {"SIMS_CHECKPOINT_KIMG": "0.1"}
# Each process writes down every address beyond this machine that it wants to reach.
WITNESS = """
import os, socket, sys

def witness(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname()):
        with open(os.environ["WITNESS_FILE"], "a") as file:
            print(event, host, sys.argv, file=file)

sys.addaudithook(witness)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Deployed:
    """A server that was set up, a worker, and the commands of a user."""

    url: str
    store: Path
    environment: dict[str, str]
    folder: Path
    prefect = PREFECT
    settings = SETTINGS

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def api(self, method: str, path: str, **body: Any) -> Any:
        """An answer; like Prefect's clients it asks again where SQLite was locked for too long."""
        for pause_s in (1, 2, 4, 8, 0):
            reply = httpx.request(method, f"{self.url}{path}", json=body or None, timeout=30)
            if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(pause_s)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def runs(self, **flow_run_filter: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(
            "POST", "/flow_runs/filter", flow_runs=flow_run_filter, sort="START_TIME_ASC"
        )
        return found

    def state(self, run_id: str) -> str:
        name: str = self.api("GET", f"/flow_runs/{run_id}")["state"]["name"]
        return name

    def message(self, run_id: str) -> str:
        """What its state says."""
        return str(self.api("GET", f"/flow_runs/{run_id}")["state"]["message"])

    def family(self, run_id: str) -> list[str]:
        """The run and its arms."""
        return [run_id, *(run["id"] for run in self.runs(parent_flow_run_id={"any_": [run_id]}))]

    def messages(self, run_id: str) -> list[str]:
        logs = {"flow_run_id": {"any_": self.family(run_id)}}
        return [row["message"] for row in self.api("POST", "/logs/filter", logs=logs, limit=200)]

    def start(self, **parameters: Any) -> str:
        """Creates a run of the deployment, as the page's button does."""
        deployment = self.api("GET", "/deployments/name/sims-loop/digits")["id"]
        run = self.api("POST", f"/deployments/{deployment}/create_flow_run", parameters=parameters)
        return str(run["id"])

    def run_by_name(self, **parameters: Any) -> str:
        """`prefect deployment run sims-loop/digits --param ... --watch`; the run's id."""
        given = [
            word
            for key, value in parameters.items()
            for word in ("--param", f"{key}={json.dumps(value)}")
        ]
        done = self(PREFECT, "deployment", "run", "sims-loop/digits", *given, "--watch")
        assert done.returncode == 0, done.stdout
        assert "finished successfully" in done.stdout
        return str(self.runs(deployment_id={"is_null_": False})[-1]["id"])

    def artifacts(self, run_id: str) -> dict[str, list[dict[str, Any]]]:
        """Those of the run and its arms, by key, in order of time."""
        found: dict[str, list[dict[str, Any]]] = {}
        wanted = {"flow_run_id": {"any_": self.family(run_id)}}
        rows = self.api("POST", "/artifacts/filter", artifacts=wanted, limit=200)
        for row in sorted(rows, key=lambda row: str(row["created"])):
            found.setdefault(row["key"], []).append(row)
        return found


@pytest.fixture(scope="session")
def background(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that ends with the session."""
    processes: list[subprocess.Popen[bytes]] = []
    folder = tmp_path_factory.mktemp("logs")

    def start(*command: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (folder / f"{len(processes)}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
                )
            )
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def deployed(background, wait_for, tmp_path_factory) -> Deployed:
    """Server, `sims setup`, `prefect deploy --all`, worker."""
    folder, port = tmp_path_factory.mktemp("deployed"), _free_port()
    (folder / "witness").mkdir()
    (folder / "witness" / "sitecustomize.py").write_text(WITNESS)
    silent = {"CI", "GITHUB_ACTIONS", "DO_NOT_TRACK"}  # each alone would silence Prefect
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") and name not in silent
    }
    path = [str(folder / "witness"), str(ROOT), clean.get("PYTHONPATH", "")]
    clean |= {
        "PREFECT_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join(path),
        "WITNESS_FILE": str(folder / "outside.txt"),
    }
    url = f"http://127.0.0.1:{port}/api"
    background(
        *(PREFECT, "server", "start", "--port", str(port)),
        env={**clean, "PREFECT_UI_API_URL": url},
    )
    store = folder / "store"
    environment = {
        **clean,
        "PREFECT_API_URL": url,
        "SIMS_STORE": str(store),
        **SETTINGS,
    }
    made = Deployed(url, store, environment, folder)

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    wait_for(answers, 240, interval=0.5)
    too_early = made(PREFECT, "--no-prompt", "deploy", "--all")
    assert "work pool 'sims' which does not exist" in " ".join(too_early.stdout.split())
    for _ in range(2):  # again changes nothing
        done = made(SIMS, "setup", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["concurrency limit"] == "gpu (1 at once)"
    done = made(PREFECT, "--no-prompt", "deploy", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    background(PREFECT, "worker", "start", "--pool", "sims", env=environment)
    return made


@pytest.fixture(scope="session")
def listening(deployed, background, wait_for) -> Callable[..., AbstractContextManager[Any]]:
    """Starts `sims workers` with these settings; in the context so many of its workers listen."""

    @contextmanager
    def start(count: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        given = {**deployed.environment, **settings}
        command = background(SIMS, "workers", "--count", str(count), env=given)
        begins = f"{socket.gethostname()}-{command.pid}-"

        def listen() -> bool:
            found = deployed.api("POST", "/work_pools/sims-arms/workers/filter")
            online = [each["name"] for each in found if each["status"] == "ONLINE"]
            return sum(name.startswith(begins) for name in online) == count

        try:
            wait_for(listen, 120, interval=0.5)
            yield command
        finally:
            command.terminate()
            command.wait(90)

    return start


@pytest.fixture(scope="session")
def first_run(deployed, tiny_parameters) -> str:
    """The tiny run, by name."""
    return deployed.run_by_name(**tiny_parameters())


def _far(artifacts: list[dict[str, Any]]) -> bool:
    """Whether it is the progress of the base's training, with its rate."""
    return "train base" in str(artifacts[-1]["description"]) and " left" in str(artifacts)


@pytest.fixture(scope="session")
def killed_run(deployed, sims, wait_for, tmp_path_factory) -> list[str]:
    """`sims run` of a long training, killed when it shows its progress; its ids."""
    before = {run["id"] for run in deployed.runs()}
    store = tmp_path_factory.mktemp("killed") / "store"
    run = sims.start(
        *sims.run_arguments(store, training__kimg="2000"),
        PREFECT_API_URL=deployed.url,
        **deployed.settings,
    )

    def mine() -> list[str]:
        return [row["id"] for row in deployed.runs() if row["id"] not in before]

    try:
        wait_for(
            lambda: mine() and any(map(_far, deployed.artifacts(mine()[0]).values())),
            300,
            interval=0.5,
        )
        assert [deployed.state(run_id) for run_id in mine()] == ["Running", "Running"]
    finally:
        run.kill()
        run.communicate(timeout=20)
    return mine()
