"""Stages that store somebody's model, or make one of two."""

from __future__ import annotations

from typing import Any

from sims_core.engine.stage import Stage
from sims_core.nets.config import ImportedModel, MergeConfig

IMPORT_MODEL = Stage(
    "import_model", 1, "model", ImportedModel, "sims_core.nets.importing:import_model"
)
MERGE = Stage("merge", 1, "model", MergeConfig, "sims_core.nets.merging:merge_models")

STAGES: tuple[Stage[Any], ...] = (IMPORT_MODEL, MERGE)
