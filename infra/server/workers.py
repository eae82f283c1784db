"""Workers of the pool of arms on this machine: one for each GPU, which it has to itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from infra.server.prefect_api import check_prefect_api
from sims_core.common.errors import BadInput
from sims_core.settings import Settings, writable_store
from sims_core.store.store import Store
from tasks.names import ARMS_POOL

COUNT_GPUS = "import torch; print(torch.cuda.device_count())"
STOP_S = 60.0
"""How long a worker may take to end when asked."""
_UNTIL_ALONE = f"""
import os, signal, sys, threading, time
from prefect.cli import app

def watch():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({STOP_S})
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
sys.argv[0] = "prefect"
app()
"""
"""Prefect's command, told to end when the process that started it is gone, however that went: its
end of our input closes then."""
START = [
    *(sys.executable, "-c", _UNTIL_ALONE, "worker", "start"),
    *("--pool", ARMS_POOL, "--type", "process", "--limit", "1"),
]
PAUSE_S = 10.0
"""A worker that ended by itself is started again after so long."""
POLL_S = 0.5


def run_workers(count: int | None) -> None:
    """Starts the workers and stays until it is told to end (Ctrl-C, SIGTERM); then it ends them.

    Args:
        count: How many; None is one for each GPU.

    Raises:
        BadInput: no server, no pool, no store, or other devices than are there.
    """
    settings = Settings.read()
    places = worker_places(count, settings, os.environ)
    _check_pool()
    os.environ["SIMS_STORE"] = str(_store(settings).root)
    host = socket.gethostname()
    workers = [_Worker(f"{host}-{os.getpid()}-{n}", place) for n, place in enumerate(places)]
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: told.append(received))
    try:
        while not told:
            for worker in workers:
                worker.keep()
            time.sleep(POLL_S)
    finally:
        for worker in workers:
            worker.tell_to_end()
        for worker in workers:
            worker.wait()


def _store(settings: Settings) -> Store:
    """The workers' store, which is made only where a bucket brings what it lacks.

    Raises:
        BadInput: it cannot be written, or its bucket cannot be used.
        StoreError: it is not there.
    """
    return writable_store() if settings.remote else Store.open(settings.store, create=False)


def worker_places(
    count: int | None, settings: Settings, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """What each worker's environment has of its own.

    Each GPU is named in CUDA_VISIBLE_DEVICES, of those that this process may see; as it is the
    worker's own, nobody takes turns. Processors are shared out evenly.

    Raises:
        BadInput: more workers than GPUs, none and no number, or settings that name several GPUs.
    """
    on_gpu = settings.execution().device.startswith("cuda")
    gpus = _gpus(environment) if on_gpu else []
    if on_gpu and ":" in settings.device:
        raise BadInput(
            f"SIMS_DEVICE is {settings.device}, but each worker has one GPU to itself: "
            "SIMS_DEVICE=cuda (and CUDA_VISIBLE_DEVICES to choose among GPUs)"
        )
    if gpus and settings.processes > 1:
        raise BadInput(
            f"SIMS_PROCESSES is {settings.processes}, but each worker has one GPU: unset it, or "
            "use one worker for all GPUs: `prefect worker start --pool sims-arms --limit 1`"
        )
    if count is None and not gpus:
        raise BadInput("this machine has no GPU: say by `count` how many workers to start")
    if gpus and count is not None and count > len(gpus):
        raise BadInput(f"`count` is {count}, but there are {len(gpus)} GPUs: {', '.join(gpus)}")
    number = count or len(gpus)
    threads = {"SIMS_THREADS": str(max(1, len(os.sched_getaffinity(0)) // number))}
    own = {} if settings.threads else threads
    if not gpus:
        return [dict(own) for _ in range(number)]
    alone = {"SIMS_DEVICE": "cuda", "SIMS_GPU_SLOTS": "never"}
    return [{**own, **alone, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:number]]


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process may use."""
    # In a process of its own: this one, which lives long, needs no torch.
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True, check=False
    )
    found = int(done.stdout.strip() or 0) if done.returncode == 0 else 0
    if given := environment.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")[:found]
    return [str(number) for number in range(found)]


def _check_pool() -> None:
    """Raises BadInput unless the server that is named has the pool."""
    if not (url := PREFECT_API_URL.value()):
        raise BadInput("no Prefect server is named: `export PREFECT_API_URL=http://HOST:4200/api`")
    check_prefect_api()
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(ARMS_POOL)
        except ObjectNotFound:
            raise BadInput(
                f"the server {url} has no work pool {ARMS_POOL!r}: `sims setup`"
            ) from None
    if found.type != "process":
        raise BadInput(
            f"work pool {ARMS_POOL!r} is of type {found.type}, whose workers start containers: "
            f"`prefect worker start --pool {ARMS_POOL}`"
        )


class _Worker:
    """One worker process, started again where it ends by itself."""

    def __init__(self, name: str, place: Mapping[str, str]) -> None:
        self.name, self.place = name, place
        self.process: subprocess.Popen[Any] | None = None
        self.start_at = 0.0

    def keep(self) -> None:
        """Starts it if it does not run."""
        if self.process is not None and (code := self.process.poll()) is not None:
            print(f"worker {self.name} ended ({code}): starts again", file=sys.stderr, flush=True)
            self.process, self.start_at = None, time.monotonic() + PAUSE_S
        if self.process is None and time.monotonic() >= self.start_at:
            where = self.place.get("CUDA_VISIBLE_DEVICES")
            at = f" on GPU {where}" if where else ""
            print(f"worker {self.name}{at}", file=sys.stderr, flush=True)
            # A session of its own: Ctrl-C at a terminal reaches this command alone, which tells it.
            self.process = subprocess.Popen(  # noqa: S603 - Prefect's own command
                [*START, "--name", self.name],
                env={**os.environ, **self.place},
                stdin=subprocess.PIPE,
                start_new_session=True,
            )

    def tell_to_end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self) -> None:
        """Until it has ended; kills it and what it started if it does not."""
        if self.process is None:
            return
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
