"""The stage that brings somebody's model into the store."""

from __future__ import annotations

from typing import Any

from sims_core.engine.stage import Stage
from sims_core.nets.config import ImportedModel

IMPORT_MODEL = Stage(
    "import_model", 1, "model", ImportedModel, "sims_core.nets.importing:import_model"
)

STAGES: tuple[Stage[Any], ...] = (IMPORT_MODEL,)
