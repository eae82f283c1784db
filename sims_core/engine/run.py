"""`run_stage`: the whole life of an artifact: lock, look, resume, compute, commit."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sims_core.common.errors import BadInput, OutOfMemory
from sims_core.common.files import explain_disk_errors, read_regular, remove, write_atomically
from sims_core.common.instructions import SETTING
from sims_core.common.sealed import Sealed
from sims_core.engine.execution import Execution
from sims_core.engine.source import code_digest, made_by, source_digest
from sims_core.engine.stage import Progress, Stage, StageContext, no_progress
from sims_core.store.artifacts import ArtifactRef, Origin, Record, StageRequest
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.engine")


HOW_TO_COMPUTE = {"num_processes", "micro_batch_size", "compile", "channels_last"}
"""Named in a manifest where they are not as usual: the last digits of floats depend on them."""


LIBRARIES = ("torch", "torchvision", "diffusers", "torch-fidelity", "webdataset", "numpy", "pillow")


OUT_OF_MEMORY = "out-of-memory"


class Begun(Sealed):
    """How a stage was begun that is not finished: it is gone on with in the same way."""

    execution: Execution
    source: str
    """Digest of the source that it ran."""


def _begun(path: Path) -> Begun | None:
    """What the file says; None if it is not there or damaged, which is said."""
    try:
        begun = Begun.model_validate_json(read_regular(path))
        if begun.is_intact():
            return begun.unsealed()
    except FileNotFoundError:
        return None
    except (ValidationError, OSError):
        pass
    logger.warning("unfinished work is damaged, or of an older program: %s; it is made again", path)
    return None


def _write(path: Path, begun: Begun) -> None:
    write_atomically(path, begun.sealed().model_dump_json(), durable=False)


def _how_to_go_on(progress_path: Path, stage: str, wanted: Begun, anew: bool) -> Begun:
    """How an interrupted stage was begun; `wanted` if there is nothing to go on with.

    Progress from another kind of device is discarded: its bytes could not be matched here. What ran
    out of memory goes on as it is told to now, or it would run out of memory again.

    Args:
        anew: what other code began is not gone on with.
    """
    path, marker = progress_path / "execution.json", progress_path / OUT_OF_MEMORY
    kept = _begun(path)
    if kept and kept.source != wanted.source:
        if anew:
            kept = None
        else:
            logger.warning(
                "%s: goes on with work that other code began; `recompute` %s begins anew",
                *(stage, stage),
            )
    now = wanted.execution
    if kept and kept.execution.device.split(":")[0] == now.device.split(":")[0]:
        if marker.exists():
            kept = kept.model_copy(update={"execution": now})
            _write(path, kept)
            marker.unlink()
            return kept
        here = now.model_dump(include={"device", "num_processes"})
        execution = kept.execution.model_copy(update={**here, "files": now.files})
        return kept.model_copy(update={"execution": execution})
    remove(progress_path)
    progress_path.mkdir(parents=True)
    _write(path, wanted)
    return wanted


def run_stage(
    store: Store,
    stage: Stage[Any],
    request: StageRequest,
    execution: Execution,
    *,
    computed_by: str | None = None,
    progress: Progress = no_progress,
    anew: Callable[[], bool] = lambda: False,
) -> ArtifactRef:
    """The artifact of `request`: read from the store if whole, else computed (and resumed).

    Two callers at once, also on two hosts with one bucket: one computes, the other waits and reads.

    Args:
        computed_by: written into the record if this call computes, so that the caller can tell.
        anew: whether it is computed although the store has it, asked when nobody else can be
            computing it.

    Raises:
        SimsError: bad input, a full disk, divergence; progress made so far is kept.
    """
    ref = request.ref
    with explain_disk_errors(store.root), store.lock(ref):
        whole = store.bring(ref)
        again = whole and anew()
        if whole and not again:
            store.settle(ref)
            _note_that_the_source_is_the_same(store, stage, ref)
            if store.behind is not None:
                store.behind.publish(ref)
            return ref
        if not whole and store.path(ref).exists():
            logger.warning("damaged, computing it again: %s", store.damage(ref)[0])
        by = computed_by or f"pid-{os.getpid()}"
        with _turn(store, request, again) as wanted:
            if wanted:
                _compute(store, stage, request, execution, by, progress, again)
    return ref


def _turn(store: Store, request: StageRequest, again: bool) -> AbstractContextManager[bool]:
    """Whether it is still to be computed, when no other host computes it."""
    if store.behind is None:
        return nullcontext(True)
    return store.behind.turn(request, again)


def _note_that_the_source_is_the_same(store: Store, stage: Stage[Any], ref: ArtifactRef) -> None:
    """Spares later runs the reading of all sources, where some changed that the stage does not run.

    The caller holds the lock.
    """
    record = store.record(ref)
    if record is None or record.origin is None or record.code == code_digest():
        return
    if record.origin.source == source_digest(stage.entry):
        with suppress(OSError):
            store.write_record(ref, record.model_copy(update={"code": code_digest()}))


def _compute(
    store: Store,
    stage: Stage[Any],
    request: StageRequest,
    execution: Execution,
    computed_by: str,
    progress: Progress,
    anew: bool,
) -> None:
    ref = request.ref
    started = time.monotonic()
    progress_path = store.progress_path(ref)
    config = stage.config.model_validate(request.config)
    if stage.one_thread(config):
        execution = execution.model_copy(update={"threads": 1})
    wanted = Begun(execution=execution, source=source_digest(stage.entry))
    begun = _how_to_go_on(progress_path, stage.name, wanted, anew)
    execution = begun.execution
    directory, state = _folders(progress_path)
    if not stage.without_torch:
        import torch

        _check_instructions()
        torch.set_num_threads(execution.threads)
    inputs = {name: store.content(given) for name, given in request.inputs.items()}
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
    record = Record(
        computed_by=computed_by,
        finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=round(time.monotonic() - started, 3),
        code=code_digest() if begun.source == wanted.source else "",
    )
    origin = Origin(
        **made_by(), source=begun.source, inputs={name: c for name, c in inputs.items() if c}
    )
    how = _how(execution, stage.without_torch)
    store.commit(request, directory, **how, details=details, origin=origin, record=record)
    shutil.rmtree(progress_path)


def _check_instructions() -> None:
    """Raises BadInput if torch's kernels are not of the instructions that the machine's settings
    ask for."""
    import torch

    wanted, found = os.environ.get(SETTING, ""), torch.backends.cpu.get_cpu_capability()
    if wanted and found.lower() != wanted.lower():
        raise BadInput(
            f"{SETTING} is {wanted}, torch uses {found} here: unset it, or use a CPU that has it"
        )


def _folders(progress_path: Path) -> tuple[Path, Path]:
    """An empty folder for the artifact, and the folder of what is kept of unfinished work."""
    directory, state = progress_path / "artifact", progress_path / "state"
    remove(directory)  # killed while it was being filled: only `state` is worth keeping
    directory.mkdir()
    if not state.is_dir():
        remove(state)
        state.mkdir()
    return directory, state


def _how(execution: Execution, without_torch: bool) -> dict[str, dict[str, Any]]:
    """What a manifest says of how its artifact was computed."""
    instructions = {}
    if not without_torch:
        import torch

        instructions = {"instructions": torch.backends.cpu.get_cpu_capability()}
    return {
        "execution": {
            **execution.model_dump(include={"device", "threads", "sampling_batch_size"}),
            **execution.model_dump(include=HOW_TO_COMPUTE, exclude_defaults=True),
            **instructions,
        },
        "libraries": {
            "python": platform.python_version(),
            **{name: library_version(name) for name in LIBRARIES},
        },
    }
