"""The stack of docker-compose.yml in real containers, from its image to its end, in this order."""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[2]
IMAGE = "sims-loop:0.1.0"
PACKAGES = ("flows", "tasks", "sims_core", "infra")
CONNECT = """
import asyncio, asyncpg
asyncio.run(asyncpg.connect(host="postgres", user="prefect", database="prefect", password="no"))
"""
TRAIN_KIMG, BATCH_SIZE = 10, 64
CHECKPOINT = "/store/progress/*/state/checkpoint.pt"
SAVED_KIMG = f"""
import glob, torch
(path,) = glob.glob("{CHECKPOINT}")
print(torch.load(path, weights_only=True)["step"] * {BATCH_SIZE} / 1000)
"""


@dataclass(frozen=True)
class Stack:
    """A copy of what the image is built from, with an `.env`, and the commands of a user."""

    engine: Any
    folder: Path
    port: int
    auth: tuple[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def __call__(self, *arguments: str, seconds: float = 300) -> str:
        """`docker-compose` in the copy."""
        place = ("--project-directory", str(self.folder), "--env-file", f"{self.folder}/.env")
        file = ("--file", f"{self.folder}/docker-compose.yml")
        return self.engine.docker_compose(*place, *file, *arguments, seconds=seconds)

    def cli(self, *command: str, seconds: float = 300) -> str:
        return self("run", "--rm", "-T", "cli", *command, seconds=seconds)

    def container(self, service: str) -> str:
        return self("ps", "--all", "--quiet", service)

    def inspect(self, container: str, template: str) -> str:
        return self.engine.docker("inspect", "--format", template, container)

    def api(self, method: str, path: str, **body: Any) -> Any:
        reply = httpx.request(
            method, f"{self.url}{path}", json=body or None, timeout=30, auth=self.auth
        )
        reply.raise_for_status()
        return reply.json()

    def runs(self, **flow_run_filter: Any) -> list[dict[str, Any]]:
        body = {"flow_runs": flow_run_filter, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", **body)
        return found

    def family(self, run_id: str) -> list[dict[str, Any]]:
        """The run and its arms."""
        arms = self.runs(parent_flow_run_id={"any_": [run_id]})
        return [*self.runs(id={"any_": [run_id]}), *arms]

    def messages(self, run_id: str) -> list[str]:
        logs = {"flow_run_id": {"any_": [run["id"] for run in self.family(run_id)]}}
        return [row["message"] for row in self.api("POST", "/logs/filter", logs=logs, limit=200)]


@pytest.fixture(scope="module")
def stack(engine: Any, base_images: list[str], request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The image, built from a copy of the checkout; nothing runs yet. All of it goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sims-containers-checkout-"))
    names = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for name in (*names, ".dockerignore", "docker-compose.yml", "infra/images/Dockerfile"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    values = {name: secrets.token_hex(24) for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD")}
    password = secrets.token_hex(24)
    values |= {"PREFECT_AUTH_STRING": f"sims:{password}", "PREFECT_PORT": str(port)}
    text = (ROOT / ".env.example").read_text()
    for name, value in values.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
    (folder / ".env").write_text(text)
    made = Stack(engine, folder, port, ("sims", password))
    version = engine.docker("version", "--format", "{{.Server.Version}}")
    engine.say(f"engine {version}, compose {engine.docker_compose('version', '--short')}")
    try:
        with engine.step("build"):
            made("build", "server", seconds=1200)
        for name in (*base_images, IMAGE):
            engine.say(f"{name}: {int(made.inspect(name, '{{.Size}}')) / 1e9:.2f} GB")
        yield made
    finally:
        if request.session.testsfailed:
            engine.say(made("logs", "--no-color", "--tail", "40"))
        made("down", "--volumes", "--timeout", "10")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def up(stack: Stack, wait_for: Callable[..., Any]) -> Callable[[], None]:
    """`up -d`, until every service is well."""

    def start() -> None:
        with stack.engine.step("up"):
            stack("up", "--detach", seconds=400)
        services = ("postgres", "redis", "server", "services", "worker")
        containers = [stack.container(name) for name in services]
        template = "{{.State.Health.Status}}"
        with stack.engine.step("and well"):
            wait_for(
                lambda: {stack.inspect(name, template) for name in containers} == {"healthy"},
                180,
                interval=1,
            )
        assert stack.inspect(stack.container("setup"), "{{.State.ExitCode}}") == "0"

    return start


@pytest.fixture(scope="module")
def step(engine) -> Any:
    """Says how long what is done within took."""
    return engine.step


def _layers(stack) -> list[str]:
    return json.loads(stack.inspect(IMAGE, "{{json .RootFS.Layers}}"))


def _names(values: dict[str, object], option: str) -> list[str]:
    return [
        word for key, value in values.items() for word in (option, f"{key}={json.dumps(value)}")
    ]


def _run_by_name(stack, parameters: dict[str, object], *options: str) -> str:
    """`prefect deployment run` in the container of commands; what it printed."""
    command = ("prefect", "deployment", "run", "sims-loop/digits")
    return stack.cli(*command, *_names(parameters, "--param"), *options)


def _listening(port: int) -> set[str]:
    """The addresses on this machine at which something waits at the port."""
    return {
        found.laddr.ip
        for found in psutil.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port
    }


def _own_address() -> str:
    """This machine's address to others. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        return address


def test_a_change_of_the_code_installs_nothing(stack, step):
    before = _layers(stack)
    changed = stack.folder / PACKAGES[0] / "__init__.py"
    changed.write_text("# changed\n")
    with step("build after a change of the code"):
        stack("build", "server")
    after = _layers(stack)
    # The packages are copied last, a layer each.
    last = len(PACKAGES)
    assert before[:-last] == after[:-last]
    assert before[-last] != after[-last]
    place = f"import {PACKAGES[0]}; print(open({PACKAGES[0]}.__file__).read())"
    assert stack.engine.docker("run", "--rm", IMAGE, "python", "-c", place) == "# changed"
    installed = stack.engine.docker("run", "--rm", IMAGE, "sims", "presets")
    assert "sims-loop/digits" in installed


def test_a_run_by_name_leaves_its_report_in_the_volume(stack, up, step, tiny_parameters):
    up()
    with step("a tiny run by name"):
        said = _run_by_name(stack, tiny_parameters(), "--watch")
    assert "finished successfully" in said
    (name,) = stack.cli("ls", "/store/runs").split()
    folder = f"/store/runs/{name}"
    figures = json.loads(stack.cli("cat", f"{folder}/run.json"))
    rows = {
        (arm["name"], number): generation["metrics"]["fid"]
        for arm in figures["arms"]
        for number, generation in enumerate(arm["generations"], 1)
    }
    assert len(rows) == 4, "two methods, two generations"
    page = stack.cli("cat", f"{folder}/report/index.html")
    for (arm, number), fid in rows.items():
        assert math.isfinite(fid)
        assert fid > 0
        assert f"<td>{number}</td><td>{fid:.3f}</td>" in page, arm
        stack.engine.say(f"{arm}, t = {number}: FID {fid:.3f}")


def test_passwords_are_asked_for(stack, step):
    for auth in (None, ("sims", "no")):
        reply = httpx.post(f"{stack.url}/flow_runs/filter", json={}, auth=auth, timeout=30)
        assert reply.status_code == 401
    assert stack.api("POST", "/flow_runs/filter")
    said = stack("exec", "-T", "redis", "sh", "-c", "unset REDISCLI_AUTH; redis-cli ping")
    assert "NOAUTH" in said
    with pytest.raises(AssertionError, match="password authentication failed"):
        stack("exec", "-T", "server", "python", "-c", CONNECT)


def test_only_this_machine_is_listened_to(stack):
    assert _listening(stack.port) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert httpx.get(f"{stack.url}/health", timeout=30).is_success
    address = _own_address()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, stack.port), timeout=10)
    open_ports = {
        name: json.loads(stack.inspect(stack.container(name), "{{json .HostConfig.PortBindings}}"))
        for name in ("postgres", "redis", "server", "services", "worker")
    }
    bound = {"4200/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}
    assert {name: ports for name, ports in open_ports.items() if ports} == {"server": bound}


def _begun(stack, worker: str) -> bool:
    """A checkpoint of a training is in the volume."""
    found = f"ls {CHECKPOINT} 2>/dev/null || true"
    return bool(stack.engine.docker("exec", worker, "sh", "-c", found))


def test_a_run_whose_worker_is_killed_goes_on_at_its_last_checkpoint(
    stack, step, tiny_parameters, wait_for
):
    worker = stack.container("worker")
    assert stack.inspect(worker, "{{.RestartCount}}") == "0"
    changes = {"generations": "1", "methods": "standard"}
    changes |= {"training__kimg": str(TRAIN_KIMG), "training__batch_size": str(BATCH_SIZE)}
    often = {"env": {"SIMS_CHECKPOINT_KIMG": "0.2"}}
    _run_by_name(stack, tiny_parameters(**changes), *_names(often, "--job-variable"))
    with step("another run, until it trains"):
        wait_for(lambda: _begun(stack, worker), 180, interval=0.3)
    # SIGKILL to what the container was started for: then the container dies, with all in it.
    kill = "kill -KILL $(cat /proc/1/task/1/children)"
    stack.engine.answers("exec", worker, "sh", "-c", kill)
    with step("worker killed, until the restart policy has it well again"):
        wait_for(lambda: stack.inspect(worker, "{{.RestartCount}}") == "1", 30, interval=0.3)
        health = "{{.State.Health.Status}}"
        wait_for(lambda: stack.inspect(worker, health) == "healthy", 120, interval=1)
    saved_kimg = float(stack.engine.docker("exec", worker, "python", "-c", SAVED_KIMG))
    assert 0 < saved_kimg < TRAIN_KIMG
    run = stack.runs(deployment_id={"is_null_": False})[-1]["id"]

    def states() -> list[str]:
        return [member["state"]["name"] for member in stack.family(run)]

    assert states() == ["Running", "Running"], "nobody was left to say otherwise"
    with step("until the automation says Crashed"):
        wait_for(lambda: states()[0] == "Crashed", 240, interval=1)
    with step("retried, until Completed"):
        stack.cli("prefect", "flow-run", "retry", run)
        wait_for(lambda: states()[0] == "Completed", 240, interval=1)
    assert sorted(states()) == ["Completed", "Completed", "Crashed"], "the arm began again"
    resumed = re.findall(r"resumed at ([\d.]+) kimg", "\n".join(stack.messages(run)))
    stack.engine.say(f"checkpoint at {saved_kimg:.1f} of {TRAIN_KIMG} kimg, resumed at {resumed}")
    assert resumed == [f"{saved_kimg:.1f}"]


def test_stopped_and_started_again_history_and_store_are_still_there(stack, step, up):
    def history() -> list[tuple[str, str]]:
        return [(run["id"], run["state"]["id"]) for run in stack.runs()]

    runs, artifacts = history(), stack.cli("sims", "store", "ls", "--json")
    assert len(runs) >= 5, "two runs and their arms"
    with step("stop"):
        stack("stop", seconds=200)
    assert _listening(stack.port) == set()
    up()
    assert history() == runs
    assert stack.cli("sims", "store", "ls", "--json") == artifacts
    assert len(json.loads(artifacts)) > 0
    stack.cli("sims", "store", "verify")


def test_down_leaves_nothing_but_the_volumes(stack, step):
    project = f"label=com.docker.compose.project={stack.folder.name}"

    def left(kind: str) -> list[str]:
        return stack.engine.docker(kind, "ls", "--quiet", "--filter", project).split()

    assert left("container")
    assert left("network")
    with step("down"):
        stack("down", seconds=200)
    assert left("container") == left("network") == []
    assert _listening(stack.port) == set()
    # Compose 1 makes that of a profile that is not asked for, Compose 2 does not.
    volumes = {name.removeprefix(f"{stack.folder.name}_") for name in left("volume")}
    assert volumes - {"bucket"} == {"postgres", "redis", "store"}
