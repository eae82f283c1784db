"""What people look at of runs, in a bucket: report, table of figures, summary, links.

A run's files lie under their own names, to be looked at there; its index, which lists them, is
written last. A run of the same name takes its place.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.common.files import remove, sync
from sims_core.store.artifacts import FileEntry
from sims_core.store.remote.client import Client
from sims_core.store.remote.names import (
    LOCATION,
    RUNS,
    files_of,
    is_inside,
    opened_json,
    sealed_json,
)
from sims_core.store.store import Store

LATEST = 2**32
"""No run is written after 2106."""


def _index_key(name: str) -> str:
    return f"{RUNS}/{name}.json"


def is_run_name(name: str) -> bool:
    """Whether a run's folder may be called that."""
    return is_inside(name) and "/" not in name


def push_run(client: Client, store: Store, folder: Path) -> None:
    """Brings a run's files there, those that differ."""
    name = folder.name
    if not is_run_name(name):
        raise BadInput(f"run {name!r} cannot go to a bucket: its name has characters that show not")
    files: dict[str, FileEntry] = {}
    links: dict[str, str] = {}
    for parent, folders, inside in os.walk(folder):
        for path in (Path(parent) / each for each in (*folders, *inside)):
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                target = Path(os.path.normpath(path.parent / path.readlink()))
                if target.is_relative_to(store.root):
                    links[relative] = target.relative_to(store.root).as_posix()
            elif path.is_file():
                files[relative] = FileEntry.of(path)
    before = _index(client, name)
    if (before.files, before.links) == (files, links):
        return
    for relative, entry in files.items():
        if before.files.get(relative) != entry:
            client.put(f"{RUNS}/{name}/{relative}", folder / relative)
    index = {
        "files": {relative: entry.model_dump() for relative, entry in sorted(files.items())},
        "links": links,
        "written": round(folder.stat().st_mtime),
    }
    client.put(_index_key(name), sealed_json(index))


@dataclass(frozen=True)
class _Index:
    """What a run consists of: nothing where there is no such run, or its index is refused."""

    files: dict[str, FileEntry] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Where an artifact lies in a store, by the link's path."""
    written: int = 0
    """When, in seconds since the epoch."""


def _index(client: Client, name: str) -> _Index:
    found = client.get(_index_key(name))
    fields = opened_json(found[0]) if found is not None else {}
    files, links, written = files_of(fields), fields.get("links"), fields.get("written")
    if files is None or not isinstance(links, dict) or not isinstance(written, int):
        return _Index()
    for relative, target in links.items():
        if not (is_inside(relative) and isinstance(target, str) and LOCATION.fullmatch(target)):
            return _Index()
    return _Index(files, links, min(max(0, written), LATEST))


def run_names(client: Client) -> list[str]:
    """Every run that the bucket has, in order."""
    keys = (key.removeprefix(f"{RUNS}/") for key, _ in client.list(RUNS))
    names = (key.removesuffix(".json") for key in keys if "/" not in key and key.endswith(".json"))
    return sorted(filter(is_run_name, names))


def fetch_run(client: Client, store: Store, name: str, folder: Path, links: bool = True) -> None:
    """Brings a run's files into a new folder, which is a run's of the store or becomes one.

    Raises:
        DamagedArtifact: There is no such run, or a file is not what the index says.
    """
    index = _index(client, name)
    if not index.files:
        raise DamagedArtifact(f"{_index_key(name)}: missing, altered, or names paths outside")
    for relative, entry in index.files.items():
        path, key = folder / relative, f"{RUNS}/{name}/{relative}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("xb").close()
        except (FileExistsError, NotADirectoryError):
            raise DamagedArtifact(f"{key}: is in the way of another file") from None
        if client.sha256(key, path, entry.size) != entry.sha256:
            raise DamagedArtifact(f"{key}: missing, cut or altered")
    final = store.root / "runs" / name
    for relative, target in index.links.items() if links else ():
        path = folder / relative
        # Relative to where the folder comes to lie.
        leads = os.path.relpath(store.root / target, (final / relative).parent)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(leads)
        except (FileExistsError, NotADirectoryError):
            raise DamagedArtifact(f"{_index_key(name)}: {relative!r} is in the way") from None
    for path in (folder / "run.json", folder):
        if path.exists():
            os.utime(path, (index.written, index.written))


def pull_run(client: Client, store: Store, name: str) -> Path:
    """Brings a run into the store, in the place of one of that name; returns its folder.

    The caller holds the lock of runs of that name.

    Raises:
        DamagedArtifact: As `fetch_run`.
    """
    folder, target = store.root / "progress" / f"run-{uuid.uuid4().hex}", store.root / "runs" / name
    try:
        fetch_run(client, store, name, folder)
        sync(folder)
        store.swap_in(folder, target)
    finally:
        remove(folder)
    return target


def damage_of_runs(client: Client) -> Iterator[str]:
    """One line for each file of a run that is not what its index says."""
    for name in run_names(client):
        files = _index(client, name).files
        if not files:
            yield f"{_index_key(name)}: altered, or names paths outside"
        for relative, entry in files.items():
            key = f"{RUNS}/{name}/{relative}"
            if client.sha256(key, size=entry.size) != entry.sha256:
                yield f"{key}: missing, cut or altered"
