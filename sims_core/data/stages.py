"""Stages that store real data, and that mix real with synthetic data."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from sims_core.data.config import (
    RAW_LATENTS,
    DigitsData,
    ImageData,
    ImportConfig,
    KnownImages,
    MixConfig,
    MixtureSourceConfig,
    PickConfig,
    PointSourceConfig,
)
from sims_core.data.groups import RejectConfig, ReweighConfig
from sims_core.engine.stage import Stage
from sims_core.store.artifacts import StageRequest

PREPARE = Stage("prepare", 1, "images", DigitsData, "sims_core.data.digits:prepare")
PREPARE_KNOWN = Stage(
    "prepare_known", 1, "images", KnownImages, "sims_core.data.known:prepare_known"
)
IMPORT = Stage(
    *("import", 1, "images", ImportConfig, "sims_core.data.importing:import_images"),
    without_torch=True,
)
IMPORT_LATENTS = Stage(
    "import_latents",
    1,
    "latents",
    ImportConfig,
    "sims_core.data.raw_latents:import_raw_latents",
)
PICK = Stage("pick", 1, "images", PickConfig, "sims_core.data.picking:pick")
MIX = Stage("mix", 1, "mix", MixConfig, "sims_core.data.mixing:mix")
PREPARE_POINTS = Stage(
    "prepare_points", 1, "points", PointSourceConfig, "sims_core.data.points:prepare_points"
)
PREPARE_MIXTURE = Stage(
    "prepare_mixture",
    1,
    "points",
    MixtureSourceConfig,
    "sims_core.data.mixtures:prepare_mixture",
)
REWEIGH = Stage("reweigh", 1, "images", ReweighConfig, "sims_core.data.reweighing:reweigh")
REJECT = Stage("reject", 1, "images", RejectConfig, "sims_core.data.reweighing:reject")
REWEIGH_POINTS = Stage(
    "reweigh_points", 1, "points", ReweighConfig, "sims_core.data.reweighing:reweigh_points"
)
REJECT_POINTS = Stage(
    "reject_points", 1, "points", RejectConfig, "sims_core.data.reweighing:reject_points"
)

STAGES: tuple[Stage[Any], ...] = (
    *(PREPARE, PREPARE_KNOWN, IMPORT, IMPORT_LATENTS, PICK, MIX, PREPARE_POINTS),
    *(PREPARE_MIXTURE, REWEIGH, REJECT, REWEIGH_POINTS, REJECT_POINTS),
)


def import_request(config: ImportConfig) -> StageRequest:
    """The stage that stores a user's own images, or raw latents of images."""
    stage = IMPORT_LATENTS if config.layout == RAW_LATENTS else IMPORT
    return stage.request(config)


def data_request(data: ImageData) -> StageRequest:
    """The stage that stores the real images, or raw latents in their place.

    Raises:
        BadInput: they were imported under a name that nobody has looked up in a store.
    """
    config = data.stage_config
    if isinstance(config, ImportConfig):
        return import_request(config)
    stage: Stage[Any] = resolve_name(data.STAGE)
    return stage.request(config)
