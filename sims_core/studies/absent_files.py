"""What the stages of a plan will read on this machine and is not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pkgutil import resolve_name
from typing import Any

from sims_core.data.config import KnownImages
from sims_core.data.known_sets import KNOWN_SETS
from sims_core.data.stages import PREPARE_KNOWN
from sims_core.engine.execution import DataFiles
from sims_core.evaluation.config import ExtractorConfig
from sims_core.evaluation.stages import EXTRACTOR
from sims_core.evaluation.weights import IN_DATA_FOLDER, OFFICIAL_INCEPTION, find_weights
from sims_core.store.artifacts import StageRequest

SIZES = {"cifar10": "170 MB", "mnist": "12 MB", "fashion": "31 MB"}
"""What the publishers' files of the known sets take."""
INCEPTION_SIZE = "96 MB"


def absent_files(requests: Iterable[StageRequest], files: DataFiles) -> list[str]:
    """A sentence for each known data set and each network of features that is not on this machine:
    what fetches it, or where it must lie.

    Args:
        requests: stages that are to be computed.
        files: where this machine looks.

    Raises:
        BadInput: SIMS_INCEPTION_WEIGHTS names a file that does not exist.
    """
    said: dict[str, None] = {}
    for request in requests:
        if request.stage == PREPARE_KNOWN.name:
            said[_absent_set(KnownImages.model_validate(request.config), files)] = None
        elif request.stage == EXTRACTOR.name:
            said[_absent_weights(ExtractorConfig.model_validate(request.config), files)] = None
    return [sentence for sentence in said if sentence]


def _absent_set(config: KnownImages, files: DataFiles) -> str:
    find: Callable[..., Any] = resolve_name("sims_core.data.known:find")  # needs numpy
    if find(config, files.source) or (files.downloads and find(config, files.downloads)):
        return ""
    known = KNOWN_SETS[config.source]
    return (
        f"{config.source} ({SIZES[config.source]}) is not on this machine: the run fetches it from "
        f"its publisher, or {known.advice} and set SIMS_DATA to it"
    )


def _absent_weights(config: ExtractorConfig, files: DataFiles) -> str:
    if find_weights(config.features, files):
        return ""
    place = f"SIMS_DATA to a folder with {IN_DATA_FOLDER[config.features]}"
    where = f"the weights of {config.features}"
    if config.sha256 == OFFICIAL_INCEPTION:
        return (
            f"{where} ({INCEPTION_SIZE}) are not on this machine: the run fetches them by "
            f"torch-fidelity, or set SIMS_INCEPTION_WEIGHTS to their file, or {place}"
        )
    return f"{where} are not on this machine, and nothing fetches them: set {place}"
