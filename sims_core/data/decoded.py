"""Decoded images and latents on the disk: made once, mapped into memory by every training.

Under the store's root, beside its artifacts, and like them made anew where they are damaged:

    cache/decoded/<digest of the artifact>/
        array.npy      [N, C, H, W], uint8, or float16 as networks see it; a hole where a shard is
                       not decoded yet
        labels.npy     int64 [N]
        shards.jsonl   a line for what the set is, then one for each shard that is there, with the
                       SHA-256 of its pixels

The folder may be deleted at any time: a training that has it mapped keeps what it has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sims_core.common.errors import DamagedArtifact
from sims_core.common.files import write_atomically
from sims_core.data.image_set import ImageSet, read_index, scaled_latents, stream_shard
from sims_core.data.pictures import in_order
from sims_core.data.types import Labels
from sims_core.engine.pool import Pool
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.cache import DECODED_FOLDER, decoded_folders, decoding
from sims_core.store.store import Store
from sims_core.store.verdicts import SETTLED_NS, Stamp, Verdicts

logger = logging.getLogger("sims_core.data")

FORMAT = 1
"""Goes up when what is stored changes."""
NO_LABEL = np.iinfo(np.int64).min
RESERVE_BYTES = 1 << 28
"""So much of the disk is left to checkpoints and artifacts."""
LARGE_BYTES = 1 << 26
"""A set of so many bytes is waited for until its files' times are settled, so that no other
process reads it to verify it; and is decoded by several processes."""
DECODE_SHARD = "sims_core.data.decoded:decode_shard"
STEP = 1 << 20


@dataclass(frozen=True)
class ShardTask:
    """What a process is told of a shard to decode."""

    shard: Path
    count: int
    array: Path
    offset: int
    """Of its first image in the file of the array, in bytes."""
    shape: tuple[int, ...]
    index: ImageSet


def decode_shard(task: ShardTask) -> tuple[str, list[int]]:
    """Writes a shard's images to their place; returns their SHA-256, and their labels.

    Raises:
        DamagedArtifact: the shard does not hold what its index says.
    """
    digest, labels = hashlib.sha256(), list[int]()
    with task.array.open("r+b") as file:
        file.seek(task.offset)
        for sample in stream_shard(task.shard):
            pixels = np.ascontiguousarray(scaled_latents(sample.content, task.index.scaling))
            if pixels.shape != task.shape:
                raise DamagedArtifact(f"{task.shard.parent}: no images, or of different shapes")
            digest.update(pixels.data)
            file.write(pixels.data)
            labels.append(NO_LABEL if sample.label is None else sample.label)
    if len(labels) != task.count:
        raise DamagedArtifact(f"{task.shard}: {len(labels)} images instead of {task.count}")
    return digest.hexdigest(), labels


class DecodedSet:
    """The decoded images of one artifact, as far as they were asked for.

    Args:
        ref: of images or latents.
    """

    def __init__(self, store: Store, ref: ArtifactRef) -> None:
        self.store, self.ref = store, ref
        self.location = f"{DECODED_FOLDER}/{ref.digest}"
        self.folder = store.root / self.location
        self.array, self.labels = self.folder / "array.npy", self.folder / "labels.npy"
        self.lines = self.folder / "shards.jsonl"

    def map(self, count: int, processes: int) -> tuple[NDArray[Any], Labels | None]:
        """The first `count` images, mapped, and their labels if all have one.

        Two processes at once: one decodes, the other waits.

        Raises:
            OSError: there is no room, or the folder cannot be written.
        """
        source = self.store.open_artifact(self.ref)
        index = read_index(source)
        with self._lock():
            header = self._header(source, index)
            done = self._checked(header)
            starts = [0, *accumulate(shard.count for shard in index.shards)]
            numbers = range(len(index.shards))
            missing = [i for i in numbers if starts[i] < count and i not in done]
            if missing:
                self._write_lines(header, done)  # without what was torn
                self._make(source, index, starts, missing, processes)
            mapped = np.load(self.array, mmap_mode="r")
            labels: Labels = np.load(self.labels)[:count]
        return mapped[:count], None if (labels == NO_LABEL).any() else labels

    def damage(self) -> list[str]:
        """One line for each shard whose decoded images are not what they were."""
        try:
            readable_only = not os.access(self.store.root / "locks", os.W_OK)
            with nullcontext() if readable_only else self._lock():
                whole = self._read()
                lines = [f"{self.location}: shard {i} is damaged" for i in self._wrong(*whole)]
        except (OSError, EOFError, ValueError, TypeError, LookupError) as error:
            lines = [f"{self.location}: unreadable: {error}"]
        if lines:
            Verdicts(self.store.root).forget(self)
        return lines

    def _lock(self) -> AbstractContextManager[None]:
        return decoding(self.store.root, self.ref.digest, self.ref.short)

    def _header(self, source: Path, index: ImageSet) -> dict[str, Any]:
        """What the set is of: another artifact of this name has another manifest."""
        first = next(stream_shard(source / index.shards[0].file)).content
        return {
            "format": FORMAT,
            "manifest": self.store.manifest(self.ref).checksum,
            "shape": [index.count, *first.shape],
            "dtype": str(first.dtype),
            "shards": [shard.count for shard in index.shards],
        }

    def _read(self) -> tuple[dict[str, Any], dict[int, str]]:
        """The header, and the SHA-256 of each shard that is there."""
        header, *lines = self.lines.read_text().splitlines(keepends=True)
        done = dict(json.loads(line) for line in lines if line.endswith("]\n"))
        return json.loads(header), done

    def _wrong(self, header: dict[str, Any], done: dict[int, str]) -> list[int]:
        """Shards whose bytes, or all if the labels', are not what they were."""
        row = int(np.prod(header["shape"][1:])) * np.dtype(header["dtype"]).itemsize
        starts = [0, *accumulate(header["shards"])]
        labels = np.load(self.labels)
        if labels.shape != (header["shape"][0],) or labels.dtype != np.dtype("<i8"):
            raise ValueError("other labels' file")
        with self.array.open("rb") as file:
            start = self._offset(header)
            return [
                i
                for i, sha256 in done.items()
                if self._sum(file, start + starts[i] * row, header["shards"][i] * row)
                + _label_sum(labels[starts[i] : starts[i + 1]])
                != sha256
            ]

    def _offset(self, header: dict[str, Any]) -> int:
        """Where the first image is in the file of the array.

        Raises:
            ValueError: The file is cut, or another array's.
        """
        mapped: Any = np.load(self.array, mmap_mode="r")
        if [list(mapped.shape), str(mapped.dtype)] != [header["shape"], header["dtype"]]:
            raise ValueError("another array's file")
        return int(mapped.offset)

    def _sum(self, file: Any, start: int, size: int) -> str:
        digest = hashlib.sha256()
        file.seek(start)
        while size > 0 and (part := file.read(min(STEP, size))):
            digest.update(part)
            size -= len(part)
        return digest.hexdigest()

    def _checked(self, header: dict[str, Any]) -> dict[int, str]:
        """The shards that are there and whole; all files are there afterwards."""
        try:
            found, done = self._read()
            if found != header or not self.array.exists():
                raise ValueError
            if not Verdicts(self.store.root).holds(self, Stamp(self.folder)):
                if wrong := self._wrong(header, done):
                    logger.warning("%s: damaged, decoding it again", self.location)
                    done = {i: sha256 for i, sha256 in done.items() if i not in wrong}
                else:
                    self._remember()
        except (OSError, EOFError, ValueError, TypeError, LookupError):
            if self.lines.exists():
                logger.warning("%s: damaged or of another version, making it anew", self.location)
            self._create(header)
            return {}
        return done

    def _write_lines(self, header: dict[str, Any], done: dict[int, str]) -> None:
        lines = [header, *([i, sha256] for i, sha256 in done.items())]
        write_atomically(self.lines, "".join(f"{json.dumps(line)}\n" for line in lines))

    def _create(self, header: dict[str, Any]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        shape = tuple(header["shape"])
        np.lib.format.open_memmap(self.array, mode="w+", dtype=header["dtype"], shape=shape)
        np.save(self.labels, np.full(shape[0], NO_LABEL, dtype=np.int64))
        self._write_lines(header, {})

    def _make(
        self,
        source: Path,
        index: ImageSet,
        starts: Sequence[int],
        missing: Sequence[int],
        processes: int,
    ) -> None:
        """Decodes the missing shards."""
        mapped = np.load(self.array, mmap_mode="r")
        row, shape = mapped[0].nbytes, mapped.shape[1:]
        offset = mapped.offset
        size = row * sum(index.shards[i].count for i in missing)
        if shutil.disk_usage(self.folder).free < size + RESERVE_BYTES:
            raise OSError(f"{size >> 20} MiB do not fit on the disk of {self.folder}")
        if size >= LARGE_BYTES:
            logger.info("decoding %s once (%d MiB)", self.ref.short, size >> 20)
        tasks = [
            ShardTask(
                source / index.shards[i].file,
                index.shards[i].count,
                *(self.array, offset + starts[i] * row, shape, index),
            )
            for i in missing
        ]
        try:
            with self.lines.open("a") as lines, ExitStack() as stack:
                decode: Any = decode_shard
                processes = min(processes, len(tasks)) if size >= LARGE_BYTES else 1
                if processes > 1:
                    decode = stack.enter_context(Pool(DECODE_SHARD, processes))
                for i, (sha256, own) in zip(
                    missing, in_order(decode, tasks, processes), strict=True
                ):
                    lines.write(f"{json.dumps([i, sha256 + self._put_labels(starts[i], own)])}\n")
                    lines.flush()
        except OSError:  # the room goes back to who needs it
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._remember(wait=size >= LARGE_BYTES)

    def _put_labels(self, start: int, own: Sequence[int]) -> str:
        """Writes a shard's labels to their place; returns their SHA-256."""
        labels = np.array(own, dtype=np.int64)
        with self.labels.open("r+b") as file:
            file.seek(np.load(self.labels, mmap_mode="r").offset + start * labels.itemsize)
            file.write(labels.tobytes())
        return _label_sum(labels)

    def _remember(self, wait: bool = False) -> None:
        """Every byte is right and on the disk: later processes need not read them."""
        for path in (self.array, self.labels, self.lines):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if wait:
            time.sleep(1.1 * SETTLED_NS / 1e9)
        Verdicts(self.store.root).remember(self, Stamp(self.folder))


def _label_sum(labels: Labels) -> str:
    return hashlib.sha256(labels.tobytes()).hexdigest()


def decoded_sets(store: Store) -> list[DecodedSet]:
    """All that there are, in order."""
    names = [folder.name for folder in decoded_folders(store.root)]
    return [DecodedSet(store, ArtifactRef(kind="images", digest=name)) for name in names]
