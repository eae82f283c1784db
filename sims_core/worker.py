"""One of the processes that share a stage: `python -m sims_core.worker JOB`."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from sims_core.catalog import STAGES
from sims_core.common.errors import SimsError
from sims_core.engine.processes import Job
from sims_core.engine.stage import ShareDone, StageContext
from sims_core.store.store import Store

# -- in the processes -----------------------------------------------------------------------------


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def _report(done: int, total: int, unit: str, **figures: float) -> None:
    _say(progress=[done, total, unit], figures=figures)


def _end_with_parent() -> None:
    """Exits when the process that started this one is gone: its end of our input closes then."""

    def watch() -> None:
        while os.read(0, 1):  # not by sys.stdin, whose lock a thread must not hold at the end
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(job: Job, rank: int, say: Callable[..., None] = _say) -> None:
    """Computes the stage as one of the processes; of a training the first writes the artifact."""
    import torch

    stage = STAGES[job.stage]
    torch.set_num_threads(job.execution.threads)
    execution = job.execution
    if execution.device == "cuda":
        execution = execution.model_copy(update={"device": f"cuda:{rank}"})
    context = StageContext(
        stage=job.stage,
        config=stage.config.model_validate(job.config),
        inputs=job.inputs,
        store=Store(job.store),
        directory=job.directory,
        state=job.state,
        execution=execution,
        progress=_report,
        rank=rank,
    )
    try:
        details = stage.compute(context)
    except ShareDone:
        return
    except SimsError as error:
        say(error=type(error).__name__, text=str(error))
        raise SystemExit(1) from error
    if rank == 0:
        say(details=details)


def main() -> None:
    """Entry point of a process."""
    _end_with_parent()
    work(Job.model_validate_json(sys.argv[1]), int(os.environ["RANK"]))


if __name__ == "__main__":
    main()
