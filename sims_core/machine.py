"""What a machine cannot compute of an experiment: said before any work starts. Needs no torch."""

from __future__ import annotations

from sims_core.config import Execution, Experiment, GaussianData, Precision
from sims_core.errors import BadInput


def check_precision(name: str, precision: Precision, device: str) -> None:
    """Raises BadInput, naming the field, if the device cannot compute in that precision."""
    if precision == "fp16" and device == "cpu":
        raise BadInput(f"{name} fp16 needs a GPU: take bf16 or fp32 on a CPU")


def check_batch(name: str, batch_size: int, processes: int) -> None:
    """Raises BadInput, naming the field, if the processes cannot share a training batch."""
    if batch_size < processes:
        raise BadInput(
            f"SIMS_PROCESSES is {processes}, and so many cannot share a batch of {batch_size} "
            f"images ({name}): set it to fewer"
        )


def check_machine(experiment: Experiment, execution: Execution) -> None:
    """Raises BadInput if some stage of the experiment could not run as `execution` says."""
    if isinstance(experiment.data, GaussianData):
        return
    training, sims, processes = experiment.training, experiment.sims, execution.num_processes
    check_precision("training.precision", training.precision, execution.device)
    check_precision("sampler.precision", experiment.sampler.precision, execution.device)
    check_batch("sims.batch_size", sims.batch_size, processes)
    if experiment.base.imported is None:
        check_batch("training.batch_size", training.batch_size, processes)
