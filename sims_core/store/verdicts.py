"""What a store remembers of the entries that it has verified, for later processes.

The file `verified` has a line for each verdict: an entry's location, a digest of what its files'
names, inodes, sizes and times were when every byte of them was found right, and a check of the
line. The latest line of an entry holds. A line is appended in one write; one that is torn, or that
anything else is wrong with, is not believed, and costs no more than reading the entry again.

A write changes a file's ctime, which no program can set back. Only a file that is written twice
within the resolution of the file system's clock would have the same times twice: so nothing is
remembered of an entry that has changed within the last two seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from sims_core.common.errors import StoreError
from sims_core.common.files import read_regular, write_atomically
from sims_core.store.locks import locked

VERDICTS_FILE = "verified"
SETTLED_NS = 2_000_000_000
"""A file that was changed so long ago would show a further change in its times: the coarsest clock
of a file system in use (FAT) counts in steps of two seconds."""
DAMAGED = "-"
"""Stands in a line for the digest: the entry is no longer believed."""
COMPACT_ABOVE = 1000
"""A file of more lines, most of which no longer hold, is written anew."""


def _files(folder: str, inside: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Every file and link under a folder by its relative path, in no particular order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{inside}{entry.name}/")
            else:
                yield inside + entry.name, entry.stat(follow_symlinks=False)


class Stamp:
    """What an entry's files look like from outside: names, inodes, sizes, times."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            OSError: There is no such folder, or it changes meanwhile.
        """
        files = sorted(_files(str(folder)))
        seen = [(n, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in files]
        self.digest = hashlib.sha256(repr(seen).encode()).hexdigest()
        self.changed_ns = max((max(each[3], each[4]) for each in seen), default=0)
        """When a file of it changed last, by the file system's clock."""


def _line(location: str, stamp: str) -> str:
    check = hashlib.sha256(f"{location} {stamp}".encode()).hexdigest()[:16]
    return f"{location} {stamp} {check}\n"


class Located(Protocol):
    """What verdicts are given of: an artifact, or what is made of one."""

    @property
    def location(self) -> str: ...


class Verdicts:
    """The file `verified` of one store, as this process knows it."""

    def __init__(self, root: Path) -> None:
        self.path = root / VERDICTS_FILE
        self._known: dict[str, str] | None = None

    def holds(self, ref: Located, stamp: Stamp) -> bool:
        """Whether the entry was found right when its files looked like this."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(ref.location) == stamp.digest

    def remember(self, ref: Located, stamp: Stamp) -> None:
        """Every byte of the entry was right, and nothing of it has changed since `stamp`."""
        if self.path.exists() and not self.path.is_file():  # to open a FIFO is to wait
            return
        with suppress(OSError):  # a store that cannot be written is read all the same
            with self.path.open("a") as file:
                os.utime(self.path)  # its time is now, by the clock that stamps the files
                if os.fstat(file.fileno()).st_ctime_ns - stamp.changed_ns < SETTLED_NS:
                    return
                file.write(_line(ref.location, stamp.digest))
            if self._known is not None:
                self._known[ref.location] = stamp.digest

    def forget(self, ref: Located) -> None:
        """The entry was found damaged, whatever its files look like."""
        if self._known is not None:
            self._known.pop(ref.location, None)
        with suppress(OSError, StoreError), self._exclusive():
            if self.path.is_file():
                with self.path.open("a") as file:
                    file.write("\n" + _line(ref.location, DAMAGED))  # whatever was torn before it

    def _exclusive(self) -> AbstractContextManager[None]:
        """Keeps two processes from writing the file anew, and from losing what they forget."""
        return locked(self.path.parent / "locks" / f"{VERDICTS_FILE}.lock", f"the file {self.path}")

    def _read(self) -> dict[str, str]:
        """Location to digest, of every line that can be believed."""
        known, lines = self._parsed()
        if lines > COMPACT_ABOVE and lines > 2 * len(known):
            # What another process appends meanwhile may be lost, and is verified once more.
            with suppress(OSError, StoreError), self._exclusive():
                known, _ = self._parsed()
                write_atomically(self.path, "".join(_line(*item) for item in known.items()))
        return known

    def _parsed(self) -> tuple[dict[str, str], int]:
        """What the file says, and in how many lines."""
        try:
            lines = read_regular(self.path).decode(errors="replace").splitlines(keepends=True)
        except OSError:
            return {}, 0
        known: dict[str, str] = {}
        for line in lines:
            location, _, rest = line.partition(" ")
            stamp = rest.partition(" ")[0]
            if line == _line(location, stamp):
                known[location] = stamp
        return {name: stamp for name, stamp in known.items() if stamp != DAMAGED}, len(lines)
