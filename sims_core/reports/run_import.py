"""Takes a run from an archive (run_archive.py) into a store.

Nothing of an archive has a name in the store before all of it was checked. That it was computed as
it says cannot be checked: who imports one trusts who exported it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from sims_core.common.errors import BadInput, StoreError
from sims_core.common.files import explain_disk_errors, full_message, sync, sync_name
from sims_core.common.frozen import one_line
from sims_core.common.hostile import only_our_errors, regular
from sims_core.common.shown import shown
from sims_core.data.bounded_tar import opened
from sims_core.data.names import DATASETS
from sims_core.nets.names import MODELS
from sims_core.reports.run_archive import (
    FORMAT,
    LIST_FILE,
    NAME,
    RECORD,
    RUN,
    Listed,
    Moved,
    inside_path,
)
from sims_core.reports.run_folder import DRAWN_FILE, artifacts_of_run, lock_run, problems_of_run
from sims_core.reports.upkeep import named
from sims_core.store.artifacts import ArtifactRef, FileEntry, Manifest
from sims_core.store.leases import needing
from sims_core.store.names import Names
from sims_core.store.store import Store, read_record

LONGEST_LIST = 1 << 25
LONGEST_MANIFEST = 1 << 26
CHUNK = 1 << 20


def import_run(store: Store, archive: Path) -> Moved:
    """Takes the run that `export_run` wrote to a file, and what of its artifacts is not there.

    Raises:
        BadInput: the file is no such archive, or not as it was written; or the store has another
            run, data set or model of a name that it brings.
        StoreError: the disk is full.
    """
    place = store.root / "progress" / f"import-{uuid.uuid4().hex}"
    with explain_disk_errors(store.root):
        try:
            regular(archive)
            with only_our_errors(archive), _faults_of(archive), opened(archive, "r:") as tar:
                size = archive.stat().st_size
                if shutil.disk_usage(store.root).free < size:
                    raise StoreError(full_message(store.root))
                place.mkdir()
                listed = _read_list(tar)
                manifests = _read(tar, listed, place)
                _check(listed, manifests, place)
            with needing(store, manifests):
                _check_names(store, listed, place)
                sync(place)
                new = sum(_take(store, ref, place) for ref in manifests)
                names = [name for name in listed.members if NAME.fullmatch(name)]
                for name in names:
                    (store.root / name).parent.mkdir(exist_ok=True)
                    os.replace(place / name, store.root / name)
                    sync_name(store.root / name)
                _take_run(store, listed, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)  # who opens the store sweeps as well
    return Moved(listed.run, len(manifests), new, size, names)


@contextmanager
def _faults_of(archive: Path) -> Iterator[None]:
    """Says of which file a fault is, and what is wanted."""
    try:
        yield
    except BadInput as error:
        raise BadInput(
            f"{shown(archive)} is not as `sims runs export` writes a run: {error}"
        ) from None


def _next(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """The header of the next member, which has this name and is a file."""
    member = tar.next()
    if member is None:
        raise BadInput(f"it ends before {shown(name)}")
    if member.name != name:
        raise BadInput(f"{shown(member.name)} is where {shown(name)} should be")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise BadInput(f"{shown(name)} is no plain file")
    return member


def _read_list(tar: tarfile.TarFile) -> Listed:
    member = _next(tar, LIST_FILE)
    if member.size > LONGEST_LIST:
        raise BadInput(f"its list has {member.size} bytes")
    content = _file(tar, member).read(LONGEST_LIST)
    try:
        listed = Listed.model_validate_json(content)
    except ValidationError as error:
        raise BadInput(f"its list: {shown(one_line(error), 300)}") from None
    if listed.sims_export != FORMAT:
        raise BadInput(
            f"its list is of version {listed.sims_export}, and this program reads {FORMAT}"
        )
    if not listed.checksum or not listed.is_intact():
        raise BadInput("its list differs from its checksum")
    if "/" in listed.run or listed.run.startswith("."):
        raise BadInput(f"its run's name is {shown(listed.run)}")
    locations = {ref.location for ref in listed.refs.values()}
    digests = {ref.digest for ref in listed.refs.values()}
    for name in listed.members:
        record = RECORD.fullmatch(name)
        if not (
            name in listed.refs
            or name.startswith(f"{RUN}/")
            or (record and record[1] in digests)
            or NAME.fullmatch(name)
        ):
            raise BadInput(f"its list names {shown(name)}")
    for name, location in listed.links.items():
        if location not in locations:
            raise BadInput(f"its link {shown(name)} leads to {shown(location)}")
    return listed


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise BadInput(f"{shown(member.name)} is no plain file")
    return file


def _read(tar: tarfile.TarFile, listed: Listed, place: Path) -> dict[ArtifactRef, Manifest]:
    """Puts every file under `place`, if it is what the list or its manifest says; the manifests."""
    refs, manifests = listed.refs, dict[ArtifactRef, Manifest]()
    for name, entry in listed.members.items():
        if name in refs and entry.size > LONGEST_MANIFEST:
            raise BadInput(f"{shown(name)} has {entry.size} bytes")
        _extract(tar, name, entry, place)
        if name in refs:
            manifest = Store(place).manifest(refs[name])
            manifests[refs[name]] = manifest
            for inside in sorted(manifest.files):
                _extract(tar, f"{refs[name].location}/{inside}", manifest.files[inside], place)
    if (more := tar.next()) is not None:
        raise BadInput(f"{shown(more.name)} is more than it lists")
    return manifests


def _extract(tar: tarfile.TarFile, name: str, entry: FileEntry, place: Path) -> None:
    """Writes one member's bytes to its path under `place`, which nothing else has."""
    member = _next(tar, name)
    path = place / inside_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, file, left = hashlib.sha256(), _file(tar, member), entry.size
    if member.size != entry.size:
        raise BadInput(f"{shown(name)}: {member.size} bytes instead of {entry.size}")
    with path.open("xb") as written:
        while left and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            written.write(chunk)
            left -= len(chunk)
    if left or digest.hexdigest() != entry.sha256:
        raise BadInput(f"{shown(name)}: content differs from its SHA-256")


def _check(listed: Listed, manifests: dict[ArtifactRef, Manifest], place: Path) -> None:
    """Whether what was read makes a run."""
    for name in listed.members:
        if RECORD.fullmatch(name) and read_record(place / name) is None:
            raise BadInput(f"{shown(name)}: unreadable, or differs from its checksum")
    for name, refs in named(Store(place)).items():
        if missing := [ref for ref in refs if ref not in manifests]:
            raise BadInput(f"{shown(name)} stands for {missing[0].short}, which is not in it")
    folder = place / RUN
    if problems := problems_of_run(folder):
        raise BadInput(f"its run: {shown(problems[0])}")
    told, is_all = artifacts_of_run(folder)
    missing_ones = sorted(told - {ref.location for ref in manifests})
    if missing_ones or not is_all:
        raise BadInput(f"its run needs {shown((missing_ones or ['more'])[0])}, which is not in it")


def _check_names(store: Store, listed: Listed, place: Path) -> None:
    """Raises BadInput if the store has another run, data set or model of the same name."""
    brought = Store(place)
    kinds: dict[str, Names[Any]] = {DATASETS.folder: DATASETS, MODELS.folder: MODELS}
    for path in listed.members:
        if (match := NAME.fullmatch(path)) is None:
            continue
        names, name = kinds[match[1]], match[2]
        if not (store.root / path).exists():
            continue
        if names.stands_for(store, name) != names.find(brought, name):
            raise BadInput(
                f"the store has a {names.what} {shown(name)} that is not the archive's: give it "
                f"another name, and remove {store.root / path}"
            )
    folder = store.root / "runs" / listed.run
    if os.path.lexists(folder) and not _is_the_same(folder, place / RUN):
        raise BadInput(
            f"the store has a run {shown(listed.run)} that is not the archive's: remove it by "
            f"`sims runs rm {shown(listed.run)}`"
        )


def _is_the_same(folder: Path, brought: Path) -> bool:
    try:
        return (folder / DRAWN_FILE).read_bytes() == (brought / DRAWN_FILE).read_bytes()
    except OSError:
        return False


def _take(store: Store, ref: ArtifactRef, place: Path) -> bool:
    """Gives an artifact its name, and its record; whether the store did not have it."""
    with store.lock(ref):
        is_new = not store.is_whole(ref)
        if is_new:
            store.swap_in(place / ref.location, store.path(ref))
        record = read_record(place / "records" / f"{ref.digest}.json")
        if record is not None and (is_new or store.record(ref) is None):
            store.write_record(ref, record)
        store.settle(ref)
    return is_new


def _take_run(store: Store, listed: Listed, place: Path) -> None:
    """Puts the run's folder under runs/, with its links."""
    target, made = store.root / "runs" / listed.run, place / RUN
    with lock_run(store, target):
        if target.is_dir():  # the same one
            return
        for name, location in listed.links.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            leads = os.path.relpath(store.root / location, (target / name).parent)
            (made / name).symlink_to(leads)
        sync(made)
        store.swap_in(made, target)
