"""Public data sets, wherever their bytes are found: the content is what is checked.

Looked for in the data folder (SIMS_DATA) in every form that people have them in, else fetched from
the publisher by torchvision's downloader into a folder of downloads.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from sims_core.common.errors import BadInput
from sims_core.data.config import KnownImages
from sims_core.data.formats import find_idx, read_cifar_archive, read_idx_pair, read_npz
from sims_core.data.image_writer import ImageWriter
from sims_core.data.known_sets import KNOWN_SETS
from sims_core.data.types import Images, Labels
from sims_core.engine.execution import DataFiles
from sims_core.engine.stage import StageContext

CONNECT_S = 20.0


Batches = Iterator[tuple[Images, Labels]]


def content_sha256(images: Images, labels: Labels) -> str:
    """SHA-256 over all images: a byte with the label, then the pixels."""
    rows = images.reshape(len(images), -1)
    table = np.concatenate([labels.astype(np.uint8)[:, None], rows], axis=1)
    return hashlib.sha256(table.tobytes()).hexdigest()


def _parquet_batches(paths: list[Path], batch_size: int) -> Batches:
    from sims_core.data.pictures import decode
    from sims_core.data.sources import parquet_images

    images: list[Images] = []
    labels: list[int] = []
    for image in parquet_images(paths):
        images.append(decode(image.load()))
        labels.append(-1 if image.label is None else image.label)
        if len(images) == batch_size:
            yield np.stack(images), np.array(labels)
            images, labels = [], []
    if images:
        yield np.stack(images), np.array(labels)


Place = tuple[Path, Callable[[], Batches]]
"""Where a set was found, and what reads its batches from there."""


def find_cifar10(folder: Path, split: str) -> Place | None:
    """CIFAR-10 in `folder`: one of the publisher's archives, or Parquet files."""
    for name in ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"):
        if (archive := folder / name).is_file():
            return archive, lambda: read_cifar_archive(archive, split)
    # In the data folder itself another set's Parquet files may lie.
    parquet = sorted(folder.glob(f"{split}*.parquet")) if folder.name == "cifar10" else []
    return (parquet[0], lambda: _parquet_batches(parquet, 10_000)) if parquet else None


def find_idx_or_npz(folder: Path, split: str) -> Place | None:
    """A set in MNIST's format in `folder`: idx files, or mnist.npz."""
    if pair := find_idx(folder, split):
        return pair[0], lambda: iter([read_idx_pair(*pair)])
    if (npz := folder / "mnist.npz").is_file():
        return npz, lambda: iter([read_npz(npz, split)])
    return None


def find(config: KnownImages, root: Path | None) -> Place | None:
    """Where the set lies and what reads its batches; None if it is nowhere."""
    known = KNOWN_SETS[config.source]
    finder: Callable[[Path, str], Place | None] = resolve_name(known.finder)
    folders = [root / name for name in known.folders] if root else []
    found = (finder(folder, config.split) for folder in (*folders, *known.elsewhere))
    return next((place for place in found if place), None)


def _fetch(config: KnownImages, folder: Path) -> None:
    """Fetches the set's files into `folder`, each checked against the publisher's MD5 sum.

    Raises:
        OSError, RuntimeError: no address answers, or what came is not the file.
    """
    published = resolve_name(KNOWN_SETS[config.source].publisher)
    if hasattr(published, "resources"):
        files = [
            ([mirror + name for mirror in published.mirrors], name, md5)
            for name, md5 in published.resources
        ]
    else:
        files = [([published.url], published.filename, published.tgz_md5)]
    for addresses, name, md5 in files:
        _fetch_file(addresses, folder, name, md5)


def _fetch_file(addresses: list[str], folder: Path, name: str, md5: str) -> None:
    from torchvision.datasets.utils import download_url

    for number, address in enumerate(addresses, start=1):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                download_url(address, folder, filename=name, md5=md5)
            return
        except (OSError, RuntimeError, http.client.HTTPException):
            if number == len(addresses):
                raise


@contextlib.contextmanager
def _connection_limit() -> Iterator[None]:
    """A network that swallows everything must not keep a run waiting for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def locate(config: KnownImages, files: DataFiles) -> Place:
    """What `find` finds in the data folder, among the downloads, or after fetching it.

    Raises:
        BadInput: it is nowhere; says what to do.
    """
    if place := find(config, files.source):
        return place
    where = f"not in the data folder {files.source}" if files.source else "SIMS_DATA is not set"
    if files.downloads is not None:
        folder = files.downloads / config.source
        if place := find(config, files.downloads):
            return place
        try:
            with _connection_limit():
                _fetch(config, folder)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            where += f", and fetching it failed ({str(error).splitlines()[0]})"
        if place := find(config, files.downloads):
            return place
    raise BadInput(
        f"no {config.source} data: {where}: {KNOWN_SETS[config.source].advice} and set SIMS_DATA "
        "to it"
    )


def read_known(config: KnownImages, files: DataFiles) -> Batches:
    """The set's first images, batch by batch, each batch checked as a whole.

    Raises:
        BadInput: the set is nowhere, or what was found is not it.
    """
    path, read = locate(config, files)
    wanted, first = config.contents.count, 0
    batches = read()
    for number, checksum in enumerate(KNOWN_SETS[config.source].checksums[config.split], start=1):
        images, labels = next(batches, (None, None))
        if images is None or labels is None or content_sha256(images, labels) != checksum:
            raise BadInput(
                f"{path}: batch {number} of the {config.split} split is not that of "
                f"{config.source} (its SHA-256 differs): get the file again, or remove it"
            )
        yield images[: wanted - first], labels[: wanted - first]
        first += len(images)
        if first >= wanted:
            return


def prepare_known(context: StageContext[KnownImages]) -> dict[str, Any]:
    """Stage `prepare_known`: writes the data set as shards with labels."""
    config = context.config
    writer = ImageWriter(context.directory)
    for images, labels in read_known(config, context.execution.files):
        for image, label in zip(images, labels.tolist(), strict=True):
            writer.add(image, label)
        context.progress(writer.count, config.contents.count, "img")
    return {"source": config.source, "split": config.split, **writer.finish()}
