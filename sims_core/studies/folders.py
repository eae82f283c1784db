"""A folder of pictures as a set of images that can be compared, without a name in a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import warn

from pydantic import ValidationError

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.importing import ProfilesFound, imported_set, plan_import
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import Execution
from sims_core.store.store import Store
from sims_core.studies.comparison import ImageSource, of_imported


def import_folder(
    store: Store, execution: Execution, source: str | Path, size: int | None, channels: int | None
) -> ImageSource:
    """Imports what lies at `source`, unless the store has it. What is left out is a warning.

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
        warn(f"{path}: not imported: {each['count']} x {left_out}", stacklevel=3)
    config = plan.config
    try:
        ref = run_stage(store, IMPORT.request(config), reading)
    except ProfilesFound:
        config = config.model_copy(update={"srgb": True})
        ref = run_stage(store, IMPORT.request(config), reading)
    dataset = imported_set(config, store.open_artifact(ref))
    return replace(of_imported(store, "images", dataset), name=str(source))
