"""Whether everything in a store is as it was put there: one line for each thing that is not."""

from __future__ import annotations

from collections.abc import Iterator

from sims_core.common.errors import BadInput
from sims_core.data.names import DATASETS
from sims_core.latents.stages import modelled_by
from sims_core.nets.names import MODELS
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.reports.run_folder import problems_of_run
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.behind import is_evicted
from sims_core.store.store import Store, read_record


def problems(store: Store) -> list[str]:
    """Reads every byte of the artifacts, and what names, records and runs say of them.

    Paths are those in the store.
    """
    refs = store.artifacts()
    return [
        *(line for ref in refs if not is_evicted(store.root, ref) for line in store.damage(ref)),
        *_of_names(store),
        *_of_records(store, {ref.digest for ref in refs}),
        *_of_runs(store),
    ]


def _of_names(store: Store) -> Iterator[str]:
    for name in DATASETS.given(store):
        try:
            ref = modelled_by(DATASETS.find(store, name))
        except BadInput as error:
            yield str(error)
        else:
            yield from _missing(store, DATASETS.file(name), ref)
    for name in MODELS.given(store):
        try:
            ref = IMPORT_MODEL.request(MODELS.find(store, name)).ref
        except BadInput as error:
            yield str(error)
        else:
            yield from _missing(store, MODELS.file(name), ref)


def _missing(store: Store, file: str, ref: ArtifactRef) -> Iterator[str]:
    if not store.path(ref).exists():
        yield f"{ref.location}: missing, and {file} stands for it: import it again"


def _of_records(store: Store, present: set[str]) -> Iterator[str]:
    for path in sorted((store.root / "records").glob("*.json")):
        if read_record(path) is None:
            yield f"records/{path.name}: unreadable, or differs from its checksum"
        elif path.stem not in present:
            yield (
                f"artifacts/*/{path.stem}: missing, and records/{path.name} tells of it: run again "
                "what made it, or remove the record"
            )


def _of_runs(store: Store) -> Iterator[str]:
    for folder in sorted((store.root / "runs").glob("*")):
        if folder.is_dir():
            yield from (f"runs/{folder.name}/{line}" for line in problems_of_run(folder))
        else:
            yield f"runs/{folder.name}: no run's folder"
