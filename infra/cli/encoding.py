"""How `sims data encode` turns images, or raw latents, into latents: what its options mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sims_core.common.errors import BadInput

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.data.config import EncodeConfig, ImportedSet
    from sims_core.engine.execution import Execution
    from sims_core.store.store import Store


def reading(imported: Path, labels: Path | None = None) -> Execution:
    """How this machine runs a stage that reads what is being imported."""
    from sims_core.settings import Settings

    execution = Settings.read().execution()
    update = {"imported": imported.expanduser().absolute(), "labels": labels}
    return execution.model_copy(update={"files": execution.files.model_copy(update=update)})


def scaling_asked(store: Store, scaling: str | None, model: str | None, seed: int) -> EncodeConfig:
    """How latents are scaled, by `--scaling` or `--scaling-of`."""
    from sims_core.data.config import EncodeConfig
    from sims_core.latents.fixed_scaling import edm2_scaling, scaling_of

    if model is not None and scaling is not None:
        raise BadInput("pass --scaling or --scaling-of, not both")
    if model is not None:
        return scaling_of(store, model, seed)
    if scaling == "edm2":
        return edm2_scaling(seed)
    return EncodeConfig.model_validate({"scaling": scaling or "standardized", "seed": seed})


def encode_images(
    store: Store, images: ImportedSet, folder: Path, config: EncodeConfig
) -> tuple[ImportedSet, bool]:
    """Imports the autoencoder and runs the stage, unless the store has their artifacts."""
    from infra.cli.progress import run_shown
    from sims_core.data.config import Encoding
    from sims_core.data.names import images_of
    from sims_core.latents.autoencoder import check_images_fit, find_autoencoder
    from sims_core.latents.fixed_scaling import check_channels
    from sims_core.latents.stages import IMPORT_AUTOENCODER, encode_request

    execution = reading(folder)
    autoencoder = find_autoencoder(folder.expanduser())
    check_images_fit(autoencoder, images.contents)
    check_channels(config, autoencoder)
    encoding = Encoding(autoencoder=autoencoder, encode=config)
    encoded = encode_request(images_of(images), encoding)
    cached = run_shown(store, execution, IMPORT_AUTOENCODER.request(autoencoder), encoded)
    return images.model_copy(update={"encoding": encoding}), cached


def draw_raw_latents(
    store: Store, file: Path, folder: Path, config: EncodeConfig
) -> tuple[ImportedSet, bool, dict[str, Any]]:
    """Imports autoencoder and raw latents, and draws from them, unless the store has all that."""
    from infra.cli.progress import run_shown
    from sims_core.data.config import Encoding, ImportedSet
    from sims_core.data.names import images_of
    from sims_core.data.raw_latents import open_raw_latents
    from sims_core.data.stages import import_request
    from sims_core.latents.autoencoder import find_autoencoder, images_of_raw_latents
    from sims_core.latents.fixed_scaling import check_channels
    from sims_core.latents.stages import IMPORT_AUTOENCODER, encode_request

    autoencoder, source = find_autoencoder(folder.expanduser()), open_raw_latents(file)
    classes = 1 + max(source.labels or (), default=-1)
    contents = images_of_raw_latents(autoencoder, len(source.names), classes, source.shape)
    check_channels(config, autoencoder)
    encoding = Encoding(autoencoder=autoencoder, encode=config)
    dataset = ImportedSet(config=source.config, contents=contents, encoding=encoding)
    run_shown(store, reading(file), import_request(dataset.config))
    encoded = encode_request(images_of(dataset), encoding)
    cached = run_shown(store, reading(folder), IMPORT_AUTOENCODER.request(autoencoder), encoded)
    return dataset, cached, source.left_out.row()
