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
from typing import Any

import numpy as np

from sims_core.common.errors import BadInput
from sims_core.data.config import KnownImages
from sims_core.data.formats import find_idx, read_cifar_archive, read_idx_pair, read_npz
from sims_core.data.image_set import ImageWriter
from sims_core.data.types import Images, Labels
from sims_core.engine.execution import DataFiles
from sims_core.engine.stage import StageContext

CHECKSUMS = {
    ("cifar10", "train"): (
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    ),
    ("cifar10", "test"): ("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",),
    ("mnist", "train"): ("baedb0edd00a28e97b281c967f6c7514bedfea1d17b30334caccd6ec0d75cf98",),
    ("mnist", "test"): ("ad39c4e3d6eb0920f4ea84533a577cc5afbb47c5e8034d374d0605316c8923f3",),
    ("fashion", "train"): ("6d226526ff970f03ea8725a39e125b1ab590f498a25f501e69a46359e7478773",),
    ("fashion", "test"): ("c1f40a40017890ce0b14203aa6b8340d8bead8df69f0a9baba26c47b226338ba",),
}
"""SHA-256 of each batch as rows of one label byte and the pixels: for CIFAR-10 that of the binary
version's files. Content with these sums also gives the publishers' MD5 sums (tests/known_data)."""


FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


FOLDERS = {
    "cifar10": ("cifar10", "."),
    "mnist": ("mnist", "MNIST/raw", "."),
    "fashion": ("fashion", "fashion-mnist", "FashionMNIST/raw"),
}
"""Where in the data folder each set may lie."""


ADVICE = {
    "cifar10": (
        "put cifar-10-binary.tar.gz or cifar-10-python.tar.gz as the publisher gives it (or "
        "Parquet files cifar10/train*.parquet and cifar10/test*.parquet) into a folder"
    ),
    "mnist": "put the idx files (train-images-idx3-ubyte.gz, ...) or mnist.npz into a folder",
    "fashion": (
        "install Debian's package dataset-fashion-mnist, or put the idx files "
        "(train-images-idx3-ubyte.gz, ...) into a sub-folder `fashion` of a folder"
    ),
}


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


def _find_cifar10(folder: Path, split: str) -> tuple[Path, Callable[[], Batches]] | None:
    for name in ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"):
        if (archive := folder / name).is_file():
            return archive, lambda: read_cifar_archive(archive, split)
    # In the data folder itself another set's Parquet files may lie.
    parquet = sorted(folder.glob(f"{split}*.parquet")) if folder.name == "cifar10" else []
    return (parquet[0], lambda: _parquet_batches(parquet, 10_000)) if parquet else None


def _find_idx_or_npz(folder: Path, split: str) -> tuple[Path, Callable[[], Batches]] | None:
    if pair := find_idx(folder, split):
        return pair[0], lambda: iter([read_idx_pair(*pair)])
    if (npz := folder / "mnist.npz").is_file():
        return npz, lambda: iter([read_npz(npz, split)])
    return None


def find(config: KnownImages, root: Path | None) -> tuple[Path, Callable[[], Batches]] | None:
    """Where the set lies and what reads its batches; None if it is nowhere."""
    finder = _find_cifar10 if config.source == "cifar10" else _find_idx_or_npz
    folders = [root / name for name in FOLDERS[config.source]] if root else []
    if config.source == "fashion":
        folders.append(FASHION_FOLDER)
    found = (finder(folder, config.split) for folder in folders)
    return next((place for place in found if place), None)


def _fetch(config: KnownImages, folder: Path) -> None:
    """Fetches the set's files into `folder`, each checked against the publisher's MD5 sum.

    Raises:
        OSError, RuntimeError: no address answers, or what came is not the file.
    """
    from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

    if config.source == "cifar10":
        files = [([CIFAR10.url], CIFAR10.filename, CIFAR10.tgz_md5)]
    else:
        known = MNIST if config.source == "mnist" else FashionMNIST
        files = [
            ([mirror + name for mirror in known.mirrors], name, md5)
            for name, md5 in known.resources
        ]
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


def locate(config: KnownImages, files: DataFiles) -> tuple[Path, Callable[[], Batches]]:
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
        f"no {config.source} data: {where}: {ADVICE[config.source]} and set SIMS_DATA to it"
    )


def read_known(config: KnownImages, files: DataFiles) -> Batches:
    """The set's first images, batch by batch, each batch checked as a whole.

    Raises:
        BadInput: the set is nowhere, or what was found is not it.
    """
    path, read = locate(config, files)
    wanted, first = config.contents.count, 0
    batches = read()
    for number, checksum in enumerate(CHECKSUMS[config.source, config.split], start=1):
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
