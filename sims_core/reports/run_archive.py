"""A run and all that it was made of as one archive, from which another machine goes on.

The archive is a plain tar. Its first member, export.json, lists what follows, in that order, with
sizes and SHA-256; an artifact's files follow its manifest, which vouches for them. Nothing else is
read. Links of the run's folder are made anew from their list: the archive has none. The same run is
the same archive, to the byte.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from pydantic import AfterValidator

from sims_core.common.errors import BadInput
from sims_core.common.files import explain_disk_errors, stays_inside, sync, sync_name
from sims_core.common.sealed import Sealed
from sims_core.reports.run_folder import links_of_run, lock_run, problems_of_run
from sims_core.reports.upkeep import look, named
from sims_core.store.artifacts import MANIFEST_FILE, ArtifactRef, FileEntry, Manifest
from sims_core.store.leases import needing
from sims_core.store.store import Store

LIST_FILE = "export.json"
FORMAT = 1
RUN = "run"
"""Folder of the run's own files in an archive."""
MOST_PARTS = 16
LONGEST_PART = 200
"""Of a path in an archive: how many, and how many bytes each."""
MANIFEST = re.compile(rf"artifacts/([a-z][a-z0-9_]*)/([0-9a-f]{{64}})/{re.escape(MANIFEST_FILE)}")
RECORD = re.compile(r"records/([0-9a-f]{64})\.json")
NAME = re.compile(r"(datasets|models)/([^/]+)\.json")


def inside_path(path: str) -> str:
    """A path that stays where it begins, on every system."""
    if path.count("/") >= MOST_PARTS or not stays_inside(path, LONGEST_PART):
        raise ValueError("no path inside an archive")
    return path


Inside = Annotated[str, AfterValidator(inside_path)]


class Listed(Sealed):
    """What an archive holds beside the files of artifacts, in its order."""

    sims_export: int
    """Version of this list."""
    run: Inside
    members: dict[Inside, FileEntry]
    """Manifests, what others are made of first; records; names; the run's files under `run/`."""
    links: dict[Inside, str]
    """Where each link of the run's folder leads: an artifact's location."""

    @property
    def refs(self) -> dict[str, ArtifactRef]:
        """Each artifact, by its manifest's path."""
        found = ((name, MANIFEST.fullmatch(name)) for name in self.members)
        return {n: ArtifactRef(kind=m[1], digest=m[2]) for n, m in found if m is not None}


@dataclass(frozen=True)
class Moved:
    """What went into an archive, or came out of one."""

    run: str
    artifacts: int
    new: int
    """Of the artifacts: those that the store did not have."""
    bytes: int
    names: list[str]
    """Files of the names of data sets and models."""


def export_run(store: Store, folder: Path, target: Path) -> Moved:
    """Writes the run in `folder`, and every artifact that it was made of, to the file `target`.

    Raises:
        BadInput: the run is of another store, or not as it was drawn; or `target` exists.
        StoreError: an artifact is damaged, or the disk is full.
    """
    if folder.parent != store.root / "runs":
        raise BadInput(f"{folder} is no run of the store {store.root}: pass its `store`")
    if os.path.lexists(target):
        raise BadInput(f"{target} exists: name another file, or remove it")
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} is no folder: make it, or name another file")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with ExitStack() as stack:
        stack.enter_context(explain_disk_errors(target.parent))
        stack.callback(partial.unlink, missing_ok=True)
        stack.enter_context(lock_run(store, folder))
        if problems := problems_of_run(folder):
            raise BadInput(f"run {folder.name}: {problems[0]}: run it again, all is cached")
        manifests = _needed(store, folder, stack)
        sources = _sources(store, folder, manifests)
        listed = Listed(
            sims_export=FORMAT,
            run=folder.name,
            members={name: FileEntry.of(path) for name, path in sources.items()},
            links={
                name: "/".join(Path(target).parts[-3:])
                for name, target in sorted(links_of_run(folder).items())
            },
        ).sealed()
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            content = listed.model_dump_json().encode()
            _add(tar, LIST_FILE, len(content), io.BytesIO(content))
            refs = listed.refs
            for name, path in sources.items():
                _add_file(tar, name, path)
                for inside in sorted(manifests[refs[name]].files) if name in refs else ():
                    _add_file(tar, f"{refs[name].location}/{inside}", path.parent / inside)
        sync(partial)
        os.replace(partial, target)
        sync_name(target)
    names = [name for name in sources if NAME.fullmatch(name)]
    return Moved(folder.name, len(manifests), 0, target.stat().st_size, names)


def _needed(store: Store, folder: Path, stack: ExitStack) -> dict[ArtifactRef, Manifest]:
    """What the run was made of, whole and kept from being tidied away; what others are made of
    comes first."""
    held = look(store)
    refs = [ArtifactRef.at(location) for location in sorted(held.needed[folder.name])]
    stack.enter_context(needing(store, refs))
    for ref in refs:
        store.open_artifact(ref)
    manifests = {ref: store.manifest(ref) for ref in refs}
    found: dict[ArtifactRef, Manifest] = {}
    waiting = refs[::-1]
    while waiting:
        inputs = manifests[waiting[-1]].request.inputs.values()
        if missing := [each for each in inputs if each in manifests and each not in found]:
            waiting += missing
        else:
            ref = waiting.pop()
            found[ref] = manifests[ref]
    return found


def _sources(store: Store, folder: Path, manifests: dict[ArtifactRef, Manifest]) -> dict[str, Path]:
    """The files of an archive that its list tells of, by their paths in it."""
    found = {
        f"{ref.location}/{MANIFEST_FILE}": store.path(ref) / MANIFEST_FILE for ref in manifests
    }
    records = (store.record_path(ref) for ref in manifests if store.record(ref) is not None)
    found |= {f"records/{path.name}": path for path in records}
    for name, refs in named(store).items():
        if manifests.keys() >= set(refs):
            found[name] = store.root / name
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    inside = {f"{RUN}/{path.relative_to(folder).as_posix()}": path for path in paths}
    return found | inside


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        _add(tar, name, os.fstat(file.fileno()).st_size, file)


def _add(tar: tarfile.TarFile, name: str, size: int, file: IO[bytes]) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    tar.addfile(header, file)
