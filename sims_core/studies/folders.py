"""Pictures at a path as a set of images that can be compared, without a name in a store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from warnings import warn

from pydantic import ValidationError

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.importing import ProfilesFound, imported_set, plan_import
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import Execution
from sims_core.store.artifacts import StageRequest
from sims_core.store.store import Store
from sims_core.store.version import VERSION_FILE
from sims_core.studies.comparison import ImageSource, of_imported

WARN = partial(warn, stacklevel=3)


def lies_outside(store: Store, name: str) -> bool:
    """Whether `name` is the path of something that is no part of this store or of another one,
    where pictures are previews and figures of reports."""
    with suppress(OSError):  # too long for a path, or a folder that is not ours
        path = Path(name).expanduser().resolve()
        folders = (path, *path.parents)
        is_in_one = store.root.resolve() in folders or any(map(_is_store, folders))
        return bool(name) and path.exists() and not is_in_one
    return False


def _is_store(folder: Path) -> bool:
    return (folder / VERSION_FILE).is_file() and (folder / "artifacts").is_dir()


def _run(store: Store, execution: Execution, request: StageRequest) -> None:
    run_stage(store, request, execution)


def import_folder(
    store: Store,
    execution: Execution,
    source: str | Path,
    size: int | None,
    channels: int | None,
    tell: Callable[[str], None] = WARN,
    run: Callable[[Store, Execution, StageRequest], object] = _run,
) -> ImageSource:
    """Imports what lies at `source`, unless the store has it.

    Args:
        tell: is told what is left out; a warning of the caller's caller, else.
        run: runs a stage, unless the store has its artifact.

    Raises:
        BadInput: it cannot be imported.
    """
    path = Path(source).expanduser().absolute()
    files = execution.files.model_copy(update={"imported": path})
    reading = execution.model_copy(update={"files": files})
    options: dict[str, Any] = {"split": None, "labels": None, "skip_broken": False}
    try:
        plan = plan_import(files, size=size, channels=channels, **options)
    except ValidationError:
        raise BadInput(f"size {size} must be 4 to 4096 and channels {channels} 1 or 3") from None
    for left_out, each in plan.left_out.row().items():
        tell(f"{path}: not imported: {each['count']} x {left_out}")
    config = plan.config
    try:
        run(store, reading, IMPORT.request(config))
    except ProfilesFound:
        config = config.model_copy(update={"srgb": True})
        run(store, reading, IMPORT.request(config))
    dataset = imported_set(config, store.open_artifact(IMPORT.request(config).ref))
    return replace(of_imported(store, "images", dataset), name=str(source))
