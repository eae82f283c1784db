"""`run_stage`: the whole life of an artifact: lock, look, resume, compute, commit."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sims_core.common.errors import BadInput, OutOfMemory
from sims_core.common.files import explain_disk_errors, write_atomically
from sims_core.engine.execution import Execution
from sims_core.engine.stage import Progress, Stage, StageContext, no_progress
from sims_core.store.artifacts import ArtifactRef, Record, StageRequest
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.engine")


HOW_TO_COMPUTE = {"num_processes", "micro_batch_size", "compile", "channels_last"}
"""Named in a manifest where they are not as usual: the last digits of floats depend on them."""


LIBRARIES = ("torch", "torchvision", "diffusers", "torch-fidelity", "webdataset", "numpy", "pillow")


OUT_OF_MEMORY = "out-of-memory"


def _execution_kept(progress_path: Path, wanted: Execution) -> Execution:
    """The execution that an interrupted stage began with; `wanted` if there is none to go on with.

    Progress from another kind of device is discarded: its bytes could not be matched here. What ran
    out of memory goes on as it is told to now, or it would run out of memory again.
    """
    path, marker = progress_path / "execution.json", progress_path / OUT_OF_MEMORY
    try:
        kept = Execution.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        kept = None
    if kept and kept.device.split(":")[0] == wanted.device.split(":")[0]:
        if marker.exists():
            write_atomically(path, wanted.model_dump_json())
            marker.unlink()
            return wanted
        here_and_now = wanted.model_dump(include={"device", "num_processes"})
        return kept.model_copy(update={**here_and_now, "files": wanted.files})
    if progress_path.exists():
        shutil.rmtree(progress_path)
    progress_path.mkdir(parents=True)
    write_atomically(path, wanted.model_dump_json())
    return wanted


def run_stage(
    store: Store,
    stage: Stage[Any],
    request: StageRequest,
    execution: Execution,
    *,
    computed_by: str | None = None,
    progress: Progress = no_progress,
) -> ArtifactRef:
    """The artifact of `request`: read from the store if whole, else computed (and resumed).

    Two callers at once: one computes, the other waits and reads.

    Args:
        computed_by: written into the record if this call computes, so that the caller can tell.

    Raises:
        SimsError: bad input, a full disk, divergence; progress made so far is kept.
    """
    ref = request.ref
    with explain_disk_errors(store.root), store.lock(ref):
        if store.is_whole(ref):
            return ref
        if store.path(ref).exists():
            logger.warning("damaged, computing it again: %s", store.damage(ref)[0])
        _compute(store, stage, request, execution, computed_by or f"pid-{os.getpid()}", progress)
    return ref


def _compute(
    store: Store,
    stage: Stage[Any],
    request: StageRequest,
    execution: Execution,
    computed_by: str,
    progress: Progress,
) -> None:
    ref = request.ref
    started = time.monotonic()
    progress_path = store.progress_path(ref)
    config = stage.config.model_validate(request.config)
    if stage.one_thread(config):
        execution = execution.model_copy(update={"threads": 1})
    execution = _execution_kept(progress_path, execution)
    directory, state = progress_path / "artifact", progress_path / "state"
    if directory.exists():  # killed while it was being filled: only `state` is worth keeping
        shutil.rmtree(directory)
    directory.mkdir()
    state.mkdir(exist_ok=True)
    if not stage.without_torch:
        import torch

        torch.set_num_threads(execution.threads)
    context = StageContext(
        stage=stage.name,
        config=config,
        inputs=request.inputs,
        store=store,
        directory=directory,
        state=state,
        execution=execution,
        progress=progress,
    )
    try:
        details = stage.compute(context)
    except OutOfMemory:
        (progress_path / OUT_OF_MEMORY).touch()
        raise
    except BadInput:  # refused: nothing of it is worth keeping, unless a part was made before
        if not any(state.iterdir()):
            shutil.rmtree(progress_path)
        raise
    _commit(store, request, directory, execution, details)
    record = Record(
        computed_by=computed_by,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    store.write_record(ref, record)
    shutil.rmtree(progress_path)


def _commit(
    store: Store,
    request: StageRequest,
    directory: Path,
    execution: Execution,
    details: Mapping[str, Any],
) -> None:
    """Turns the filled folder into the artifact, and says in its manifest how it was computed."""
    store.commit(
        request,
        directory,
        execution={
            **execution.model_dump(include={"device", "threads", "sampling_batch_size"}),
            **execution.model_dump(include=HOW_TO_COMPUTE, exclude_defaults=True),
        },
        libraries={
            "python": platform.python_version(),
            **{name: library_version(name) for name in LIBRARIES},
        },
        details=details,
    )
