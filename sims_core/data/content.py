"""What a source of images holds, as a digest: every byte of its files, read once."""

from __future__ import annotations

import hashlib
import time

from sims_core.common.digest import digest_of, file_sha256
from sims_core.data.raw import Source
from sims_core.store.verdicts import SETTLED_NS

_digests: dict[str, str] = {}
"""Of the sources that this process has read, by how they looked."""


def in_utf8(names: tuple[str, ...]) -> list[str]:
    """As they are, but for bytes that are not UTF-8, which no JSON can have."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def _looks(source: Source) -> str | None:
    """A digest of names, and of how the files look from outside; None: one was changed just now."""
    looks, latest = hashlib.sha256(), 0
    for name in (*(source.names or ()), "/", *source.classes):
        looks.update(repr(name).encode())
    for path in source.files:
        status = path.stat()
        latest = max(latest, status.st_mtime_ns, status.st_ctime_ns)
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        looks.update(repr((str(path), *seen, status.st_ctime_ns)).encode())
    return None if time.time_ns() - latest < SETTLED_NS else looks.hexdigest()


def content_digest(source: Source) -> str:
    """SHA-256 of every file's bytes and of the names of its images and classes; not of its path.

    The files are read once in a process: after that, how they look shows any change.
    """
    looks = _looks(source)
    if looks is not None and looks in _digests:
        return _digests[looks]
    sums = [file_sha256(path) for path in source.files]
    names = in_utf8(source.names or ())
    digest = digest_of({"names": names, "classes": in_utf8(source.classes), "files": sums})
    if looks is not None and looks == _looks(source):
        _digests[looks] = digest
    return digest
