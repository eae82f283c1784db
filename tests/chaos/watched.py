"""The command `sims`, watched: python watched.py ARGUMENTS OF SIMS

CHAOS_LOG names a file that gets a line for each step of progress, and one at the end that says how
many file operations on the store CHAOS_STORE there were. CHAOS_KILL_AT=k kills the process, as
SIGKILL does, just before the k-th of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

STORE = os.environ["CHAOS_STORE"] + os.sep
KILL_AT = int(os.environ.get("CHAOS_KILL_AT", "0"))
CHANGES = (
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link"),
    *("os.chmod", "os.utime", "os.truncate", "shutil.rmtree"),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_log = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
operations = 0


def _say(**what: Any) -> None:
    os.write(_log, f"{json.dumps({'at': time.time(), **what})}\n".encode())


def _is_in_store(path: Any) -> bool:
    # What is removed with a folder has a name relative to it; nothing else of ours is relative.
    name = os.fsdecode(path) if isinstance(path, str | bytes | Path) else ""
    return name.startswith(STORE) or bool(name and not name.startswith(os.sep))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    global operations
    if event not in CHANGES and not (event == "open" and arguments[2] & WRITES):
        return
    if _is_in_store(arguments[0]):
        operations += 1
        if operations == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from infra.cli.main import main as sims
    from infra.cli.progress import PlainProgress

    started, advanced, finished = (
        *(PlainProgress.started, PlainProgress.advanced),
        PlainProgress.finished,
    )
    arms: dict[int, str] = {}

    def say_started(self: PlainProgress, arm: str, label: str) -> None:
        arms[id(self)] = arm
        started(self, arm, label)

    def say_advanced(
        self: PlainProgress, label: str, done: int, total: int, unit: str, **figures: float
    ) -> None:
        _say(arm=arms.get(id(self), ""), label=label, done=done, total=total)
        advanced(self, label, done, total, unit, **figures)

    def say_finished(
        self: PlainProgress, arm: str, label: str, cached: bool, seconds: float
    ) -> None:
        _say(arm=arm, label=label, cached=cached)
        finished(self, arm, label, cached, seconds)

    changed: Any = PlainProgress
    changed.started, changed.advanced, changed.finished = say_started, say_advanced, say_finished
    sys.addaudithook(_watch)
    try:
        sims()
    finally:
        _say(operations=operations)


if __name__ == "__main__":
    main()
