"""Names of imported and encoded sets: datasets/<name>.json in a store says what each stands for."""

from __future__ import annotations

from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.data.config import ImportedImages, ImportedSet
from sims_core.data.stages import import_request
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.names import Names
from sims_core.store.store import Store

DATASETS = Names(
    "data set",
    "datasets",
    ImportedSet,
    "sims data import SOURCE",
    hint=", with `size` N to crop and resize, or encode one that you have by `sims data encode`",
)


def check_name(name: str) -> str:
    """Raises BadInput unless `name` can be a data set's."""
    try:
        return ImportedImages(name=name).name
    except ValidationError as error:
        raise BadInput(f"`name`: {one_line(error).removeprefix('name: ')}") from None


def images_of(dataset: ImportedSet) -> ArtifactRef:
    """The artifact that a set's images, or raw latents of them, are in."""
    return import_request(dataset.config).ref


def check_images_are_whole(store: Store, name: str, dataset: ImportedSet) -> None:
    """Raises BadInput, with what mends it, if the images that a name stands for are damaged."""
    if damage := store.damage(images_of(dataset)):
        raise BadInput(f"{damage[0]}; run the `sims data import` again that made {name}")
