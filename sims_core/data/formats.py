"""Readers of the formats that public data sets come in. Nothing general is unpickled.

Every reader gives whole arrays of at most 60,000 small images: uint8 [N, C, H, W] and int64 [N].
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import pickletools
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sims_core.common.errors import BadInput
from sims_core.common.hostile import MAX_MEMBER, reason, regular
from sims_core.common.shown import shown
from sims_core.data.bounded_tar import first_member, opened
from sims_core.data.classes import check_classes
from sims_core.data.types import Images, Labels

CIFAR_ROW = 1 + 3 * 32 * 32


CIFAR_FOLDERS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}
"""Folder inside each of the two official archives, and how its batches' names end."""


class _Stub:
    """Stands for a numpy object of a pickle; holds what its state was and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BatchUnpickler(pickle.Unpickler):
    """Knows the three names in a CIFAR-10 batch, and gives a stub for each.

    So nothing that a file names is ever imported or called, whatever it names.
    """

    NAMES = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"names {module}.{name}")
        return _Stub

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("has a persistent id")


def _check_memo(content: bytes) -> None:
    """Raises ValueError where the pickle numbers its memo beyond what its own size can fill: the
    unpickler makes a table of that length."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError(f"its memo has an entry {argument}")


def read_cifar_python(content: bytes, name: str) -> tuple[Images, Labels]:
    """One batch of cifar-10-python.tar.gz: a pickle of Python 2 with arrays of numpy.

    Raises:
        BadInput: it is anything but such a batch; nothing of it was executed.
    """
    try:
        _check_memo(content)
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        _, shape, dtype, fortran, pixels = batch[b"data"].state
        labels = batch[b"labels"]
        if (dtype.arguments[0], bool(fortran), tuple(shape)) != (b"u1", False, (len(labels), 3072)):
            raise ValueError("the data are not a row of 3072 bytes for each label")
        if not all(type(label) is int and 0 <= label < 10 for label in labels):
            raise ValueError("a label is not one of 0 .. 9")
        images = np.frombuffer(pixels, dtype=np.uint8).reshape(len(labels), 3, 32, 32)
    except Exception as error:  # a hostile pickle can raise nearly anything
        raise BadInput(f"{shown(name)}: not a batch of CIFAR-10: {reason(error)}") from None
    return images, np.array(labels, dtype=np.int64)


def read_cifar_binary(content: bytes, name: str) -> tuple[Images, Labels]:
    """One batch of cifar-10-binary.tar.gz: rows of a label and 3,072 pixels.

    Raises:
        BadInput: the length is not that of whole rows.
    """
    if not content or len(content) % CIFAR_ROW:
        raise BadInput(f"{name}: {len(content)} bytes are no whole rows of {CIFAR_ROW}")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, CIFAR_ROW)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)


def cifar_batches(split: str) -> tuple[str, ...]:
    return tuple(f"data_batch_{n}" for n in range(1, 6)) if split == "train" else ("test_batch",)


def read_cifar_archive(path: Path, split: str) -> Iterator[tuple[Images, Labels]]:
    """The batches of a split, in order, from one of the official archives; nothing is extracted.

    Raises:
        BadInput: the archive is cut, or a batch is missing or wrong.
    """
    try:
        with opened(path) as tar:
            for batch in cifar_batches(split):
                member, read = _cifar_member(tar, path, batch)
                yield read(_read_member(tar, member, path), f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInput(f"{path}: not a readable archive: {error}") from None


def _cifar_member(tar: tarfile.TarFile, path: Path, batch: str) -> tuple[tarfile.TarInfo, Any]:
    for folder, suffix in CIFAR_FOLDERS.items():
        try:
            member = tar.getmember(f"{folder}/{batch}{suffix}")
        except KeyError:
            continue
        return member, read_cifar_binary if suffix else read_cifar_python
    raise BadInput(f"{path}: has no {batch} of CIFAR-10 (binary or Python version)")


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    if not member.isfile() or member.size > MAX_MEMBER:
        raise BadInput(f"{path}: {member.name} is no file of at most {MAX_MEMBER >> 20} MiB")
    file = tar.extractfile(member)
    return file.read() if file else b""


def is_cifar_archive(path: Path) -> bool:
    """Whether the tar file's first members lie in a folder of CIFAR-10's archives."""
    first = first_member(path)
    return first is not None and first.name.split("/")[0] in CIFAR_FOLDERS


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The array of an idx file of bytes, plain or compressed by gzip.

    Raises:
        BadInput: it is no idx file of bytes, or cut.
    """
    try:
        with gzip.open(regular(path)) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_MEMBER + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{path}: unreadable: {error}") from None
    if len(content) > MAX_MEMBER:
        raise BadInput(f"{path}: unpacks to more than {MAX_MEMBER >> 20} MiB")
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise BadInput(f"{path}: not an idx file of bytes")
    shape = np.frombuffer(content, dtype=">u4", count=content[3], offset=4).tolist()
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3])
    if not 1 <= len(shape) <= 4 or math.prod(shape) != len(values):
        raise BadInput(f"{path}: holds {len(values)} values instead of {shape}")
    return values.reshape(shape)


IDX_NAMES = {"train": "train", "test": "t10k"}


def find_idx(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Files of a split's images and labels in a folder, as MNIST and its likes name them."""
    found = []
    for part in ("images-idx3", "labels-idx1"):
        stem = f"{IDX_NAMES[split]}-{part}-ubyte"
        paths = [folder / stem, folder / f"{stem}.gz"]
        found += [path for path in paths if path.is_file()][:1]
    return (found[0], found[1]) if len(found) == 2 else None


def read_idx_pair(images_path: Path, labels_path: Path) -> tuple[Images, Labels]:
    """MNIST's two files.

    Raises:
        BadInput: their shapes are not [N, H, W] and [N].
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise BadInput(
            f"{images_path}: images {list(images.shape)} and labels {list(labels.shape)} "
            "do not belong together"
        )
    _check_pixels(images[:, None], images_path)
    return images[:, None], labels.astype(np.int64)


def _check_pixels(images: Images, path: Path) -> None:
    """Raises BadInput unless images [N, C, H, W] are grey or RGB and have pixels."""
    _, channels, height, width = images.shape
    if channels not in (1, 3) or not height or not width:
        raise BadInput(
            f"{path}: images of {channels} x {height} x {width} (channels x height x width); "
            "wanted 1 or 3 channels of at least one pixel"
        )


def _check_headers(members: zipfile.ZipFile, path: Path) -> None:
    """Raises BadInput if an array claims more bytes than its file in the archive has."""
    for member in members.infolist():
        if member.file_size > MAX_MEMBER:
            raise BadInput(f"{path}: an array unpacks to more than {MAX_MEMBER >> 20} MiB")
        with members.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise BadInput(f"{path}: {member.filename} is an array of an unknown version")
            one = version == (1, 0)
            read = (
                np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
            raise BadInput(f"{path}: {member.filename} is no array of numbers that it has room for")


def read_npz(path: Path, split: str) -> tuple[Images, Labels]:
    """Keras' layout of MNIST: x_train, y_train, x_test, y_test. Grey [N, H, W] or [N, H, W, C].

    Raises:
        BadInput: it has other keys, types or shapes; an array of objects is never unpickled.
    """
    try:
        with zipfile.ZipFile(path) as members:
            _check_headers(members, path)
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
    except KeyError:
        raise BadInput(f"{path}: has no arrays x_{split} and y_{split}") from None
    except BadInput:
        raise
    except Exception as error:  # hostile headers can raise nearly anything
        raise BadInput(f"{path}: unreadable: {reason(error)}") from None
    labels = labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole_numbers = np.issubdtype(labels.dtype, np.integer)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not whole_numbers:
        raise BadInput(f"{path}: x_{split} must be uint8 images and y_{split} integers")
    if labels.shape != images.shape[:1]:
        raise BadInput(f"{path}: {len(images)} images and {labels.shape} labels")
    images = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    _check_pixels(images, path)
    if labels.dtype == np.uint64:  # beyond int64 it would turn negative
        check_classes(labels, path)
    return images, labels.astype(np.int64)
