"""Processes that outlive the command that started them, found again by number and time of birth."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

STOP_S = 30.0
"""How long a process may take to end when asked; then it is killed."""
MARK = "SIMS_STACK"
"""Environment variable of every process of a stack, and so of their children: its folder."""

TITLED = {"postgres": "postgres", "redis-server": "redis"}
"""Those that write a title over their environment are known by the folder that they work in."""


class Process(BaseModel):
    """A process number is used again; number and time of birth together are not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    born: float

    def find(self) -> psutil.Process | None:
        """The process itself, if it still runs."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.born) < 2
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    user: str | None = None,
) -> Process:
    """Starts the command in `folder`, in a session of its own; all that it says goes to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    return Process(pid=child.pid, born=psutil.Process(child.pid).create_time())


def stop(process: psutil.Process, how: signal.Signals = signal.SIGTERM) -> None:
    """Asks the process to end, waits, kills it if it does not."""
    try:
        process.send_signal(how)
        process.wait(STOP_S)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)


def belonging_to(folder: Path) -> Iterator[psutil.Process]:
    """Every process of the stack of `folder`: children of dead components as well."""
    for process in psutil.process_iter():
        try:
            if place := TITLED.get(process.name()):
                ours = Path(process.cwd()) == folder / place
            else:
                ours = process.environ().get(MARK) == str(folder)
            if ours:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
