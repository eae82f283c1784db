"""A plan of a preset whose data or base is not here yet: its sizes are known, its bytes are not.

Stages that depend on what is missing are named as no artifact ever is: no store has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

from flows.parameters import apply_overrides
from flows.presets import Preset
from sims_core.common.errors import BadInput
from sims_core.data.config import ImportedImages, ImportedSet
from sims_core.data.names import DATASETS
from sims_core.nets.base import ImageNet
from sims_core.nets.config import ImportedModel
from sims_core.nets.names import MODELS
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment

NO_DIGEST = "0" * 64
"""Of no file."""

LATENT_CHANNELS = 4
"""A network of so many channels sees latents of Stable Diffusion's autoencoder."""


@contextmanager
def with_stand_ins(
    preset: Preset, parameters: Mapping[str, Any], store: Store
) -> Iterator[tuple[Store, list[str]]]:
    """A store whose names stand for what the preset is made for, where `store` lacks them.

    Yields:
        The store to plan with (`store` itself if it lacks nothing), and a line for each thing that
        it lacks, with the command that brings it.
    """
    experiment = apply_overrides(preset.experiment, parameters["overrides"])
    missing = list(_missing(preset, experiment, parameters, store))
    if not missing:
        yield store, []
        return
    with TemporaryDirectory() as folder:
        named = Store(Path(folder))
        for names in (DATASETS, MODELS):
            with suppress(FileNotFoundError):
                shutil.copytree(store.root / names.folder, named.root / names.folder)
        for kind, name, _ in missing:
            if kind == "data":
                DATASETS.give(named, name, _data_set(experiment, parameters))
            else:
                model = ImportedModel(model=experiment.model, weights_sha256=NO_DIGEST)
                MODELS.give(named, name, model)
        yield named, [line for _, _, line in missing]


def _missing(
    preset: Preset, experiment: Experiment, parameters: Mapping[str, Any], store: Store
) -> Iterator[tuple[Literal["data", "model"], str, str]]:
    """What the preset itself names and the store lacks: its kind, its name and a line.

    Of another name, and of images that a preset's networks are fitted to, the sizes are not known.
    """
    needs = {need.data or need.model: need.line for need in preset.needs}
    data, base = experiment.data, experiment.base.imported
    if (
        isinstance(data, ImportedImages)
        and data == preset.experiment.data
        and not preset.fits_data
        and isinstance(experiment.model.net, ImageNet)
    ):
        with _told(needs, data.name) as lines:
            DATASETS.find(store, data.name)
        yield from (("data", data.name, line) for line in lines)
    models = [base] if base is not None and base == preset.experiment.base.imported else []
    asked = parameters.get("methods", [])
    guides = (m.imported for kind, m in experiment.methods.items() if kind in asked)
    models += [name for names in guides for name in names if name in needs]
    for name in models:
        with _told(needs, name) as lines:
            MODELS.find(store, name)
        yield from (("model", name, line) for line in lines)


@contextmanager
def _told(needs: Mapping[str | None, str], name: str) -> Iterator[list[str]]:
    """Catches that nothing has that name, and says what brings it."""
    lines: list[str] = []
    try:
        yield lines
    except BadInput as error:
        lines.append(needs.get(name, str(error)))


def _data_set(experiment: Experiment, parameters: Mapping[str, Any]) -> ImportedSet:
    """A set of such images as the experiment's network is for."""
    net = cast(ImageNet, experiment.model.net)
    channels, size, encoding = net.channels, net.image_size, None
    if channels == LATENT_CHANNELS:
        autoencoder = {"config": {}, "in_channels": 3, "latent_channels": channels}
        autoencoder |= {"downsampling": 8, "weights_sha256": NO_DIGEST}
        encoding = {"autoencoder": autoencoder, "encode": {}}
        channels, size = 3, 8 * size
    labels = [label for group in (parameters.get("groups") or {}).values() for label in group]
    contents = {
        "count": max(1_000_000, experiment.evaluation.num_images),
        "num_classes": net.num_classes or max(labels, default=9) + 1,
        **{"channels": channels, "height": size, "width": size},
    }
    return ImportedSet.model_validate(
        {
            "config": {"content": NO_DIGEST, "layout": "folder"},
            "contents": contents,
            "encoding": encoding,
        }
    )
