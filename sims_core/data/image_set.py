"""Images and latents as WebDataset tar shards: an image is a PNG, latents are an .npy; the class
label is text, the seed is in the key.

Equal content is equal bytes: members carry no time and no owner.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from sims_core.common.errors import DamagedArtifact
from sims_core.common.frozen import Frozen
from sims_core.data.config import Contents
from sims_core.data.grid import encode_png
from sims_core.data.tar_samples import SampleWriter, stream_members
from sims_core.data.types import Images, Labels, Latents

IMAGES_PER_SHARD = 1024


class Shard(Frozen):
    """One tar file of an image set and how many images it holds."""

    file: str
    count: int = Field(ge=1)


class Scaling(Frozen):
    """What networks see is (stored - shift) * scale, channel by channel."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]


def scaled_latents(stored: NDArray[Any], scaling: Scaling | None) -> NDArray[Any]:
    """Stored latents float16 [..., C, H, W] as networks see them; without `scaling` as they are."""
    if scaling is None:
        return stored
    shift, scale = (
        np.array(each, dtype=np.float32)[:, None, None] for each in (scaling.shift, scaling.scale)
    )
    scaled: Latents = ((stored - shift) * scale).astype(np.float16)
    return scaled


class ImageSet(Frozen):
    """Index of an artifact of images or latents, stored as images.json beside its shards."""

    count: int
    channels: int
    height: int
    width: int
    class_histogram: dict[str, int]
    """Images per class label; empty when the set has no labels."""
    shards: tuple[Shard, ...]
    scaling: Scaling | None = None
    """How latents are scaled from what the autoencoder has; None: stored as networks see them."""

    @property
    def contents(self) -> Contents:
        return Contents(
            count=self.count,
            channels=self.channels,
            height=self.height,
            width=self.width,
            num_classes=1 + max(map(int, self.class_histogram), default=-1),
        )


INDEX_FILE = "images.json"


def shard_name(number: int) -> str:
    return f"images-{number:05d}.tar"


def _encode(sample: Images | Latents) -> tuple[str, bytes]:
    """A member's extension and bytes."""
    if sample.dtype == np.uint8:
        return "png", encode_png(sample.astype(np.uint8, copy=False))
    buffer = io.BytesIO()
    np.save(buffer, sample, allow_pickle=False)
    return "npy", buffer.getvalue()


class ShardWriter:
    """Writes one shard, sample by sample, under a temporary name until it is closed.

    Args:
        first_index: index of its first sample in the set; keys are `index` or `index_seed`
            (hexadecimal).
    """

    def __init__(self, path: Path, first_index: int) -> None:
        self.path, self.partial = path, path.with_suffix(".partial")
        self.first_index, self.count = first_index, 0
        self._stream = self.partial.open("wb")
        self._tar = SampleWriter(self._stream)

    def add(self, extension: str, content: bytes, label: int | None, seed: int | None) -> None:
        """The next sample: its encoded content, class (written as text `.cls`) and seed."""
        key = f"{self.first_index + self.count:08d}"
        if seed is not None:
            key += f"_{seed:08x}"
        members = {extension: content}
        if label is not None:
            members["cls"] = str(label).encode()
        try:
            self._tar.write(key, members)
        except BaseException:  # nobody else would close it
            self.abandon()
            raise
        self.count += 1

    def close(self) -> None:
        """Ends the shard and gives it its name."""
        try:
            self._tar.close()
            self._stream.close()
        except BaseException:  # a full disk may show only now; the file must not stay open
            self.abandon()
            raise
        os.replace(self.partial, self.path)

    def abandon(self) -> None:
        """Lets the file go; what was written has no name that anybody reads."""
        # A full disk, which was told already; or it was closed before.
        with suppress(OSError, ValueError):
            self._tar.close()
        with suppress(OSError, ValueError):
            self._stream.close()


def write_shard(
    path: Path,
    samples: Images | Latents,
    first_index: int,
    labels: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> None:
    """Writes one shard under a temporary name, then renames it.

    Args:
        samples: images uint8 or latents float16, [N, C, H, W].
        first_index: index of samples[0] in its set; keys are `index` or `index_seed` (hexadecimal).
        labels: class of each image, written as text `.cls`.
        seeds: seed of each generated image.
    """
    shard = ShardWriter(path, first_index)
    try:
        for offset, sample in enumerate(samples):
            extension, content = _encode(sample)
            label = None if labels is None else labels[offset]
            shard.add(extension, content, label, None if seeds is None else seeds[offset])
    except BaseException:
        shard.abandon()
        raise
    shard.close()


@dataclass(frozen=True)
class Sample:
    """One image or one image's latents, as stored."""

    key: str
    content: NDArray[Any]
    """uint8 or float16 [C, H, W]."""
    label: int | None

    @property
    def seed(self) -> int | None:
        """What it was generated from; None for a real one."""
        _, _, seed = self.key.partition("_")
        return int(seed, 16) if seed else None


def _decode(path: Path, key: str, members: Mapping[str, bytes]) -> Sample:
    try:
        if "npy" in members:
            content = np.load(io.BytesIO(members["npy"]), allow_pickle=False)
        else:
            content = np.asarray(Image.open(io.BytesIO(members["png"])), dtype=np.uint8)
            content = content[None] if content.ndim == 2 else np.moveaxis(content, -1, 0)
        label = int(members["cls"]) if "cls" in members else None
    except (KeyError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DamagedArtifact(f"{path}: {key}: {error}") from None
    return Sample(key, content, label)


def stream_shard(path: Path, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
    """Samples start..stop of one shard; those before are not decoded.

    Raises:
        DamagedArtifact: it is missing or cut, or holds no readable image or an unreadable label.
    """
    for key, members in islice(stream_members(path), start, stop):
        yield _decode(path, key, members)


def stream_samples(folder: Path, start: int, stop: int) -> Iterator[Sample]:
    """Samples start..stop of a verified artifact of images or latents one by one.

    Memory does not grow with their number; shards before `start` are not opened.
    """
    first = 0
    for shard in read_index(folder).shards:
        begin, end = max(start - first, 0), min(stop - first, shard.count)
        if begin < end:
            yield from stream_shard(folder / shard.file, begin, end)
        first += shard.count


def stream_images(folder: Path, start: int, stop: int) -> Iterator[Images]:
    """Images start..stop of a verified images artifact one by one, uint8 [C, H, W]."""
    for sample in stream_samples(folder, start, stop):
        yield sample.content


def stream_picked(folder: Path, indices: Sequence[int]) -> Iterator[Sample]:
    """The samples of these numbers, which ascend, of a verified images artifact.

    Shards without any of them are not opened, images that are not picked not decoded.
    """
    first, picked = 0, iter(indices)
    wanted = next(picked, None)
    for shard in read_index(folder).shards:
        last = first + shard.count
        if wanted is not None and wanted < last:
            path = folder / shard.file
            for number, (key, members) in enumerate(stream_members(path), first):
                if number == wanted:
                    yield _decode(path, key, members)
                    wanted = next(picked, None)
        first = last


def read_samples(shards: Sequence[Path]) -> tuple[NDArray[Any], Labels | None]:
    """All images or latents of the shards in order, and the labels if every one has one.

    Returns:
        uint8 or float16 [N, C, H, W] and int64 [N] or None.

    Raises:
        DamagedArtifact: a shard is missing or cut, has no readable image or an unreadable label, or
            images of different shapes.
    """
    contents: list[NDArray[Any]] = []
    labels: list[int] = []
    for sample in chain.from_iterable(map(stream_shard, shards)):
        contents.append(sample.content)
        if sample.label is not None:
            labels.append(sample.label)
    if not contents or len({(each.shape, each.dtype) for each in contents}) != 1:
        raise DamagedArtifact(f"{shards[0].parent}: no images, or images of different shapes")
    return np.stack(contents), np.array(labels) if len(labels) == len(contents) else None


def read_images(shards: Sequence[Path]) -> tuple[Images, Labels | None]:
    """All images of the shards, and their labels; see `read_samples`."""
    return read_samples(shards)


def index_shards(
    folder: Path,
    shape: Sequence[int],
    shards: Sequence[Shard],
    classes: Counter[int],
    scaling: Scaling | None = None,
) -> ImageSet:
    """Writes images.json.

    Args:
        shape: channels, height and width of every image or latent.
        classes: how many there are of each class.
    """
    channels, height, width = shape
    index = ImageSet(
        count=sum(shard.count for shard in shards),
        channels=channels,
        height=height,
        width=width,
        class_histogram={str(label): classes[label] for label in sorted(classes)},
        shards=tuple(shards),
        scaling=scaling,
    )
    (folder / INDEX_FILE).write_text(index.model_dump_json(exclude_none=True))
    return index


def read_index(folder: Path) -> ImageSet:
    return ImageSet.model_validate_json((folder / INDEX_FILE).read_bytes())
