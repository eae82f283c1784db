"""How a stage runs on a machine, and what a machine cannot compute. None of it is in a digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.common.precision import Precision


class DataFiles(Frozen):
    """Where real data are read. Their content is checked or digested: no path is in a digest."""

    source: Path | None = None
    """The folder in which known data sets and weights are looked for."""
    imported: Path | None = None
    """What is being imported."""
    labels: Path | None = None
    """A file with the class labels of what is being imported."""
    reference: Path | None = None
    """A mean and covariance that images are compared with."""
    downloads: Path | None = None
    """Folder for known data sets that are fetched; None: nothing is fetched."""
    inception: Path | None = None
    """The file with Inception's weights."""


class Execution(Frozen):
    """How a stage runs. Nothing here changes an artifact's digest.

    A stage that was interrupted keeps the execution that it began with, so that its bytes do not
    depend on where it was interrupted.
    """

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    """torch's intra-operation threads; one and two differ in the last digits."""
    sampling_batch_size: Annotated[int, Field(ge=1)] = 256
    checkpoint_kimg: Annotated[float, Field(gt=0)] = 2.0
    """A training stage saves its progress every so many thousand images seen."""
    num_processes: Annotated[int, Field(ge=1)] = 1
    """Training processes that share each batch: on GPUs, one a GPU."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """At most so many images go through the network at once in training, in each process; their
    gradients are added up. None is the whole batch."""
    compile: Literal["inductor", "eager"] | None = None
    """torch.compile's backend for the network in training and sampling; None does not compile."""
    channels_last: bool = True
    """Weights in memory as [out, height, width, in]: faster on CPUs and on tensor cores."""
    files: DataFiles = DataFiles()


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
