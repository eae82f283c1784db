"""Names of imported data sets: datasets/<name>.json in a store says what each stands for."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sims_core.config import Experiment, ImportedImages, ImportedSet, one_line
from sims_core.errors import BadInput
from sims_core.stages import IMPORT
from sims_core.store import ArtifactRef, Store, write_atomically


def _path(store: Store, name: str) -> Path:
    return store.root / "datasets" / f"{name}.json"


def check_name(name: str) -> str:
    """Raises BadInput unless `name` can be a data set's."""
    try:
        return ImportedImages(name=name).name
    except ValidationError as error:
        raise BadInput(f"--name: {one_line(error).removeprefix('name: ')}") from None


def images_of(dataset: ImportedSet) -> ArtifactRef:
    """The artifact that an imported set's images are in."""
    return IMPORT.request(dataset.config).ref


def name_dataset(store: Store, name: str, dataset: ImportedSet) -> None:
    """Lets `name` stand for `dataset` from now on."""
    path = _path(store, name)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, dataset.model_dump_json())


def find_dataset(store: Store, name: str) -> ImportedSet:
    """What `name` stands for.

    Raises:
        BadInput: nothing was imported under that name; says how to.
    """
    try:
        return ImportedSet.model_validate_json(_path(store, name).read_bytes())
    except FileNotFoundError:
        known = ", ".join(dataset_names(store)) or "none yet"
        raise BadInput(
            f"no data set {name!r} in the store {store.root} (imported: {known}); bring it by "
            f"`sims data import SOURCE --name {name}`, with --size N to crop and resize"
        ) from None
    except ValidationError:
        raise BadInput(
            f"{_path(store, name)} is unreadable: import {name} again by "
            f"`sims data import SOURCE --name {name}`"
        ) from None


def dataset_names(store: Store) -> list[str]:
    """Every name that was given, in order."""
    return sorted(path.stem for path in (store.root / "datasets").glob("*.json"))


def resolve_data(experiment: Experiment, store: Store) -> Experiment:
    """The experiment with its imported data set, if it has one, looked up in the store.

    Raises:
        BadInput: it was not imported, or the model or the evaluation does not fit it.
    """
    data = experiment.data
    if not isinstance(data, ImportedImages):
        return experiment
    found = data.model_copy(update={"imported": find_dataset(store, data.name)})
    try:
        return Experiment.model_validate({**dict(experiment), "data": found})
    except ValidationError as error:
        raise BadInput(f"data set {data.name}: {one_line(error).removeprefix('value: ')}") from None
