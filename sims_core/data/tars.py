"""Images in tar files: WebDataset's samples, or pictures alone in a folder for each class."""

from __future__ import annotations

import tarfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sims_core.common.errors import BadInput
from sims_core.common.hostile import MAX_MEMBER, only_our_errors, parse_json
from sims_core.common.shown import shown
from sims_core.data.bounded_tar import opened
from sims_core.data.class_folders import ClassFolders, class_folders, is_split
from sims_core.data.classes import class_of
from sims_core.data.columns import LABEL_COLUMNS, may_be_classes, refuse_without_choice
from sims_core.data.file_kinds import is_hidden, is_picture_name, kind_of
from sims_core.data.labels import LABEL_FILES, find_labels, is_label_file, refuse_unused
from sims_core.data.pictures import BrokenImage
from sims_core.data.raw import SUFFIXES, RawImage, Source, Tally
from sims_core.data.shard_names import missing_parts, shard_gaps
from sims_core.data.tables import choose_split
from sims_core.data.tar_samples import split_name

MAX_TEXT = 1 << 22
"""Bytes of a label or of a sample's JSON that are read."""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    with only_our_errors(path):
        try:
            yield
        except BadInput as error:
            told = str(error)
            raise BadInput(told if str(path) in told else f"{path}: unreadable: {told}") from None


@dataclass
class Contents:
    """What tar files hold, by their headers alone."""

    pictures: list[tuple[Path, str]] = field(default_factory=list)
    others: list[tuple[Path, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """Content of files of labels, by their names; of several archives, after the archive's."""
    room: int = MAX_MEMBER
    """Bytes that more of them may have."""
    left_out: Tally = field(default_factory=Tally)


def list_tars(paths: Sequence[Path]) -> Contents:
    """Reads the headers of all members; of contents only what may hold labels of pictures.

    Raises:
        BadInput: an archive is cut or damaged, or a name stands in it twice.
    """
    contents = Contents()
    for path in paths:
        with _readable(path), opened(path, "r:*") as tar:
            seen: set[str] = set()
            for member in tar:
                _list_member(contents, path, tar, member, seen, len(paths) == 1)
    return contents


def _list_member(
    contents: Contents,
    path: Path,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    seen: set[str],
    alone: bool,
) -> None:
    name = member.name
    if member.isdir():
        return
    if not member.isfile():
        kind = "a link in an archive" if member.issym() or member.islnk() else "no regular file"
        contents.left_out.add(kind, f"{path.name}: {name}")
        return
    if is_hidden(name):
        contents.left_out.add("hidden", f"{path.name}: {name}")
        return
    if name in seen:
        raise BadInput(f"{path}: holds two members of the name {name}")
    seen.add(name)
    if is_picture_name(name):
        contents.pictures.append((path, name))
        return
    contents.others.append((path, name))
    if is_label_file(name):
        own = _relative(name) if alone else f"{path.name}/{_relative(name)}"
        contents.files[own] = _content(path, tar, member, contents.room)
        contents.room -= member.size


def _content(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise BadInput(f"{path}: {member.name} has more than {limit >> 20} MiB")
    file = tar.extractfile(member)
    return file.read() if file else b""


@dataclass(frozen=True)
class Samples:
    """How the members of tar files make samples."""

    by_last_dot: bool
    """Names have dots: 22.05.png and 22.06.png are two pictures, not two parts of `22`."""
    column: str | None
    """The field of a sample's JSON with the class; None: its .cls member."""
    wanted: bool
    folders: ClassFolders = field(default_factory=ClassFolders)
    """Classes where samples have none themselves."""


def _samples(
    paths: Sequence[Path], contents: Contents, wanted: bool, column: str | None, notes: list[str]
) -> Samples:
    keys = [(path, split_name(name, False)[0]) for path, name in contents.pictures]
    by_last_dot = len(set(keys)) < len(keys)
    suffixes = {split_name(name, True)[1].lower() for _, name in contents.others}
    if not wanted:
        return Samples(by_last_dot, None, wanted)
    if column is None and "cls" not in suffixes and "json" in suffixes:
        column = _field(paths, contents, by_last_dot)
    if column is not None or "cls" in suffixes:
        return Samples(by_last_dot, column, wanted)
    why = "its samples have parts beside their pictures"
    for name, text in contents.files.items():
        refuse_unused(
            *(paths[0], name, partial(bytes, text), why),
            "unpack it and import the folder, or pass `labels` none",
        )
    names = [_relative(name) for _, name in contents.pictures]
    if len({PurePosixPath(name).parent for name in names}) == 1:  # tells no picture from another
        return Samples(by_last_dot, None, wanted)
    return Samples(by_last_dot, None, wanted, class_folders(names, paths[0], notes))


def _field(paths: Sequence[Path], contents: Contents, by_last_dot: bool) -> str | None:
    """The field of the samples' JSON with the class, if the first one has it under such a name.

    Raises:
        BadInput: there are only others that may be classes, or only a later sample has one.
    """
    first, keys = None, _picture_keys(contents, by_last_dot)
    of_pictures = {(p, n) for p, n in contents.others if (p, split_name(n, by_last_dot)[0]) in keys}
    for name, value in _json_objects(paths, of_pictures):
        found = [each for each in (*LABEL_COLUMNS, "cls") if each in value]
        if first is None:
            if found:
                return found[0]
            refuse_without_choice(name, [k for k, v in value.items() if may_be_classes(k, [v])])
            first = name
        elif found := found or [each for each in value if may_be_classes(each, [])]:
            raise BadInput(
                f"{shown(name)}: has the field {shown(found[0])}, which {shown(first)} lacks: give "
                "it to each sample, choose another field by `label_column`, or pass `labels` none"
            )
    return None


def _picture_keys(contents: Contents, by_last_dot: bool) -> set[tuple[Path, str]]:
    """Archive and key of each sample with a picture."""
    return {(path, split_name(name, by_last_dot)[0]) for path, name in contents.pictures}


def _json_objects(
    paths: Sequence[Path], members: Container[tuple[Path, str]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each of these members that is JSON; what is no object is empty."""
    for path in paths:
        with _readable(path), opened(path, "r|*") as tar:
            for member in tar:
                if (path, member.name) in members and member.name.lower().endswith(".json"):
                    text = _content(path, tar, member, MAX_TEXT)
                    value = parse_json(text, f"{path}: {member.name}")
                    yield f"{path}: {member.name}", value if isinstance(value, dict) else {}


def _tell_parts(paths: Sequence[Path], contents: Contents, samples: Samples) -> None:
    """Counts what of the samples is not read.

    Raises:
        BadInput: a class has no picture, so that it would be lost.
    """
    keys, lone = _picture_keys(contents, samples.by_last_dot), set[tuple[Path, str]]()
    for path, name in contents.others:
        key, rest = split_name(name, samples.by_last_dot)
        is_class = rest.lower() == ("json" if samples.column else "cls")
        if (path, key) not in keys:
            if is_class and samples.wanted and samples.column is None:
                raise BadInput(f"{path}: {name} has a class and no picture of a kind that is read")
            if is_class and samples.wanted:
                lone.add((path, name))
            contents.left_out.add(kind_of(name), f"{path.name}: {name}")
        elif not (is_class and samples.wanted):
            kind = rest.rpartition(".")[2].lower()
            reason = f"a part of a sample that is no picture and no class (.{kind})"
            contents.left_out.add(reason, f"{path.name}: {name}")
    for told, value in _json_objects(paths if lone else (), lone):
        if samples.column in value:
            raise BadInput(f"{told} has a class and no picture of a kind that is read")


def _groups(path: Path, samples: Samples) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (by the last part of their names, in small letters) of each sample.

    Only pictures and what may hold a class are read, and at most MAX_MEMBER bytes of a sample.
    """
    key, members, size = None, dict[str, bytes](), 0
    with opened(path, "r|*") as tar:
        for member in tar:
            if not member.isfile() or is_hidden(member.name):
                continue
            own, rest = split_name(member.name, samples.by_last_dot)
            kind = rest.rpartition(".")[2].lower()
            if key is not None and own != key:
                yield key, members
                members, size = {}, 0
            key = own
            if not (f".{kind}" in SUFFIXES or kind == "cls" or (kind == "json" and samples.column)):
                continue
            size += member.size
            if kind in members or size > MAX_MEMBER:
                why = f"two members .{kind}" if kind in members else "more than 256 MiB"
                raise BadInput(f"{path}: {own} has {why}")
            limit = MAX_MEMBER if f".{kind}" in SUFFIXES else MAX_TEXT
            members[kind] = _content(path, tar, member, limit)
    if key is not None:
        yield key, members


def _nothing(content: bytes | None) -> bytes:
    if not content:
        raise BrokenImage("has no bytes of an image")
    return content


def _label(members: dict[str, bytes], samples: Samples, name: str, key: str) -> int | None:
    if samples.column is not None:
        if "json" not in members:
            return None
        value = parse_json(members["json"], f"{name}.json")
        value = value.get(samples.column) if isinstance(value, dict) else None
        if value is None:
            return None
        told = shown(repr(value), 60)
    elif "cls" in members:
        value = members["cls"]
        told = shown(repr(value[:20]))
    else:
        return samples.folders.label(_relative(key))
    if (label := class_of(value)) is None:
        raise BadInput(f"{name}: its class {told} is not an integer from 0")
    return label


def _sample_images(paths: Sequence[Path], samples: Samples) -> Iterator[RawImage]:
    for path in paths:
        with _readable(path):
            done: set[str] = set()
            for key, members in _groups(path, samples):
                name = f"{path}: {key}"
                if key in done:
                    raise BadInput(
                        f"{name}: its parts lie apart in the archive: sort its members by name "
                        "(tar --sort=name), or their classes would be lost"
                    )
                done.add(key)
                label = _label(members, samples, name, key)
                pictures = [kind for kind in members if f".{kind}" in SUFFIXES]
                if len(pictures) > 1:
                    both = f".{pictures[0]} and .{pictures[1]}"
                    raise BadInput(f"{name} has two pictures, {both}, for one class: leave one")
                if not pictures:  # told by `_tell_parts`
                    continue
                content = members[pictures[0]]
                yield RawImage(name, partial(_nothing, content), label, held=len(content))


def _plain_images(paths: Sequence[Path], folders: ClassFolders) -> Iterator[RawImage]:
    """Pictures that stand alone, each with its own name."""
    for path in paths:
        with _readable(path), opened(path, "r|*") as tar:
            for member in tar:
                if (
                    not member.isfile()
                    or is_hidden(member.name)
                    or not is_picture_name(member.name)
                ):
                    continue
                content = _content(path, tar, member, MAX_MEMBER)
                key = _relative(member.name)
                name = f"{path}: {member.name}"
                load = partial(_nothing, content)
                yield RawImage(name, load, folders.label(key), key, held=len(content))


def _relative(name: str) -> str:
    return str(PurePosixPath(name.lstrip("/")))


def open_tars(paths: Sequence[Path], wanted: bool, column: str | None) -> Source:
    """Tar files, plain or compressed, of WebDataset's samples or of pictures alone.

    Args:
        wanted: labels are to be found.
        column: a field of the samples' JSON, or a column of metadata, with the classes.

    Raises:
        BadInput: an archive is cut or damaged, holds no pictures, or has classes that nobody chose.
    """
    contents = list_tars(paths)
    if not contents.pictures:
        raise BadInput(f"{paths[0]}: has no pictures ({', '.join(SUFFIXES)})")
    notes = shard_gaps(paths)
    keys = {split_name(name, True)[0] for _, name in contents.pictures}
    keys |= {split_name(name, False)[0] for _, name in contents.pictures}
    parts = [name for _, name in contents.others if _relative(name) not in LABEL_FILES]
    alone = not any(
        split_name(name, last)[0] in keys or split_name(name, True)[1].lower() == "cls"
        for name in parts
        for last in (True, False)
    )
    if alone:
        return _open_plain(paths, contents, wanted, column, notes)
    samples = _samples(paths, contents, wanted, column, notes)
    if samples.column is not None:
        notes.append(f"classes: the field {shown(samples.column)} of each sample's JSON")
    if samples.by_last_dot:
        notes.append("names have dots: what comes after the last one is the kind of a member")
    _tell_parts(paths, contents, samples)
    return Source(
        "tar" if samples.by_last_dot else "webdataset",
        tuple(paths),
        partial(_sample_images, tuple(paths), samples),
        classes=samples.folders.classes,
        label_column=samples.column,
        left_out=contents.left_out,
        notes=notes,
        missing=missing_parts(paths),
    )


def _open_plain(
    paths: Sequence[Path], contents: Contents, wanted: bool, column: str | None, notes: list[str]
) -> Source:
    names = [_relative(name) for _, name in contents.pictures]
    label_file = find_labels(
        *(paths[0], names, contents.files, contents.files.get, column, wanted, notes)
    )
    folders = ClassFolders()
    if wanted and label_file is None:
        folders = class_folders(names, paths[0], notes)
    for path, name in contents.others:
        if label_file is None or _relative(name) != label_file.name:
            contents.left_out.add(kind_of(name), f"{path.name}: {name}")
    return Source(
        "webdataset",
        tuple(paths),
        partial(_plain_images, tuple(paths), folders),
        classes=folders.classes,
        keys=tuple(names) if len(set(names)) == len(names) else None,
        label_file=label_file,
        left_out=contents.left_out,
        notes=notes,
        missing=missing_parts(paths),
    )


def open_tar_folder(
    folder: Path, files: Sequence[Path], split: str | None, wanted: bool, column: str | None
) -> Source:
    """Tar files of a folder; of several splits one must be chosen, lest they be mixed."""
    splits = {name for name in map(_split_word, files) if name}
    if split is None and len(splits) < 2:
        return open_tars(files, wanted, column)
    if split is None:
        named = ", ".join(sorted(splits))
        raise BadInput(f"{folder}: has the splits {named}: pick one with `split`")
    _, chosen = choose_split(files, folder, split)
    source = open_tars(chosen, wanted, column)
    for file in files:
        if file not in chosen:
            source.left_out.add("a file of another split", file.relative_to(folder))
    return Source(**{**source.__dict__, "split": split})


def _split_word(path: Path) -> str | None:
    word = path.name.split(".")[0].split("-")[0].split("_")[0].rstrip("0123456789")
    return word if is_split(word) else None
