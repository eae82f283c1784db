"""What running work needs of a store, so that nobody tidies it away.

Whoever begins says which artifacts it takes or makes: in a file under locks/ that it keeps locked,
so that the kernel ends the lease when its holder dies. To begin, and to tidy up, one passes the
same gate, one at a time: what is tidied away was needed by nobody then, and who comes later makes
it anew.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sims_core.store.artifacts import ArtifactRef
from sims_core.store.locks import is_named, locked
from sims_core.store.marks import MARK
from sims_core.store.store import Store

GATE = "store.lock"
LEASE = "lease-"
KILLED_KEPT_S = 30 * 86_400.0
"""So long after it ended the lease of a process that was killed still counts: its run may go on."""


def gate(store: Store) -> AbstractContextManager[None]:
    """Passed to begin, and held to tidy up."""
    return locked(store.root / "locks" / GATE, "the store", "which somebody is tidying up")


@dataclass(frozen=True)
class Lease:
    """What one piece of running work needs."""

    store: Store
    file: int

    def add(self, refs: Iterable[ArtifactRef]) -> None:
        """Needs these too from now on, whether or not they are there."""
        with gate(self.store):
            self.write(refs)

    def write(self, refs: Iterable[ArtifactRef]) -> None:
        """As `add`, by who has passed the gate."""
        lines = "".join(f"{ref.location}\n" for ref in dict.fromkeys(refs)).encode()
        while lines:
            lines = lines[os.write(self.file, lines) :]


@contextmanager
def needing(store: Store, refs: Iterable[ArtifactRef]) -> Iterator[Lease]:
    """Needs these artifacts as long as the context lasts, or the process lives."""
    path = store.root / "locks" / f"{LEASE}{uuid.uuid4().hex}"
    with gate(store):  # an unlocked lease would be taken for that of a dead process
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        lease = Lease(store, os.open(path, flags, 0o644))
        fcntl.flock(lease.file, fcntl.LOCK_EX)
        lease.write(refs)
    try:
        yield lease
        _end_those_gone_on_with(store, path)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(lease.file)


def _end_those_gone_on_with(store: Store, mine: Path) -> None:
    """Removes the leases of killed processes that needed nothing but what this one has needed: its
    work has ended, and so has theirs."""
    dead = []
    for path in set((store.root / "locks").glob(f"{LEASE}*")) - {mine}:
        with suppress(OSError):
            if not is_held(path):
                dead.append(path)
    if not dead:
        return
    with suppress(OSError), gate(store):  # one that is just being made is not held yet
        needed = set(mine.read_text().splitlines())
        for path in dead:
            with suppress(FileNotFoundError):
                if not is_held(path) and needed.issuperset(path.read_text().splitlines()):
                    path.unlink()


def leased(store: Store) -> set[str]:
    """Locations of all artifacts that work needs which is running, or was killed of late and may go
    on.

    The caller holds the gate.
    """
    needed: set[str] = set()
    for path in (store.root / "locks").glob(f"{LEASE}*"):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            if not _is_of_long_ago(path):
                needed.update(path.read_text().splitlines())
    return needed


def _is_of_long_ago(lease: Path) -> bool:
    """Whether its process was killed, and nobody will go on with its work any more."""
    return not is_held(lease) and lease.lstat().st_mtime <= time.time() - KILLED_KEPT_S


def is_held(path: Path) -> bool:
    """Whether a living process keeps this file locked."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def sweep_locks(store: Store, dry_run: bool) -> list[Path]:
    """Removes the files of locks that a kill left behind, and leases and marks that count no more;
    what is held stays. The caller holds the gate.

    Returns:
        What was removed, or would be.
    """
    removed = []
    for path in (store.root / "locks").glob("*.lock"):
        with suppress(OSError):
            if path.name != GATE and path.is_file() and not path.is_symlink():
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if is_named(file, path):  # else somebody has made and locked another meanwhile
                        if not dry_run:
                            path.unlink()
                        removed.append(path)
                finally:
                    os.close(file)
    for path in (p for kind in (LEASE, MARK) for p in (store.root / "locks").glob(f"{kind}*")):
        with suppress(OSError):
            if _is_of_long_ago(path):
                if not dry_run:
                    path.unlink()
                removed.append(path)
    return removed
