"""Which artifacts of the local store are in use, were used last, and are in the bucket as well.

Each has a file under bucket/ in the store. Who uses the artifact keeps that file locked (flock,
shared), so that the kernel ends it when the user dies; its time is that of the last use; what it
says is which manifest of it is in which bucket. It is written in place: a torn note is none, and
what has none does not leave the store.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sims_core.store.artifacts import MANIFEST_FILE, ArtifactRef
from sims_core.store.behind import NOTES_FOLDER
from sims_core.store.store import Store

ALL = "all"
"""Held by who uses artifacts without saying which, and by who lets some go."""


def _file(store: Store, name: str) -> int:
    folder = store.root / NOTES_FOLDER
    folder.mkdir(exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(folder / name, flags, 0o666)


@contextmanager
def _locked(store: Store, name: str, how: int) -> Iterator[bool]:
    """Whether the lock was got, which `how` may make a question."""
    file = _file(store, name)
    try:
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


@contextmanager
def holding(store: Store, refs: Iterable[ArtifactRef]) -> Iterator[None]:
    """These stay in the store as long as the context lasts, or the process lives."""
    with ExitStack() as held:
        for ref in dict.fromkeys(refs):
            held.enter_context(_locked(store, ref.digest, fcntl.LOCK_SH))
            touch(store, ref)
        yield


@contextmanager
def keeping_all(store: Store) -> Iterator[None]:
    """Everything stays in the store."""
    with _locked(store, ALL, fcntl.LOCK_SH):
        yield


@contextmanager
def letting_go(store: Store, ref: ArtifactRef | None = None) -> Iterator[bool]:
    """Whether nobody uses the artifact (None: artifacts at all), and will not in this context."""
    name = ALL if ref is None else ref.digest
    with _locked(store, name, fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
        yield free


def touch(store: Store, ref: ArtifactRef) -> None:
    """The artifact is used now."""
    path = store.root / NOTES_FOLDER / ref.digest
    if path.exists():
        os.utime(path)


def last_used(store: Store, ref: ArtifactRef) -> float:
    """Seconds since the epoch."""
    for path in (store.root / NOTES_FOLDER / ref.digest, store.path(ref) / MANIFEST_FILE):
        if path.exists():
            return path.stat().st_mtime
    return 0.0


def note(store: Store, ref: ArtifactRef, text: str) -> None:
    """Says of an artifact where else it is; an empty text takes that back."""
    file = _file(store, ref.digest)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
    finally:
        os.close(file)


def noted(store: Store, ref: ArtifactRef) -> str:
    """What `note` said; empty if nothing."""
    try:
        return Path(store.root, NOTES_FOLDER, ref.digest).read_text(errors="replace")
    except OSError:
        return ""
