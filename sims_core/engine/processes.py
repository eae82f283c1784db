"""A stage in several processes: training shares each batch, generation the shards.

Each is a fresh interpreter that runs this module, since a fork of a process that has used threads
or a GPU cannot compute, and a pickled entry point would need this process's main module. In
training accelerate finds its place among the others in the environment, as if `accelerate launch`
had set it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from sims_core.common import errors
from sims_core.common.errors import SimsError
from sims_core.common.frozen import Frozen
from sims_core.engine.execution import Execution
from sims_core.engine.stage import StageContext
from sims_core.store.artifacts import ArtifactRef

LAST_WORDS_S = 5
"""How long the others may still say what was wrong when one process has died."""


class Job(Frozen):
    """What a process is told, as JSON on its command line."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, ArtifactRef]
    store: Path
    directory: Path
    state: Path
    execution: Execution

    @classmethod
    def of(cls, context: StageContext[Any], **execution: Any) -> Job:
        """The stage of `context`, with changes to its execution."""
        return cls(
            stage=context.stage,
            config=context.config.model_dump(mode="json"),
            inputs=dict(context.inputs),
            store=context.store.root,
            directory=context.directory,
            state=context.state,
            execution=context.execution.model_copy(update=execution),
        )


def share_shards(context: StageContext[Any], processes: int, count: int, done: int) -> None:
    """The missing shards of a stage, each by one of several processes of this machine.

    Each has as many threads as one alone would, so that the bytes are the same.

    Args:
        count: samples in all.
        done: in shards that are finished already.

    Raises:
        SimsError: what a process raised.
    """
    made: dict[int, int] = {}
    with run_in_processes(Job.of(context, num_processes=processes), processes) as messages:
        for rank, message in messages:
            made[rank], _, unit = message["progress"]
            context.progress(done + sum(made.values()), count, unit)


# -- processes and what they say ------------------------------------------------------------------


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(rank: int, processes: int, port: int, threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads),
    }


@contextmanager
def run_in_processes(job: Job, processes: int) -> Iterator[Iterator[tuple[int, dict[str, Any]]]]:
    """Runs the job in `processes` processes, which are gone when the context is left.

    Yields:
        What they say, with who says it, until all have ended; raises what one of them raised.
    """
    port = _free_port()
    workers = [
        subprocess.Popen(  # noqa: S603 - our own module and our own JSON
            [sys.executable, "-m", "sims_core.worker", job.model_dump_json()],
            env=_environment(rank, processes, port, job.execution.threads),
            stdin=subprocess.PIPE,  # a process ends when this one is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said: Queue[tuple[int, str | None]] = Queue()
    listeners = [_Listener(rank, worker, said) for rank, worker in enumerate(workers)]
    tails = [_Tail(worker) for worker in workers]
    try:
        yield _follow(workers, said, tails)
    finally:
        for worker in workers:
            worker.kill()
        for worker, *threads in zip(workers, listeners, tails, strict=True):
            worker.wait()
            for thread in threads:
                thread.join()
            for stream in (worker.stdin, worker.stdout, worker.stderr):
                if stream is not None:
                    stream.close()


class _Listener(threading.Thread):
    """Hands on each line that a process writes, then None."""

    def __init__(
        self, rank: int, worker: subprocess.Popen[str], said: Queue[tuple[int, str | None]]
    ) -> None:
        super().__init__(daemon=True)
        self.rank, self.worker, self.said = rank, worker, said
        self.start()

    def run(self) -> None:
        for line in self.worker.stdout or ():
            self.said.put((self.rank, line))
        self.said.put((self.rank, None))


class _Tail(threading.Thread):
    """Keeps the last lines that a process wrote to standard error, so that its pipe never fills."""

    def __init__(self, worker: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.worker, self.lines = worker, [""]
        self.start()

    def run(self) -> None:
        for line in self.worker.stderr or ():
            self.lines = [*self.lines[-19:], line]

    def text(self) -> str:
        self.join(timeout=5)
        return "".join(self.lines)


def _follow(
    workers: Sequence[subprocess.Popen[str]],
    said: Queue[tuple[int, str | None]],
    tails: Sequence[_Tail],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the processes say until all have ended.

    Raises:
        SimsError: one said that it raised it.
        RuntimeError: one died without a word, and nor did another explain it.
    """
    running, failed = len(workers), None
    while running:
        try:
            rank, line = said.get(timeout=None if failed is None else LAST_WORDS_S)
        except Empty:
            break
        if line is None:
            running -= 1
            if workers[rank].wait() and failed is None:
                failed = rank
            continue
        message = json.loads(line)
        if "error" in message:
            raise _known_error(message)
        yield rank, message
    if failed is not None:
        raise RuntimeError(f"process {failed} failed:\n{tails[failed].text()}")


def _known_error(message: dict[str, Any]) -> SimsError:
    kind: type[SimsError] = getattr(errors, message["error"])
    return kind(message["text"])
