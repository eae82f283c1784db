"""Where images are imported from: each layout as one stream of named images. Nothing is extracted.

An archive is read member by member, so that a name in it never becomes a path on the disk.
"""

from __future__ import annotations

import json
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image

from sims_core.common.errors import BadInput
from sims_core.data.formats import (
    MAX_MEMBER,
    find_idx,
    is_cifar_archive,
    read_cifar_archive,
    read_idx_pair,
    read_npz,
)
from sims_core.data.pictures import BrokenImage, _reason
from sims_core.data.types import Images, Labels

# A picture with more pixels than Pillow thinks sane is an error, not a line on the terminal.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")


SPLITS = ("train", "test", "val", "valid", "validation")


@dataclass(frozen=True)
class RawImage:
    """An image of a source, not read yet."""

    name: str
    """File or row: what a message about it says."""
    load: Callable[[], bytes | Images]
    """Encoded, or uint8 [C, H, W]; raises BrokenImage."""
    label: int | None = None


@dataclass(frozen=True)
class Source:
    """Something to import images from."""

    layout: str
    files: tuple[Path, ...]
    """Everything that its content is in, in order."""
    read: Callable[[], Iterator[RawImage]]
    split: str | None = None
    names: tuple[str, ...] | None = None
    """How many images there are, where that is known before they are read."""
    classes: tuple[str, ...] = ()
    """Name of each class, where the source gives names."""


def _arrays(batches: Iterable[tuple[Images, Labels]]) -> Iterator[RawImage]:
    row = 0
    for images, labels in batches:
        for image, label in zip(images, labels.tolist(), strict=True):
            yield RawImage(f"row {row}", partial(np.asarray, image), label)
            row += 1


def _cifar10(path: Path, split: str | None) -> Source:
    chosen = _split_of(path, split, ("train", "test"))
    return Source("cifar10", (path,), lambda: _arrays(read_cifar_archive(path, chosen)), chosen)


def _npz(path: Path, split: str | None) -> Source:
    chosen = _split_of(path, split, ("train", "test"))
    return Source("npz", (path,), lambda: _arrays([read_npz(path, chosen)]), chosen)


def _idx(folder: Path, split: str | None) -> Source:
    chosen = _split_of(folder, split, ("train", "test"))
    if not (pair := find_idx(folder, chosen)):
        raise BadInput(f"{folder}: has no idx files of the split {chosen}")
    return Source("idx", pair, lambda: _arrays([read_idx_pair(*pair)]), chosen)


def _split_of(path: Path, split: str | None, splits: Sequence[str]) -> str:
    """The chosen split; the first one where none was asked for."""
    if split is not None and split not in splits:
        raise BadInput(f"--split {split}: {path} has {', '.join(splits)}")
    return split or splits[0]


def _columns(schema: pa.Schema, where: str) -> tuple[str, str | None]:
    """Name of the column of encoded images (bytes, or a struct with bytes), and of the labels."""

    def encoded(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    images = [name for name in IMAGE_COLUMNS if name in schema.names]
    images = images or [field.name for field in schema if encoded(field.type)]
    if len(images) != 1 or not encoded(schema.field(images[0]).type):
        raise BadInput(
            f"{where}: wants one column of encoded images, named image or img; columns: "
            + ", ".join(f"{field.name} ({field.type})" for field in schema)
        )
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    if labels and not pa.types.is_integer(schema.field(labels[0]).type):
        raise BadInput(f"{where}: column {labels[0]} must hold integers")
    return images[0], labels[0] if labels else None


def _encoded(value: Any) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not content:
        raise BrokenImage("has no bytes of an image")
    return bytes(content)


def _rows(batches: Iterable[pa.RecordBatch], where: str) -> Iterator[RawImage]:
    row = 0
    for batch in batches:
        image_column, label_column = _columns(batch.schema, where)
        labels = batch[label_column].to_pylist() if label_column else [None] * len(batch)
        for value, label in zip(batch[image_column].to_pylist(), labels, strict=True):
            yield RawImage(f"{where}: row {row}", partial(_encoded, value), label)
            row += 1


def parquet_images(paths: Sequence[Path]) -> Iterator[RawImage]:
    """Rows of Parquet files with encoded images, a few at a time.

    Raises:
        BadInput: a file is no Parquet file, is damaged, or has no such column.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                image_column, label_column = _columns(file.schema_arrow, str(path))
                columns = [name for name in (image_column, label_column) if name]
                yield from _rows(file.iter_batches(256, columns=columns), str(path))
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: unreadable: {str(error).splitlines()[0]}") from None


def _parquet(path: Path, split: str | None) -> Source:
    if path.is_file():
        if split is not None:
            raise BadInput(f"--split {split}: {path} is one file, which is imported whole")
        return Source("parquet", (path,), lambda: parquet_images([path]))
    files = sorted(path.glob("*.parquet"))
    splits = [name for name in SPLITS if any(file.name.startswith(name) for file in files)]
    chosen = _split_of(path, split, splits) if splits or split else None
    paths = tuple(file for file in files if file.name.startswith(chosen or ""))
    return Source("parquet", paths, lambda: parquet_images(paths), chosen)


def _arrow_images(paths: Sequence[Path]) -> Iterator[RawImage]:
    for path in paths:
        try:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                yield from _rows(stream, str(path))
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: unreadable: {str(error).splitlines()[0]}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: unreadable: {error}") from None


def _hugging_face(folder: Path, split: str | None) -> Source:
    """What `save_to_disk` of Hugging Face's library wrote: a data set, or a folder for each split.

    A file's name in its state is only taken if it lies in the folder itself.
    """
    chosen = None
    if (folder / "dataset_dict.json").is_file():
        splits = _read_json(folder / "dataset_dict.json").get("splits", [])
        chosen = _split_of(folder, split, [str(name) for name in splits])
        folder = folder / PurePosixPath(chosen).name
    elif split is not None:
        raise BadInput(f"--split {split}: {folder} has no splits")
    state = _read_json(folder / "state.json")
    names = [str(entry.get("filename", "")) for entry in state.get("_data_files", [])]
    if not names or any(PurePosixPath(name).name != name for name in names):
        raise BadInput(f"{folder}/state.json: names no data files of its folder")
    if state.get("_indices_files"):
        raise BadInput(f"{folder}: is a selection of rows; save it by flatten_indices() first")
    features = _read_json(folder / "dataset_info.json").get("features") or {}
    classes = next((features[name].get("names") for name in LABEL_COLUMNS if name in features), ())
    paths = tuple(folder / name for name in names)
    return Source(
        "hugging_face", paths, lambda: _arrow_images(paths), chosen, None, tuple(classes or ())
    )


def _tar_members(path: Path, tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    for member in tar:
        if not member.isfile():
            continue
        if member.size > MAX_MEMBER:
            raise BadInput(f"{path}: {member.name} has more than {MAX_MEMBER >> 20} MiB")
        if file := tar.extractfile(member):
            yield {"fname": member.name, "data": file.read(), "__url__": str(path)}


def _webdataset_images(paths: Sequence[Path]) -> Iterator[RawImage]:
    for path in paths:
        try:
            with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
                for sample in wds.tariterators.group_by_keys(_tar_members(path, tar)):
                    yield _webdataset_image(path, sample)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise BadInput(f"{path}: unreadable: {error}") from None


def _webdataset_image(path: Path, sample: dict[str, Any]) -> RawImage:
    name = f"{path}: {sample['__key__']}"
    content = next((sample[key] for key in sample if f".{key.lower()}" in SUFFIXES), None)
    try:
        label = int(sample["cls"]) if "cls" in sample else None
    except ValueError:
        raise BadInput(f"{name}: its class {sample['cls'][:20]!r} is not an integer") from None
    return RawImage(name, partial(_encoded, content), label)


def _webdataset(path: Path, split: str | None) -> Source:
    paths = (path,) if path.is_file() else tuple(sorted(path.glob("*.tar")))
    if split is not None:
        raise BadInput(f"--split {split}: a WebDataset is imported whole; give its tar files")
    return Source("webdataset", paths, lambda: _webdataset_images(paths))


def _folder_classes(names: Sequence[str], where: Path) -> tuple[str, ...]:
    """Names of the sub-folders, the classes; none if no image lies in one.

    Raises:
        BadInput: some do and some do not, or the sub-folders are splits.
    """
    parts = [PurePosixPath(name).parts for name in names]
    classes = sorted({part[0] for part in parts if len(part) > 1})
    if classes and any(len(part) == 1 for part in parts):
        loose = next(name for name, part in zip(names, parts, strict=True) if len(part) == 1)
        raise BadInput(
            f"{where}: {loose} lies in no sub-folder while others do (the sub-folders are the "
            "classes): move it, or pass --labels FILE or --labels none"
        )
    if classes and set(classes) <= set(SPLITS):
        raise BadInput(f"{where}: has the splits {', '.join(classes)}: pick one with --split")
    return tuple(classes)


def _named(
    layout: str,
    where: Path,
    names: Sequence[str],
    load: Callable[[str], bytes],
    files: tuple[Path, ...],
    split: str | None,
    by_folder: bool,
) -> Source:
    """Images that have names: files of a folder, members of a zip. Class: the sub-folder."""
    if not names:
        raise BadInput(f"{where}: has no images ({', '.join(SUFFIXES)})")
    classes = _folder_classes(names, where) if by_folder else ()
    numbers = {name: number for number, name in enumerate(classes)}

    def read() -> Iterator[RawImage]:
        for name in names:
            label = numbers[PurePosixPath(name).parts[0]] if classes else None
            yield RawImage(name, partial(load, name), label)

    return Source(layout, files, read, split, tuple(names), classes)


def _is_image_name(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _folder(path: Path, split: str | None, by_folder: bool) -> Source:
    root = path / split if split else path
    if not root.is_dir():
        raise BadInput(f"--split {split}: {path} has no sub-folder of that name")
    names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    names = [name for name in names if _is_image_name(name)]

    def load(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise BrokenImage(error.strerror or str(error)) from None

    return _named(
        "folder", path, names, load, tuple(root / name for name in names), split, by_folder
    )


def _zip(path: Path, split: str | None, by_folder: bool) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: unreadable: {error}") from None
    infos = [info for info in archive.infolist() if _is_image_name(info.filename)]
    members = {info.filename: info for info in infos}
    if len(members) < len(infos):
        twice = next(name for name, n in Counter(i.filename for i in infos).items() if n > 1)
        raise BadInput(f"{path} holds two images of the name {twice}: give them names of their own")
    prefix = f"{split}/" if split else ""
    if split and not any(name.startswith(prefix) for name in members):
        raise BadInput(f"--split {split}: {path} has no folder of that name")
    names = sorted(name.removeprefix(prefix) for name in members if name.startswith(prefix))

    def load(name: str) -> bytes:
        member = members[prefix + name]
        if member.file_size > MAX_MEMBER:
            raise BrokenImage(f"unpacks to more than {MAX_MEMBER >> 20} MiB")
        try:
            return archive.read(member)
        except Exception as error:  # wrong sums, encryption, unknown compression
            raise BrokenImage(_reason(error)) from None

    return _named("zip", path, names, load, (path,), split, by_folder)


def open_source(path: Path, split: str | None = None, by_folder: bool = True) -> Source:
    """What lies at `path`, found by what it is and not by how it is called.

    Args:
        split: one of the source's splits; None: its first (train), or all of it if it has none.
        by_folder: whether the sub-folders of a folder or zip of images are its classes.

    Raises:
        BadInput: nothing is there, or nothing that can be imported; says what could be.
    """
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return _hugging_face(path, split)
        if find_idx(path, "train") or find_idx(path, "test"):
            return _idx(path, split)
        for pattern, opener in (("*.parquet", _parquet), ("*.tar", _webdataset)):
            if any(path.glob(pattern)):
                return opener(path, split)
        return _folder(path, split, by_folder)
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    if path.suffix == ".parquet":
        return _parquet(path, split)
    if path.suffix == ".npz":
        return _npz(path, split)
    if is_cifar_archive(path):
        return _cifar10(path, split)
    if zipfile.is_zipfile(path):
        return _zip(path, split, by_folder)
    if tarfile.is_tarfile(path):
        return _webdataset(path, split)
    raise BadInput(
        f"{path}: not something to import; wanted: a folder or zip of images, a WebDataset (tar "
        "files), Parquet with encoded images, what Hugging Face's save_to_disk wrote, CIFAR-10's "
        "archives, or MNIST's npz or folder of idx files"
    )
