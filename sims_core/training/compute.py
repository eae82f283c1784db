"""Stage `train`: which training computes it, and in how many processes."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from sims_core.engine.execution import check_batch
from sims_core.engine.processes import Job, run_in_processes
from sims_core.engine.stage import Compute, StageContext
from sims_core.training.config import TrainStageConfig


def train_in_processes(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train` in execution.num_processes processes of this machine.

    Raises:
        BadInput: a batch has fewer images than there are processes.
        SimsError: what a process raised.
    """
    processes = context.execution.num_processes
    check_batch("training.batch_size", context.config.training.batch_size, processes)
    job = Job.of(context, threads=max(1, context.execution.threads // processes))
    with run_in_processes(job, processes) as messages:
        for rank, message in messages:
            if "details" in message:  # of the first process, which wrote the artifact
                details: dict[str, Any] = message["details"]
                return details
            if rank == 0:
                context.progress(*message["progress"], **message["figures"])
    raise RuntimeError("the training processes ended without a result")


def train_images(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train` for images: in this process, or in those that share it."""
    if context.execution.num_processes > 1 and context.rank is None:
        from sims_core.data.mixing import map_training_set

        map_training_set(context.store, context.open("data"), context.execution.threads)
        return train_in_processes(context)
    from sims_core.training.images import train_image_model

    return train_image_model(context)


def train_model(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train`: inputs `data` (a mix) and, to fine-tune, `initial` (a model)."""
    compute: Compute[TrainStageConfig] = resolve_name(context.config.model.net.TRAINED_BY)
    return compute(context)
