"""Stages that train a model."""

from __future__ import annotations

from typing import Any

from sims_core.engine.stage import Stage
from sims_core.training.config import SnapshotConfig, TrainStageConfig


def _is_tiny(config: TrainStageConfig) -> bool:
    return config.model.net.TINY


TRAIN = Stage(
    "train",
    1,
    "model",
    TrainStageConfig,
    "sims_core.training.compute:train_model",
    one_thread=_is_tiny,
    accelerated=True,
)
SNAPSHOT = Stage(
    "snapshot", 1, "model", SnapshotConfig, "sims_core.training.model_files:take_snapshot"
)

STAGES: tuple[Stage[Any], ...] = (TRAIN, SNAPSHOT)
