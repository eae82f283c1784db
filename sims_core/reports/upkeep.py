"""What a store holds and for whom, and what may go."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.common.files import is_partial, remove
from sims_core.data.names import DATASETS, images_of
from sims_core.latents.stages import IMPORT_AUTOENCODER, modelled_by
from sims_core.nets.names import MODELS
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.reports.run_folder import artifacts_of_run, lock_run
from sims_core.store.artifacts import ArtifactRef, Manifest
from sims_core.store.cache import decoded_folders, decoding, decoding_lock, disk_bytes
from sims_core.store.leases import gate, is_held, leased, sweep_locks
from sims_core.store.store import TEMPORARY, Store

DAY_S = 86_400.0
WRITTEN_IN = (
    ".",
    "records",
    "results",
    "datasets",
    "models",
    "runs/*",
    "runs/*/now",
    "locks",
    "cache/decoded/*",
)
"""Folders in which single files are given their names, or tried for whether they can be written."""
NAMES = "(names)"
"""Who needs what was imported under a name, beside the runs; no run can be called that."""


@dataclass(frozen=True)
class Held:
    """Every artifact of a store and who needs it."""

    manifests: dict[str, Manifest | None]
    """By location; None: it is damaged."""
    needed: dict[str, set[str]]
    """Locations by who needs them: a run's name, or NAMES; what those were made of included."""
    unclear: list[str] = field(default_factory=list)
    """Runs that need more than their folders tell."""

    def bytes_of(self, locations: Iterable[str]) -> int:
        """What they hold, as their manifests say."""
        manifests = (self.manifests.get(location) for location in locations)
        return sum(e.size for m in manifests if m is not None for e in m.files.values())

    def alone(self, who: str) -> set[str]:
        """What nobody else needs."""
        return {location for location in self.needed[who] if self._needing[location] == 1}

    @cached_property
    def _needing(self) -> Counter[str]:
        """How many need each."""
        return Counter(location for needed in self.needed.values() for location in needed)

    @property
    def unneeded(self) -> set[str]:
        """What no run and no name needs."""
        return set(self.manifests).difference(*self.needed.values())

    def with_origins(self, locations: Iterable[str]) -> set[str]:
        """These and all that they were made of, as far as it is there."""
        found: set[str] = set()
        waiting = [each for each in locations if each in self.manifests]
        while waiting:
            location = waiting.pop()
            if location not in found:
                found.add(location)
                manifest = self.manifests[location]
                inputs = manifest.request.inputs.values() if manifest is not None else ()
                waiting += [ref.location for ref in inputs if ref.location in self.manifests]
        return found


def look(store: Store) -> Held:
    """Reads every manifest, name and run's folder; no file of an artifact beside."""
    manifests: dict[str, Manifest | None] = {}
    for ref in store.artifacts():
        try:
            manifests[ref.location] = store.manifest(ref)
        except DamagedArtifact:
            manifests[ref.location] = None
    held = Held(manifests, {})
    refs = (ref for found in named(store).values() for ref in found)
    held.needed[NAMES] = held.with_origins(ref.location for ref in refs)
    for folder in sorted((store.root / "runs").glob("*")):
        if folder.is_dir():
            told, is_all = artifacts_of_run(folder)
            held.needed[folder.name] = held.with_origins(told)
            if not is_all:
                held.unclear.append(folder.name)
    return held


def named(store: Store) -> dict[str, list[ArtifactRef]]:
    """What each name stands for, by its file in the store.

    Raises:
        BadInput: a name's file is damaged: what it stands for is not known, and must not go.
    """
    found = dict[str, list[ArtifactRef]]()
    for name in DATASETS.given(store):
        dataset = DATASETS.find(store, name)
        refs = [images_of(dataset), modelled_by(dataset)]  # also where the latents are damaged
        if dataset.encoding is not None:
            refs.append(IMPORT_AUTOENCODER.request(dataset.encoding.autoencoder).ref)
        found[DATASETS.file(name)] = refs
    for name in MODELS.given(store):
        found[MODELS.file(name)] = [IMPORT_MODEL.request(MODELS.find(store, name)).ref]
    return found


def by(held: Held, what: str) -> dict[str, tuple[int, int]]:
    """Number and bytes of the artifacts by `kind` or `stage`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for location, manifest in held.manifests.items():
        stage = manifest.request.stage if manifest is not None else "damaged"
        groups[location.split("/")[1] if what == "kind" else stage].append(location)
    return {name: (len(group), held.bytes_of(group)) for name, group in sorted(groups.items())}


def decoded_of(store: Store, locations: Iterable[str]) -> list[Path]:
    """The folders of the decoded training sets of these artifacts."""
    digests = {location.rpartition("/")[2] for location in locations}
    return [folder for folder in decoded_folders(store.root) if folder.name in digests]


@dataclass
class Gone:
    """What was removed, or would be."""

    artifacts: list[str] = field(default_factory=list)
    bytes: int = 0
    decoded: list[str] = field(default_factory=list)
    """Folders of decoded training sets, by their paths in the store."""
    decoded_bytes: int = 0
    leftovers: list[str] = field(default_factory=list)
    """Other things, by their paths in the store: of kills, and of artifacts that are not there."""


def collect(store: Store, older_than_days: float, dry_run: bool) -> Gone:
    """Removes what no run, no name and no running work needs and is older than so many days.

    Unfinished work stays: a run may go on with it.

    Raises:
        BadInput: a name's file is damaged, or what a run needs is not known.
    """
    gone, trash = Gone(), list[Path]()
    with gate(store):
        swept = sweep_locks(store, dry_run)
        gone.leftovers += [path.relative_to(store.root).as_posix() for path in swept]
        running = leased(store)
        held = look(store)
        if held.unclear:
            raise BadInput(
                f"what run {held.unclear[0]} needs is not known: its folder is damaged or an "
                "older program drew it; run it again (all is cached), or remove it"
            )
        candidates = held.unneeded - held.with_origins(running) - running
        before = time.time() - older_than_days * DAY_S
        for location in sorted(candidates):
            path = store.root / location
            lock = store.root / "locks" / f"{path.name}.lock"
            if not _is_older(path, before) or _is_busy(lock):
                continue
            gone.artifacts.append(location)
            gone.bytes += held.bytes_of([location])
            if not dry_run:
                trash.append(_throw(store, path))
        kept = set(held.manifests) - set(gone.artifacts)
        for folder in _useless_sets(store, kept | running, before):
            gone.decoded.append(folder.relative_to(store.root).as_posix())
            gone.decoded_bytes += disk_bytes(folder)
            if not dry_run:
                with decoding(store.root, folder.name, folder.name):
                    remove(folder)
        leftovers = _leftovers(store, kept, before)
        gone.leftovers += [path.relative_to(store.root).as_posix() for path in leftovers]
        if not dry_run:
            trash += [_throw(store, path) for path in leftovers if path.parent.name == "progress"]
            for path in leftovers:
                remove(path)
    for path in trash:  # slow, and nobody's concern any more; who opens the store sweeps as well
        with suppress(FileNotFoundError):
            remove(path)
    return gone


def _useless_sets(store: Store, kept: set[str], before: float) -> list[Path]:
    """Decoded training sets of artifacts that are not kept; not what somebody decodes, or has
    decoded of late. Who has one mapped keeps what it has."""
    needed = decoded_of(store, kept)
    found = [folder for folder in decoded_folders(store.root) if folder not in needed]
    return [
        folder
        for folder in found
        if _is_older(folder, before) and not _is_busy(decoding_lock(store.root, folder.name))
    ]


def _is_busy(lock: Path) -> bool:
    """Whether somebody holds this lock; where it has no file, nobody does."""
    try:
        return is_held(lock)
    except FileNotFoundError:
        return False


def _throw(store: Store, path: Path) -> Path:
    """Takes something away in one step; the caller removes it when there is time."""
    trash = store.root / "progress" / f"trash-{uuid.uuid4().hex}"
    os.replace(path, trash)
    return trash


def _leftovers(store: Store, present: set[str], before: float) -> list[Path]:
    """Records and Prefect's results of artifacts that are gone; what kills left of renamings, and
    of files that were written beside their names."""
    digests = {location.rpartition("/")[2] for location in present}
    found = [
        path
        for path in (*(store.root / "records").glob("*.json"), *(store.root / "results").glob("*"))
        if len(path.stem) == 64 and path.stem not in digests and path.is_file()
    ]
    made = [p for pattern in TEMPORARY for p in (store.root / "progress").glob(pattern)]
    for pattern in WRITTEN_IN:
        with suppress(FileNotFoundError):  # a run's folder has been drawn anew meanwhile
            made += [path for path in store.root.glob(f"{pattern}/*") if is_partial(path)]
    # These are in use for moments while somebody works, whatever is asked for.
    settled = min(before, time.time() - DAY_S)
    return [
        *(path for path in found if _is_older(path, before)),
        *(path for path in made if _is_older(path, settled)),
    ]


def _is_older(path: Path, moment: float) -> bool:
    """Whether it is there, and has not changed since."""
    try:
        return path.lstat().st_mtime <= moment
    except FileNotFoundError:
        return False


def remove_run(store: Store, folder: Path) -> int:
    """Removes what people look at of a run; returns the bytes that it alone needed, for `collect`.

    Raises:
        BadInput: the run is of another store.
    """
    if folder.parent != store.root / "runs":
        raise BadInput(f"{folder} is no run of the store {store.root}: pass its `store`")
    held = look(store)
    freed = held.bytes_of(held.alone(folder.name))
    with lock_run(store, folder):
        trash = _throw(store, folder)
    shutil.rmtree(trash, ignore_errors=True)  # who opens the store sweeps as well
    return freed
