"""Whether a store and its machine are fit for a long run: what is found, and what is amiss."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sims_core.common.files import FSYNC, full_message, waits_for_disk
from sims_core.engine.source import made_by
from sims_core.store.leases import GATE, is_held
from sims_core.store.locks import condition, holder
from sims_core.store.store import Store
from sims_core.store.version import VERSION

LITTLE_FREE = 1 << 30
MOST_SKEW_S = 2.0
LIBRARIES = ("torch", "prefect", "numpy", "diffusers", "torch-fidelity")
DAY_S = 86_400


@dataclass(frozen=True)
class Finding:
    """One line."""

    text: str
    amiss: bool = False


def examine(store: Store) -> list[Finding]:
    """Everything that is found; writes no more than a probe."""
    return [
        *_versions(),
        *_disk(store),
        *_permissions(store),
        *_locks(store),
        *_unfinished(store),
        *_prefect(),
    ]


def _versions() -> Iterator[Finding]:
    made = made_by()
    commit = f", commit {made['commit']}" if made["commit"] else ", not in a clone"
    yield Finding(f"sims-loop {made['version']}{commit}, for stores of version {VERSION}")
    for name in LIBRARIES:
        try:
            yield Finding(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding(f"{name} is not installed", amiss=True)


def _disk(store: Store) -> Iterator[Finding]:
    free = shutil.disk_usage(store.root).free
    if free < LITTLE_FREE:
        yield Finding(full_message(store.root), amiss=True)
    else:
        yield Finding(f"{free / 2**30:.1f} GiB free at {store.root}")
    if not waits_for_disk():
        yield Finding(f"{FSYNC} is off: a power cut may lose what was just made", amiss=True)
    probe = store.root / "locks" / f"probe-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"probe")
        skew = probe.stat().st_mtime - time.time()
        probe.unlink()
    except OSError as error:
        yield Finding(f"the store cannot be written: {error.strerror}", amiss=True)
        return
    if abs(skew) > MOST_SKEW_S:
        yield Finding(f"the file system's clock is {skew:+.1f} s from this machine's", amiss=True)
    else:
        yield Finding("the store can be written, its clock is this machine's")


def _permissions(store: Store) -> Iterator[Finding]:
    for folder in Store.FOLDERS:
        if not (store.root / folder).is_dir():
            yield Finding(f"{store.root / folder} is no folder: move what is there", amiss=True)
    shut = [
        path
        for folder in ("artifacts", "records", "runs", "datasets", "models")
        for path in (store.root / folder).rglob("*")
        if not path.is_symlink() and not os.access(path, os.R_OK)
    ]
    if shut:
        yield Finding(f"{len(shut)} files cannot be read, the first is {shut[0]}", amiss=True)


def _locks(store: Store) -> Iterator[Finding]:
    for path in sorted((store.root / "locks").glob("*.lock")):
        if path.name == GATE:
            continue
        if path.is_symlink() or path.is_dir():
            yield Finding(f"{path} is no lock, and in the way of one: remove it", amiss=True)
            continue
        try:
            held, who = is_held(path), holder(path)
        except OSError:  # it was given back, or is somebody else's
            continue
        if not held:
            yield Finding(f"{path.name} was left by a kill: `sims store gc` removes it")
        elif who is None:
            yield Finding(f"{path.name} is held by a process that does not say who it is")
        else:
            state = condition(who)
            yield Finding(
                f"{path.name} is held by process {who['pid']} on {who['host']} since "
                f"{who['since']}, {state}",
                amiss=state.startswith("stopped"),
            )


def _unfinished(store: Store) -> Iterator[Finding]:
    for path in sorted((store.root / "progress").glob("*")):
        size, changed = _size(path)
        days = (time.time() - changed) / DAY_S
        working = (store.root / "locks" / f"{path.name}.lock").exists()
        what = "unfinished work" if len(path.name) == 64 else "left by a kill"
        if not working:
            yield Finding(
                f"progress/{path.name}: {what}, {size} bytes, last changed {days:.1f} days ago"
            )


def _size(path: Path) -> tuple[int, float]:
    """Bytes of all files under a folder, and when one of them changed last."""
    found = [path.lstat(), *(each.lstat() for each in path.rglob("*"))]
    return sum(each.st_size for each in found), max(each.st_mtime for each in found)


def _prefect() -> Iterator[Finding]:
    if url := os.environ.get("PREFECT_API_URL"):
        yield Finding(f"Prefect's server is {url}")
        return
    database = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "prefect.db"
    if database.is_file():
        yield Finding(f"Prefect's database {database}: {database.stat().st_size / 2**20:.0f} MiB")
