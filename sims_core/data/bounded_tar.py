"""Tar files: no huge header is read, and none that is damaged is taken for the end."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import Any, cast

from sims_core.common.errors import BadInput
from sims_core.common.hostile import regular

MAX_HEADER = 1 << 20
"""Bytes of a member's extended header (long names, times) that are read."""

_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)

_DAMAGED = tuple(
    error
    for error in tarfile.HeaderError.__subclasses__()
    if error.__name__ in ("InvalidHeaderError", "TruncatedHeaderError")
)
"""After these tarfile would end without a word, though more members may follow."""


class DamagedHeader(BadInput):
    """A member's header is damaged or cut; or what is read is no tar file."""


class _Header(tarfile.TarInfo):
    """A member's header."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except _DAMAGED as error:
            raise DamagedHeader(f"a member's header is damaged or cut ({error})") from None
        if header.type in _EXTENDED and header.size > MAX_HEADER:
            raise BadInput(f"a member's extended header has {header.size} bytes")
        return header


@contextmanager
def opened(path: Path, mode: str = "r:*") -> Iterator[tarfile.TarFile]:
    """A tar file, plain or compressed.

    Raises:
        BadInput: it is no file, or a header of it is damaged or huge.
    """
    with (
        regular(path).open("rb") as stream,
        tarfile.open(fileobj=stream, mode=cast(Any, mode), tarinfo=_Header) as tar,
    ):
        yield tar


def first_member(path: Path) -> tarfile.TarInfo | None:
    """The first member of a tar file; None: it is none, or has no members.

    Raises:
        BadInput: that member's header is huge.
    """
    try:
        with opened(path) as tar:
            return tar.next()
    except (tarfile.TarError, DamagedHeader, EOFError, OSError, zlib.error, LZMAError):
        return None
