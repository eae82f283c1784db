"""A scenario run undisturbed, and a scenario killed until it ends."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios import CHECKPOINT_IMAGES, Command, Scenario

from sims_core.engine.source import code_commit

WATCHED = Path(__file__).with_name("watched.py")
ROOT = Path(__file__).parents[2]
LONGEST_S = 600
"""What takes longer hangs."""
TRAINING = "train"
OLD_S = 40 * 86_400
"""Whatever is kept for a while is not any more."""
NOT_COMPARED = ("verified", "locks")
"""The one is a memory of what was read, which costs nothing to lose; of the other, all is extra."""


@dataclass
class Started:
    """One process of the command under test, in a session of its own."""

    command: Command
    store: Path
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def of(
        cls, command: Command, store: Path, log: Path, settings: dict[str, str], kill_at: int = 0
    ) -> Started:
        environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith(("SIMS_", "PREFECT_"))},
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "PREFECT_HOME": str(store.parent / "prefect"),
            "SIMS_THREADS": "1",
            "SIMS_CHECKPOINT_KIMG": str(CHECKPOINT_IMAGES / 1000),
            "CHAOS_STORE": str(store),
            "CHAOS_LOG": str(log),
            "CHAOS_KILL_AT": str(kill_at),
            **settings,
        }
        with log.with_suffix(".err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, str(WATCHED), *command, "--store", str(store)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        return cls(command, store, log, process)

    def said(self) -> list[dict[str, Any]]:
        """The whole lines of its log."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def last_words(self) -> str:
        lines = self.log.with_suffix(".err").read_text(errors="replace").splitlines()
        return " / ".join(lines[-4:])


def session(pid: int) -> list[int]:
    """The living processes of the session that this process began."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            if state != "Z" and int(rest[2]) == pid:
                found.append(int(folder.name))
    return found


def sums(store: Path) -> dict[str, str]:
    """SHA-256 of every file of every artifact, by its path."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (store / "artifacts").rglob("*")
        if path.is_file()
    }


def names(store: Path) -> set[str]:
    """Everything that a store holds, by its path."""
    found = (path.relative_to(store).as_posix() for path in store.rglob("*"))
    return {name for name in found if name.partition("/")[0] not in NOT_COMPARED} | {
        path.relative_to(store).as_posix() for path in (store / "locks").iterdir()
    }


@dataclass(frozen=True)
class Kill:
    """Of one process of a command, or of all that it has started as well."""

    victim: Command
    everyone: bool
    after_s: float = 0.0
    before_operation: int = 0
    """The process kills itself before the file operation of this number; 0: the clock decides."""


class Quiet:
    """A scenario that nobody disturbs: what it makes, how long it takes, what it does."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        folder.mkdir()
        store = folder / "store"
        self.seconds: dict[tuple[str, ...], float] = {}
        self.operations: dict[tuple[str, ...], int] = {}
        for step in scenario.steps:
            for number, command in enumerate(step):
                began = time.monotonic()
                log = folder / f"{len(self.seconds)}-{number}.log"
                started = Started.of(command, store, log, dict(scenario.settings))
                started.process.wait(LONGEST_S)
                if started.process.returncode:
                    sys.exit(f"error: {scenario.name}, undisturbed: {started.last_words()}")
                self.seconds[tuple(command)] = time.monotonic() - began
                self.operations[tuple(command)] = started.said()[-1]["operations"]
        self.sums, self.names, self.commit = sums(store), names(store), code_commit()
        shutil.rmtree(folder)


class Round:
    """A scenario in a store of its own, killed and started again until it ends."""

    def __init__(
        self, quiet: Quiet, folder: Path, draws: random.Random, most: int, until: float
    ) -> None:
        """
        Args:
            most: kills.
            until: when the clock says so, it is not killed any more.
        """
        self.quiet, self.folder, self.draws = quiet, folder, draws
        self.most, self.until = most, until
        self.store = folder / "store"
        self.kills: list[Kill] = []
        self.starts = 0
        self.problems: list[str] = []
        self.logs: list[Path] = []
        self.sessions: list[int] = []
        folder.mkdir()
        for step in quiet.scenario.steps:
            self._until_it_ends(step)
        self.different: list[str] = []
        self.left: list[str] = []
        self.artifacts = self.computed_twice = 0
        self.most_lost = 0.0
        if not self.problems:
            self._look()
        if not self.problems:
            shutil.rmtree(folder)
        else:
            told = [kill.before_operation or f"{kill.after_s:.2f} s" for kill in self.kills]
            self.problems.append(f"kept in {folder}, killed at {told}")

    def _until_it_ends(self, step: Sequence[Command]) -> None:
        """Starts the commands, and those again that were killed."""
        pending = list(step)
        while pending and not self.problems:
            kill = self._drawn(pending)
            running = [self._start(command, kill) for command in pending]
            if kill is not None:
                self._await(kill, next(each for each in running if each.command is kill.victim))
            for each in running:
                try:
                    code = each.process.wait(LONGEST_S)
                except subprocess.TimeoutExpired:
                    self.problems.append(f"hangs: {each.last_words()}")
                    os.killpg(each.process.pid, signal.SIGKILL)
                    continue
                if code == 0:
                    pending.remove(each.command)
                elif code != -signal.SIGKILL:
                    self.problems.append(f"exit code {code}: {each.last_words()}")

    def _drawn(self, pending: Sequence[Command]) -> Kill | None:
        """The next kill, if there is to be one."""
        if len(self.kills) >= self.most or time.monotonic() > self.until:
            return None
        victim = self.draws.choice(pending)
        everyone = self.draws.random() < 0.5
        at = self.draws.random()
        if self.draws.random() < 0.5:
            return Kill(victim, everyone, after_s=at * self.quiet.seconds[tuple(victim)])
        # What was made before is not made again: there are fewer operations than undisturbed.
        number = 1 + int(at**1.5 * self.quiet.operations[tuple(victim)])
        return Kill(victim, everyone, before_operation=number)

    def _start(self, command: Command, kill: Kill | None) -> Started:
        self.logs.append(self.folder / f"{self.starts:03d}.log")
        self.starts += 1
        kill_at = kill.before_operation if kill is not None and command is kill.victim else 0
        settings = dict(self.quiet.scenario.settings)
        started = Started.of(command, self.store, self.logs[-1], settings, kill_at)
        self.sessions.append(started.process.pid)
        return started

    def _await(self, kill: Kill, victim: Started) -> None:
        """Waits until it is killed, or has ended before."""
        process = victim.process
        with suppress(subprocess.TimeoutExpired):
            process.wait(LONGEST_S if kill.before_operation else kill.after_s)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.returncode == -signal.SIGKILL:
            self.kills.append(kill)
            if kill.everyone:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    # -- what is looked at when it has ended --------------------------------------------------

    def _look(self) -> None:
        found, quiet = sums(self.store), self.quiet
        self.artifacts = sum(name.endswith("/manifest.json") for name in found)
        self.different = sorted(
            name
            for name in found.keys() | quiet.sums.keys()
            if found.get(name) != quiet.sums.get(name)
        )
        if code_commit() != self.quiet.commit:
            self.problems.append("the clone has changed meanwhile, and manifests say so: try again")
        elif self.different:
            self.problems.append(f"other bytes: {', '.join(self.different[:4])}")
        self._count_work()
        self._sims("store", "verify")
        self._look_for_leftovers()
        until = time.monotonic() + 60
        while left := [pid for leader in self.sessions for pid in session(leader)]:
            if time.monotonic() > until:
                self.problems.append(f"processes are left: {left}")
                return
            time.sleep(0.2)

    def _sims(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from infra.cli.main import main; main()"),
                *(*words, "--store", str(self.store), "--json"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self.problems.append(f"{' '.join(words)}: {done.stdout or done.stderr}")
            return {}
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def _look_for_leftovers(self) -> None:
        """What is not in the undisturbed store, when enough time has passed for gc to take it."""
        extra = names(self.store) - self.quiet.names
        if missing := sorted(self.quiet.names - names(self.store)):
            self.problems.append(f"missing: {', '.join(missing[:4])}")
        old = time.time() - OLD_S
        for name in extra:
            os.utime(self.store / name, (old, old), follow_symlinks=False)
        told = self._sims("store", "gc", "--dry-run")
        named = [*told.get("leftovers", []), *told.get("decoded", [])]
        there = (name for name in extra if os.path.lexists(self.store / name))  # not swept away
        self.left = sorted(
            name for name in there if not any(f"{name}/".startswith(f"{n}/") for n in named)
        )
        if self.left:
            self.problems.append(f"left, and not named by gc: {', '.join(self.left[:4])}")
        self._sims("store", "gc")
        if kept := sorted(names(self.store) - self.quiet.names):
            self.problems.append(f"left by gc: {', '.join(kept[:4])}")
        if sums(self.store) != self.quiet.sums:
            self.problems.append("gc took an artifact")

    def _count_work(self) -> None:
        """Stages that were computed twice, and what a kill cost the trainings."""
        computed: Counter[tuple[str, str]] = Counter()
        reached: dict[tuple[str, str], int] = {}
        lines = [each for log in self.logs for each in _of_one_process(log)]
        for line, first in sorted(lines, key=lambda each: each[0]["at"]):
            key = line["arm"], line["label"]
            if "cached" in line:
                computed[key] += not line["cached"]
            elif TRAINING in line["label"] and key in reached and first is not None:
                lost = reached[key] - (line["done"] - first)
                interval = max(first, self.quiet.scenario.interval)
                self.most_lost = max(self.most_lost, lost / interval)
            if "done" in line:
                reached[key] = line["done"]
        self.computed_twice = sum(count > 1 for count in computed.values())
        if self.computed_twice:
            twice = [" ".join(key) for key, count in computed.items() if count > 1]
            self.problems.append(f"computed twice: {', '.join(twice[:4])}")
        if self.most_lost > 1:
            self.problems.append(f"{self.most_lost:.2f} checkpoint intervals lost by one kill")


def _of_one_process(log: Path) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Lines about stages; with the first of each stage's, images between two of its lines."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    lines = [line for line in lines if "label" in line]
    told: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        if "done" in line:
            told.setdefault((line["arm"], line["label"]), []).append(line["done"])
    seen: set[tuple[str, str]] = set()
    for line in lines:
        key = line["arm"], line["label"]
        is_first = "done" in line and key not in seen
        if is_first:
            seen.add(key)
        counts = told.get(key, [])
        yield line, counts[1] - counts[0] if is_first and len(counts) > 1 else None
