"""Training in several processes: one batch shared between them, one artifact from the first.

Each is a fresh interpreter that runs this module, since a fork of a process that has used threads
or a GPU cannot compute, and a pickled entry point would need this process's main module. accelerate
finds its place among the others in the environment, as if `accelerate launch` had set it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sims_core import errors
from sims_core.config import Execution, Frozen
from sims_core.errors import BadInput, SimsError
from sims_core.stages import StageContext, TrainStageConfig, no_progress
from sims_core.store import ArtifactRef, Store


class Job(Frozen):
    """What a training process is told, as JSON on its command line."""

    config: TrainStageConfig
    inputs: dict[str, ArtifactRef]
    store: Path
    directory: Path
    state: Path
    execution: Execution


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


def train_in_processes(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train` in execution.num_processes processes of this machine.

    Raises:
        BadInput: a batch has fewer images than there are processes.
        SimsError: what a process raised.
    """
    processes = context.execution.num_processes
    if context.config.training.batch_size < processes:
        raise BadInput(
            f"{processes} processes cannot share a batch of {context.config.training.batch_size}: "
            "set SIMS_PROCESSES to fewer"
        )
    threads = max(1, context.execution.threads // processes)
    job = Job(
        config=context.config,
        inputs=dict(context.inputs),
        store=context.store.root,
        directory=context.directory,
        state=context.state,
        execution=context.execution.model_copy(update={"threads": threads}),
    )
    port = _free_port()
    workers = [
        subprocess.Popen(  # noqa: S603 - our own module and our own JSON
            [sys.executable, "-m", "sims_core.processes", job.model_dump_json()],
            env=_environment(rank, processes, port, threads),
            stdin=subprocess.PIPE,  # a process ends when this one is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        return _follow(workers, context)
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout, worker.stderr):
                if stream is not None:
                    stream.close()


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
    workers: Sequence[subprocess.Popen[str]], context: StageContext[TrainStageConfig]
) -> dict[str, Any]:
    """Passes the first process's progress on; returns the details that it ends with."""
    tails = [_Tail(worker) for worker in workers]
    for line in workers[0].stdout or ():
        message = json.loads(line)
        if "error" in message:
            raise _known_error(message)
        if "details" in message:
            details: dict[str, Any] = message["details"]
            return details
        context.progress(*message["progress"], **message["figures"])
    # The first process ended without a word: an error of its own, or another one broke the group.
    failed = {rank: worker for rank, worker in enumerate(workers) if worker.wait(timeout=60)}
    for rank, worker in failed.items():
        for line in (rank and worker.stdout) or ():
            if "error" in (message := json.loads(line)):
                raise _known_error(message)
    rank = min(failed, default=0)
    raise RuntimeError(f"training process {rank} failed:\n{tails[rank].text()}")


def _known_error(message: dict[str, Any]) -> SimsError:
    kind: type[SimsError] = getattr(errors, message["error"])
    return kind(message["text"])


# -- in the processes -----------------------------------------------------------------------------


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def _report(done: int, total: int, unit: str, **figures: float) -> None:
    _say(progress=[done, total, unit], figures=figures)


def _end_with_parent() -> None:
    """Exits when the process that started this one is gone: its end of our input closes then."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(job: Job, rank: int, say: Callable[..., None] = _say) -> None:
    """Trains as one of the processes; the first one reports and writes the artifact."""
    import torch

    from sims_core.image_training import train_image_model

    torch.set_num_threads(job.execution.threads)
    context = StageContext(
        config=job.config,
        inputs=job.inputs,
        store=Store(job.store),
        directory=job.directory,
        state=job.state,
        execution=job.execution,
        progress=_report if rank == 0 else no_progress,
    )
    try:
        details = train_image_model(context)
    except SimsError as error:
        say(error=type(error).__name__, text=str(error))
        raise SystemExit(1) from error
    if rank == 0:
        say(details=details)


def main() -> None:
    """Entry point of a training process."""
    _end_with_parent()
    work(Job.model_validate_json(sys.argv[1]), int(os.environ["RANK"]))


if __name__ == "__main__":
    main()
