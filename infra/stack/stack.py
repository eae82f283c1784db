"""The stack of docker-compose.yml without Docker: PostgreSQL, Redis, server, services, worker.

Everything listens on 127.0.0.1 and lives in one folder: databases, logs, passwords. What runs, with
which settings, and how its health is checked, is read from docker-compose.yml.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.stack import databases, processes
from infra.stack.compose import ROOT, Service, read_service
from infra.stack.databases import LOOPBACK, Programs, write_private
from infra.stack.processes import MARK, Process
from sims_core.common.errors import BadInput, SimsError

ORDER = ("postgres", "redis", "server", "services", "worker")
"""Each needs those before it. `setup` runs before the worker starts."""
DEFAULT_PORT = 4200
START_S = 180.0
"""A component that is not well by then has failed."""
RUN_ID = "PREFECT__FLOW_RUN_ID"
"""Environment variable of the process of a flow run."""
VARIABLES = ("PREFECT_AUTH_STRING", "POSTGRES_PASSWORD", "REDIS_PASSWORD")
"""The passwords of .env.example."""


class State(BaseModel):
    """What `start` leaves for the next command."""

    model_config = ConfigDict(extra="forbid")

    ports: dict[str, int] = {}
    store: str = ""
    processes: dict[str, Process] = {}


class Component(BaseModel):
    """One line of `status`."""

    name: str
    pid: int | None
    problem: str | None
    """None: it is well."""


class Stack:
    """The stack that lives in `folder`.

    Every method raises BadInput for what the user can mend, and SimsError if a component failed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.state = self._read_state()

    def start(self, port: int | None, store: Path) -> None:
        """Starts what does not run and waits until all is well; does no harm to what runs.

        Args:
            port: of UI and API; None is the last one, 4200 at first.
            store: folder of the worker's artifacts.
        """
        programs = databases.find_programs()
        self._make_folder()
        with self._alone():
            self._choose_ports(port)
            self._choose_store(store)
            dead = [name for name in ORDER if self._find(name) is None]
            try:
                for name in dead:
                    if name == "worker":
                        self._set_up()
                    self._start(name, programs)
                for name in ORDER:
                    self._wait(name)
            except BaseException:
                self._stop(dead)
                raise
            self._write_environment()

    def stop(self) -> bool:
        """Stops everything, the last first, and leaves no process. False: nothing ran."""
        if not self.folder.exists():
            return False
        with self._alone():
            if self._find("server"):
                # As long as there is a server a run can say that it was ended, to be retried.
                for process in processes.belonging_to(self.folder):
                    if RUN_ID in process.environ():
                        processes.stop(process)
            return self._stop(ORDER)

    def status(self) -> list[Component]:
        """How each component is."""
        components = []
        for name in ORDER:
            process = self._find(name)
            problem = self._problem(name) if process else "not running"
            pid = process.pid if process else None
            components.append(Component(name=name, pid=pid, problem=problem))
        return components

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{LOOPBACK}:{self.state.ports['server']}"

    @property
    def environment_file(self) -> Path:
        """What a client of this stack needs, as lines that a shell reads."""
        return self.folder / "env"

    # What is kept in the folder

    def _make_folder(self) -> None:
        try:
            # PostgreSQL's user must get through to its own folder, and see nothing else.
            mode = 0o711 if databases.postgres_user() else 0o700
            self.folder.mkdir(mode=mode, parents=True, exist_ok=True)
            for name in ("logs", "redis", "prefect"):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            (self.folder / "lock").touch()
        except OSError as error:
            raise BadInput(
                f"cannot write the stack's folder {self.folder} ({error.strerror}): "
                "choose another with --state"
            ) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time; the state is read anew, since another may have changed it."""
        with (self.folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(f"another `sims stack` is at work in {self.folder}") from None
            self.state = self._read_state()
            yield

    def _read_state(self) -> State:
        file = self.folder / "state.json"
        try:
            return State.model_validate_json(file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return State()
        except (OSError, ValidationError):
            raise BadInput(f"cannot read {file}: remove it, then `sims stack stop`") from None

    def _save_state(self) -> None:
        write_private(self.folder / "state.json", self.state.model_dump_json(indent=2))

    @cached_property
    def passwords(self) -> dict[str, str]:
        """The passwords by the names of .env.example; made at the first start."""
        file = self.folder / "passwords.json"
        if not file.exists():
            if (self.folder / "postgres").exists():
                raise BadInput(f"{file} is gone: put it back, or {self._begin_anew}")
            made = {name: secrets.token_hex(24) for name in VARIABLES}
            made["PREFECT_AUTH_STRING"] = f"sims:{made['PREFECT_AUTH_STRING']}"
            write_private(file, json.dumps(made, indent=2))
        try:
            found = json.loads(file.read_text())
            return {name: str(found[name]) for name in VARIABLES}
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInput(
                f"cannot read {file}: want a JSON object with {', '.join(VARIABLES)}"
            ) from None

    @property
    def _begin_anew(self) -> str:
        return f"remove {self.folder} and with it all runs that the database knows"

    def _choose_ports(self, port: int | None) -> None:
        """The server's as asked for, free ones for the rest; while anything runs, the same."""
        known = self.state.ports.get("server", DEFAULT_PORT)
        if any(map(self._find, ORDER)):
            if port not in (None, known):
                raise BadInput(f"the stack in {self.folder} runs on port {known}: stop it first")
            return
        wanted = port or known
        if not _is_free(wanted):
            raise BadInput(f"port {wanted} is taken: choose another with --port")
        others = ("postgres", "redis", "worker")
        self.state.ports = {"server": wanted, **dict(zip(others, free_ports(3), strict=True))}

    def _choose_store(self, store: Path) -> None:
        wanted = str(store.expanduser().absolute())
        if self._find("worker") and wanted != self.state.store:
            raise BadInput(
                f"the stack's worker uses the store {self.state.store}: stop the stack first, or "
                "give that one with --store"
            )
        self.state.store = wanted

    def _write_environment(self) -> None:
        client = self.service("worker").environment
        names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "SIMS_STORE")
        lines = [f"export {name}={shlex.quote(client[name])}\n" for name in names]
        write_private(self.environment_file, "".join(lines))

    # What runs

    def addresses(self) -> dict[str, str]:
        """The settings that differ from the containers': where things are."""
        ports = {name: str(port) for name, port in self.state.ports.items()}
        api = f"http://{LOOPBACK}:{ports['server']}/api"
        return {
            "PREFECT_API_URL": api,
            "PREFECT_UI_API_URL": api,
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": ports["server"],
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.folder / "prefect" / "ui"),
            "PREFECT_SERVER_DATABASE_HOST": LOOPBACK,
            "PREFECT_SERVER_DATABASE_PORT": ports["postgres"],
            "PREFECT_REDIS_MESSAGING_HOST": LOOPBACK,
            "PREFECT_REDIS_MESSAGING_PORT": ports["redis"],
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_HOST": LOOPBACK,
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": ports["redis"],
            "PREFECT_WORKER_WEBSERVER_PORT": ports["worker"],
            "SIMS_STORE": self.state.store,
        }

    def service(self, name: str) -> Service:
        """The service of docker-compose.yml with this machine's addresses."""
        # A profile chooses between the containers for CPU and GPU; here the worker looks itself.
        service = read_service(name, {**self.passwords, "COMPOSE_PROFILES": "cpu"})
        own = {key: text for key, text in self.addresses().items() if key in service.environment}
        return Service(service.command, {**service.environment, **own}, service.health)

    def _environment(self, service: Service) -> dict[str, str]:
        """The environment of a process: the user's less Prefect's settings, then the service's."""
        inherited = {
            key: text for key, text in os.environ.items() if not key.startswith("PREFECT_")
        }
        path = os.pathsep.join(
            [str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]
        )
        own = {"PATH": path, "PREFECT_HOME": str(self.folder / "prefect"), MARK: str(self.folder)}
        return {**inherited, **service.environment, **own}

    def _find(self, name: str) -> psutil.Process | None:
        process = self.state.processes.get(name)
        return process.find() if process else None

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _start(self, name: str, programs: Programs) -> None:
        """Starts a component and waits until it is well."""
        if name == "postgres":
            started = self._start_postgres(programs.postgres)
        else:
            service = self.service(name)
            command, folder = service.command, ROOT  # where prefect.toml is
            if name == "redis":
                port = str(self.state.ports[name])
                command, folder = [*command, "--bind", LOOPBACK, "--port", port], self.folder / name
            environment = self._environment(service)
            started = processes.start(command, environment, folder, self._log(name))
        self.state.processes[name] = started
        self._save_state()
        self._wait(name)

    def _start_postgres(self, program: Path) -> Process:
        data = self.folder / "postgres"
        databases.wait_for_postgres_to_go(data, START_S)
        databases.make_postgres_folder(program, data, self.passwords["POSTGRES_PASSWORD"])
        command = databases.postgres_command(program, data, self.state.ports["postgres"])
        environment = {**os.environ, MARK: str(self.folder)}
        log, user = self._log("postgres"), databases.postgres_user()
        return processes.start(command, environment, data, log, user)

    def _set_up(self) -> None:
        """Store, work pool, limits, deployments."""
        done = self._run("setup", self.service("setup").command)
        self._log("setup").write_text(done.stdout + done.stderr)
        if done.returncode:
            raise SimsError(f"setup failed: {self._last_words('setup')}")

    def _run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command as the container of this service would."""
        try:
            return subprocess.run(  # noqa: S603 - our own commands
                command,
                env=self._environment(self.service(name)),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SimsError(f"{name} did not end within {START_S:.0f} s: {command[-1]}") from None

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + START_S
        while problem := self._problem(name):
            if not self._find(name):
                raise SimsError(f"{name} stopped at once: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise SimsError(f"{name} is not well: {problem} (see {self._log(name)})")
            time.sleep(0.3)

    def _last_words(self, name: str) -> str:
        log = self._log(name)
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        return f"{next(filter(None, reversed(lines)), 'it said nothing')} (see {log})"

    def _problem(self, name: str) -> str | None:
        """None if the component is well, else one line."""
        ports, passwords = self.state.ports, self.passwords
        try:
            if name == "postgres":
                return databases.ask_postgres(ports[name], passwords["POSTGRES_PASSWORD"])
            if name == "redis":
                return databases.ask_redis(ports[name], passwords["REDIS_PASSWORD"])
        except BadInput as error:
            file = self.folder / "passwords.json"
            raise BadInput(
                f"{error} in {file}: put back the old one, or {self._begin_anew}"
            ) from None
        checked = self._run(name, self.service(name).health)
        return (checked.stderr.strip() or "not well") if checked.returncode else None

    def _stop(self, names: Sequence[str]) -> bool:
        """Stops these, the last first; with the last of all also what dead ones left behind."""
        found = False
        for name in reversed(names):
            if process := self._find(name):
                found = True
                # On SIGTERM PostgreSQL waits for its clients to go.
                how = signal.SIGINT if name == "postgres" else signal.SIGTERM
                processes.stop(process, how)
            self.state.processes.pop(name, None)
        if not self.state.processes:
            for process in processes.belonging_to(self.folder):
                found = True
                processes.stop(process)
        self._save_state()
        return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in sockets]
