"""Names of imported and encoded sets: datasets/<name>.json in a store says what each stands for."""

from __future__ import annotations

from pydantic import ValidationError

from sims_core.config import Experiment, ImportedImages, ImportedSet, one_line
from sims_core.errors import BadInput
from sims_core.loop import encode_request
from sims_core.names import Names
from sims_core.stages import IMPORT
from sims_core.store import ArtifactRef, Store

DATASETS = Names(
    "data set",
    "datasets",
    ImportedSet,
    "sims data import SOURCE",
    hint=", with --size N to crop and resize, or encode one that you have by `sims data encode`",
)


def check_name(name: str) -> str:
    """Raises BadInput unless `name` can be a data set's."""
    try:
        return ImportedImages(name=name).name
    except ValidationError as error:
        raise BadInput(f"--name: {one_line(error).removeprefix('name: ')}") from None


def images_of(dataset: ImportedSet) -> ArtifactRef:
    """The artifact that a set's images are in."""
    return IMPORT.request(dataset.config).ref


def modelled_by(dataset: ImportedSet) -> ArtifactRef:
    """The artifact that networks of a set are trained on: its images or their latents."""
    images = images_of(dataset)
    return images if dataset.encoding is None else encode_request(images, dataset.encoding).ref


def check_images_are_whole(store: Store, name: str, dataset: ImportedSet) -> None:
    """Raises BadInput, with what mends it, if the images that a name stands for are damaged."""
    if damage := store.damage(images_of(dataset)):
        raise BadInput(f"{damage[0]}; run the `sims data import` again that brought {name}")


def _check_sigma_data(experiment: Experiment, store: Store, dataset: ImportedSet) -> None:
    """Raises BadInput if the model expects latents of quite another deviation than the set has."""
    ref = modelled_by(dataset)
    if dataset.encoding is None or not store.path(ref).exists():
        return
    found, expected = store.manifest(ref).details["sigma_data"], experiment.model.sigma_data
    if not 0.8 < expected / found < 1.25:
        raise BadInput(
            f"model.sigma_data is {expected:g}, the deviation of these latents is {found:g}: set "
            f"model.sigma_data={found:g}"
        )


def resolve_data(experiment: Experiment, store: Store) -> Experiment:
    """The experiment with its imported data set, if it has one, looked up in the store.

    Raises:
        BadInput: it was not imported, or the model or the evaluation does not fit it.
    """
    data = experiment.data
    if not isinstance(data, ImportedImages):
        return experiment
    found = data.model_copy(update={"imported": DATASETS.find(store, data.name)})
    if found.imported is not None:
        _check_sigma_data(experiment, store, found.imported)
    try:
        return Experiment.model_validate({**dict(experiment), "data": found})
    except ValidationError as error:
        raise BadInput(f"data set {data.name}: {one_line(error).removeprefix('value: ')}") from None
