"""Pictures that have names: files of a folder, members of a zip. Nothing is extracted."""

from __future__ import annotations

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from sims_core.common.errors import BadInput
from sims_core.common.hostile import MAX_MEMBER, only_our_errors, read_bounded, reason
from sims_core.common.shown import shown
from sims_core.data.class_folders import ClassFolders, class_folders
from sims_core.data.file_kinds import TAR_SUFFIXES, is_hidden, is_picture_name, kind_of, plain_name
from sims_core.data.labels import find_labels, is_label_file
from sims_core.data.pictures import BrokenImage
from sims_core.data.raw import SUFFIXES, RawImage, Source, Tally

MAX_DEPTH = 64
"""How deep folders may lie within folders."""

MAX_LINK_DEPTH = 2
"""A link to a folder is followed where it is a split, a class, or a folder within one."""

STORE_FOLDERS = {"artifacts", "progress", "locks", "records"}
"""A folder with these is an artifact store, whose pictures are no user's."""

CHUNK = 1 << 20


@dataclass
class Scan:
    """What lies in a folder and below it."""

    root: Path
    pictures: list[str] = field(default_factory=list)
    """Paths from the root, with / between folders."""
    tables: list[str] = field(default_factory=list)
    """Parquet files."""
    tars: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    left_out: Tally = field(default_factory=Tally)


def scan_folder(root: Path) -> Scan:
    """Everything in a folder. Links to folders are followed, each folder once.

    Raises:
        BadInput: a folder cannot be read, or folders are nested too deeply.
    """
    scan = Scan(root)
    with only_our_errors(root):
        seen = {_identity(root.stat())}
        waiting = [("", 0)]
        while waiting:
            prefix, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise BadInput(f"{root}: folders are nested more than {MAX_DEPTH} deep")
            with os.scandir(root / prefix) as scanned:
                entries = list(scanned)
            if prefix and {entry.name for entry in entries} >= STORE_FOLDERS:
                scan.left_out.add("a store of this program", prefix)
                continue
            for entry in entries:
                if _scan_entry(scan, entry, prefix + entry.name, depth, seen):
                    waiting.append((f"{prefix}{entry.name}/", depth + 1))
    for names in (scan.pictures, scan.tables, scan.tars, scan.others):
        names.sort()
    return scan


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _scan_entry(
    scan: Scan, entry: os.DirEntry[str], name: str, depth: int, seen: set[tuple[int, int]]
) -> bool:
    """Notes a file; returns whether it is a folder to look into."""
    if is_hidden(entry.name):
        scan.left_out.add("hidden", name)
        return False
    try:
        status = entry.stat()
    except OSError:
        scan.left_out.add("a link to nothing", name)
        return False
    if stat.S_ISDIR(status.st_mode):
        if entry.is_symlink() and (depth >= MAX_LINK_DEPTH or _identity(status) in seen):
            scan.left_out.add("a link to a folder that is not followed", name)
            return False
        seen.add(_identity(status))
        return True
    if not stat.S_ISREG(status.st_mode):
        scan.left_out.add("no regular file (a FIFO, a socket or a device)", name)
    elif is_picture_name(entry.name):
        scan.pictures.append(name)
    elif entry.name.lower().endswith(".parquet"):
        scan.tables.append(name)
    elif entry.name.lower().endswith(TAR_SUFFIXES):
        scan.tars.append(name)
    else:
        scan.others.append(name)
    return False


def _named(
    layout: str,
    where: Path,
    names: Sequence[str],
    load: Callable[[str], bytes],
    files: tuple[Path, ...],
    split: str | None,
    labels: Callable[[str], bytes | None],
    others: Sequence[tuple[str, Callable[[], bytes]]],
    left_out: Tally,
    wanted: bool,
    column: str | None,
    outside: Mapping[str, Callable[[], bytes]],
) -> Source:
    """Images that have names. Class: by a file of labels that lies there, else the sub-folder.

    Args:
        labels: reads a file, if it is there.
        others: name and reader of the first bytes of what is no picture.
        wanted: labels are to be found.
        outside: readers of files of labels that lie above the split.
    """
    notes: list[str] = []
    unread = [name for name, _ in others]
    label_file = find_labels(where, names, unread, labels, column, wanted, notes, outside)
    for name, start in others:
        if label_file is None or name != label_file.name:
            left_out.add(kind_of(name, start), name)
    if not names:
        told = "".join(
            f"; {row['count']} x {why} ({row['first'][0]})"
            for why, row in list(left_out.row().items())[:3]
        )
        raise BadInput(f"{shown(where)}: has no images ({', '.join(SUFFIXES)}){told}")
    folders = ClassFolders()
    if wanted and label_file is None:
        folders = class_folders(names, where, notes)

    def read() -> Iterator[RawImage]:
        for name in names:
            yield RawImage(name, partial(load, name), folders.label(name))

    return Source(
        layout,
        files,
        read,
        split,
        tuple(names),
        folders.classes,
        label_file=label_file,
        left_out=left_out,
        notes=notes,
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def open_folder(
    where: Path, scan: Scan, split: str | None, wanted: bool, column: str | None
) -> Source:
    """The pictures of a folder that was looked through."""
    root = scan.root

    def load(name: str) -> bytes:
        try:
            return read_bounded(f"{root}/{name}")
        except (BadInput, OSError) as error:
            told = error.strerror if isinstance(error, OSError) else str(error).rpartition(": ")[2]
            raise BrokenImage(told or "unreadable") from None

    def labels(name: str) -> bytes | None:
        return read_bounded(root / name) if os.path.lexists(root / name) else None

    others: list[tuple[str, Callable[[], bytes]]] = [(name, bytes) for name in scan.tables]
    others += [(name, partial(_first_bytes, root / name)) for name in scan.others]
    files = tuple(root / name for name in scan.pictures)
    above = {
        name: partial(read_bounded, where / name)
        for folder in (PurePosixPath(split).parents if split else ())
        for name in sorted(str(folder / entry.name) for entry in (where / folder).iterdir())
        if is_label_file(name)
    }
    return _named(
        *("folder", where, scan.pictures, load, files, split, labels, others),
        *(scan.left_out, wanted, column, above),
    )


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, in steps: neither what it claims to have nor what it unpacks to is trusted.

    Raises:
        BrokenImage: it unpacks to too much, or cannot be read.
    """
    if member.file_size > MAX_MEMBER:
        raise BrokenImage(f"unpacks to more than {MAX_MEMBER >> 20} MiB")
    plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    step, parts, size = CHUNK if plain else 4096, [], 0
    try:
        with archive.open(member) as file:
            while part := file.read(step):
                parts.append(part)
                size += len(part)
                if size > MAX_MEMBER:
                    raise BrokenImage(f"unpacks to more than {MAX_MEMBER >> 20} MiB")
    except BrokenImage:
        raise
    except Exception as error:  # wrong sums, encryption, unknown compression
        raise BrokenImage(reason(error)) from None
    return b"".join(parts)


def _label_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """All bytes of a file of labels; raises BadInput if it cannot be read."""
    try:
        return read_member(archive, member)
    except BrokenImage as error:
        raise BadInput(f"{archive.filename}: {member.filename}: {error}") from None


def _members(archive: zipfile.ZipFile, left_out: Tally) -> dict[str, zipfile.ZipInfo]:
    """Files by their names without ./ at the start; backslashes of Windows stand between folders
    where no slash does."""
    infos = archive.infolist()
    windows = not any("/" in info.filename for info in infos)
    found: dict[str, zipfile.ZipInfo] = {}
    names = Counter[str]()
    for info in infos:
        name = info.filename.replace("\\", "/") if windows else info.filename
        if name.endswith("/"):
            continue
        name = plain_name(name)
        if is_hidden(name):
            left_out.add("hidden", name)
        elif stat.S_ISLNK(info.external_attr >> 16):
            left_out.add("a link in an archive", name)
        else:
            names[name] += 1
            found[name] = info
    if twice := [name for name, count in names.items() if count > 1 and is_picture_name(name)]:
        raise BadInput(
            f"{archive.filename} holds two images of the name {twice[0]}: give them names of "
            "their own"
        )
    return found


def open_zip(path: Path, split: str | None, wanted: bool, column: str | None) -> Source:
    """The pictures in a zip archive; a split is one of its outermost folders."""
    left_out = Tally()
    with only_our_errors(path):
        archive = zipfile.ZipFile(path)
        members = _members(archive, left_out)
    prefix = f"{split}/" if split else ""
    if split and not any(name.startswith(prefix) and is_picture_name(name) for name in members):
        raise BadInput(f"`split` {split}: {path} has no folder of that name")
    inside = [name.removeprefix(prefix) for name in members if name.startswith(prefix)]
    if outside := [name for name in members if not name.startswith(prefix)]:
        left_out.add("outside the split", outside[0], len(outside))

    def load(name: str) -> bytes:
        return read_member(archive, members[prefix + name])

    def labels(name: str) -> bytes | None:
        member = members.get(prefix + name)
        return None if member is None else _label_member(archive, member)

    def start(name: str) -> bytes:
        try:
            with archive.open(members[prefix + name]) as file:
                return file.read(16)
        except Exception:  # encrypted, damaged: it is left out in any case
            return b""

    names = sorted(name for name in inside if is_picture_name(name))
    others = [(name, partial(start, name)) for name in inside if not is_picture_name(name)]
    above = {
        name: partial(_label_member, archive, members[name])
        for name in outside
        if is_label_file(name) and prefix.startswith(name[: name.rfind("/") + 1])
    }
    return _named(
        *("zip", path, names, load, (path,), split, labels, others),
        *(left_out, wanted, column, above),
    )
