"""Where images are imported from: each layout as one stream of named images. Nothing is extracted.

An archive is read member by member, so that a name in it never becomes a path on the disk.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from sims_core.common.errors import BadInput
from sims_core.common.hostile import guarded, only_our_errors
from sims_core.common.shown import shown
from sims_core.data.bounded_tar import first_member
from sims_core.data.file_kinds import kind_of
from sims_core.data.formats import (
    find_idx,
    is_cifar_archive,
    read_cifar_archive,
    read_idx_pair,
    read_npz,
)
from sims_core.data.raw import NO_LABELS, RawImage, Source
from sims_core.data.tables import (
    has_pictures,
    open_hugging_face,
    open_parquet,
    open_parquet_folder,
    parquet_images,
    split_of,
)
from sims_core.data.tars import open_tar_folder, open_tars
from sims_core.data.trees import Scan, open_folder, open_zip, scan_folder
from sims_core.data.types import Images, Labels

__all__ = ["NO_LABELS", "RawImage", "Source", "open_source", "parquet_images"]


def _arrays(batches: Iterable[tuple[Images, Labels]]) -> Iterator[RawImage]:
    row = 0
    for images, labels in batches:
        for image, label in zip(images, labels.tolist(), strict=True):
            yield RawImage(f"row {row}", partial(np.asarray, image), label)
            row += 1


def _cifar10(path: Path, split: str | None) -> Source:
    chosen = split_of(path, split, ("train", "test"))
    return Source("cifar10", (path,), lambda: _arrays(read_cifar_archive(path, chosen)), chosen)


def _npz(path: Path, split: str | None) -> Source:
    chosen = split_of(path, split, ("train", "test"))
    return Source("npz", (path,), lambda: _arrays([read_npz(path, chosen)]), chosen)


def _idx(folder: Path, split: str | None) -> Source:
    chosen = split_of(folder, split, ("train", "test"))
    if not (pair := find_idx(folder, chosen)):
        raise BadInput(f"{folder}: has no idx files of the split {chosen}")
    return Source("idx", pair, lambda: _arrays([read_idx_pair(*pair)]), chosen)


def _only_folder(names: Sequence[str], root: Path, what: str) -> str:
    """The one folder that all of these lie in; raises BadInput if they lie in several."""
    folders = sorted({str(PurePosixPath(name).parent) for name in names})
    if len(folders) > 1:
        raise BadInput(
            f"{shown(root)}: has {what} in {len(folders)} folders, {shown(folders[0])}, "
            f"{shown(folders[1])}, ...: give the one that you mean"
        )
    return folders[0]


def _folder(path: Path, split: str | None, wanted: bool, column: str | None) -> Source:
    """A folder of whatever: pictures, Parquet files or tar files, but not two of them."""
    root = path / split if split and (path / split).is_dir() else path
    scan = scan_folder(root)
    tables = [name for name in scan.tables if has_pictures(root / name)]
    if not scan.pictures and not scan.tars and not tables:
        tables = scan.tables  # none has pictures: reading the first says what it has
    scan.tables = [name for name in scan.tables if name not in set(tables)]
    found = {"pictures": scan.pictures, "tar files": scan.tars, "Parquet files": tables}
    found = {what: names for what, names in found.items() if names}
    if len(found) > 1:
        listed = " and ".join(
            f"{len(names)} {what} ({shown(names[0])})" for what, names in found.items()
        )
        raise BadInput(
            f"{shown(path)}: has {listed}, and only one sort can be imported: give the path of "
            "what you mean, or move the others away"
        )
    inner = None if root == path else split
    if scan.tars or tables:
        return _shards(path, scan, tables, split, wanted, column)
    if split is not None and inner is None:
        raise BadInput(f"`split` {split}: {path} has no sub-folder of that name")
    return open_folder(path, scan, inner, wanted, column)


def _shards(
    path: Path,
    scan: Scan,
    tables: Sequence[str],
    split: str | None,
    wanted: bool,
    column: str | None,
) -> Source:
    """Tar or Parquet files, which lie in one folder: the given one, or one below it."""
    root, names = scan.root, scan.tars or tables
    what = "tar files" if scan.tars else "Parquet files"
    files = [root / name for name in names]
    folder = root / _only_folder(names, root, what)
    by_name = split if root == path else None
    opener = open_tar_folder if scan.tars else open_parquet_folder
    source = opener(folder, files, by_name, wanted, column)
    if folder != root:
        source.notes.append(f"{what} lie in {shown(folder.relative_to(root))}")
    for name in (*scan.others, *scan.tables):
        source.left_out.add(kind_of(name), name)
    for reason, row in scan.left_out.row().items():
        source.left_out.add(reason, row["first"][0], row["count"])
    return source if by_name == split else replace(source, split=split)


def open_source(
    path: Path, split: str | None = None, wanted: bool = True, column: str | None = None
) -> Source:
    """What lies at `path`, found by what it is and not by how it is called.

    Args:
        split: one of the source's splits; None: its first (train), or all of it if it has none.
        wanted: whether the source's own labels are wanted: sub-folders, columns, files in it.
        column: of a table, or field of samples' JSON, with the classes.

    Raises:
        BadInput: nothing is there, or nothing that can be imported; says what could be.
    """
    with only_our_errors(path):
        source = _open(path, split, wanted, column)
    return replace(source, read=partial(guarded, source.read, path))


def _open(path: Path, split: str | None, wanted: bool, column: str | None) -> Source:
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return open_hugging_face(path, split, wanted, column)
        if find_idx(path, "train") or find_idx(path, "test"):
            return _idx(path, split)
        return _folder(path, split, wanted, column)
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    if path.suffix.lower() == ".parquet":
        return open_parquet(path, split, wanted, column)
    if path.suffix == ".npz":
        return _npz(path, split)
    if is_cifar_archive(path):
        return _cifar10(path, split)
    if zipfile.is_zipfile(path):
        return open_zip(path, split, wanted, column)
    if first_member(path) is not None:
        if split is not None:
            raise BadInput(f"`split` {split}: a WebDataset is imported whole; give its tar files")
        return open_tars([path], wanted, column)
    raise BadInput(
        f"{path}: not something to import; wanted: a folder or zip of images, a WebDataset (tar "
        "files), Parquet with encoded images, what Hugging Face's save_to_disk wrote, CIFAR-10's "
        "archives, or MNIST's npz or folder of idx files"
    )
