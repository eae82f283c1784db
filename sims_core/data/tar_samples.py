"""Samples in tar files by WebDataset's convention: members of one key, one after the other.

By the standard library, since to import webdataset is to import torch: half a gigabyte and two
seconds in each process that reads or writes pictures. The bytes are those of its TarWriter.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.data.bounded_tar import opened

_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")


def key_and_rest(name: str) -> tuple[str, str]:
    """Key of a member's sample (up to the first dot of its last part) and what follows; no dot:
    the name and nothing."""
    match = _KEY.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def split_name(name: str, by_last_dot: bool) -> tuple[str, str]:
    """Key of a member's sample, and the rest of its name.

    WebDataset's: up to the first dot. By the last one where names themselves have dots.
    """
    if not by_last_dot:
        return key_and_rest(name)
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.rpartition(".")
    return (f"{folder}{slash}{stem}", kind) if stem else (name, "")


class SampleWriter:
    """Writes samples to a stream. Members carry no time and no owner."""

    def __init__(self, stream: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w")  # noqa: SIM115 - closed by `close`

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """One sample; its members in the order of their extensions."""
        for extension in sorted(members):
            content = members[extension]
            header = tarfile.TarInfo(f"{key}.{extension}")
            header.size, header.mode = len(content), 0o444
            header.uname = header.gname = "bigdata"
            self._tar.addfile(header, io.BytesIO(content))

    def close(self) -> None:
        self._tar.close()


def stream_members(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (by extension, in small letters) of each sample of a shard.

    Raises:
        DamagedArtifact: the file is missing or cut, or has a member twice.
    """
    key, members = None, dict[str, bytes]()
    try:
        with opened(path, "r:") as tar:
            for member in tar:
                own, extension = key_and_rest(member.name)
                if not member.isfile() or not extension:
                    continue
                if own != key:
                    if key is not None:
                        yield key, members
                    key, members = own, {}
                if extension.lower() in members:
                    raise tarfile.ReadError(f"{member.name} stands there twice")
                file = tar.extractfile(member)
                members[extension.lower()] = file.read() if file else b""
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
    except BadInput as error:
        raise DamagedArtifact(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (tarfile.TarError, OSError) as error:
        raise DamagedArtifact(f"{path}: {error}") from None
    if key is not None:
        yield key, members
