"""Stage `import`: a user's own images into shards, and the labels that go with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sims_core.common.digest import digest_of, file_sha256
from sims_core.common.errors import BadInput
from sims_core.common.shown import shown
from sims_core.data.colours import OtherColours
from sims_core.data.config import ImportConfig, ImportedSet
from sims_core.data.grid import encode_png
from sims_core.data.hostile import MAX_CLASSES, only_our_errors, read_bounded
from sims_core.data.image_set import ImageWriter, channel_sums
from sims_core.data.labels import NamedLabels, inner_labels, label_digest, read_labels
from sims_core.data.pictures import BrokenImage, Decoded, in_order, look_and_decode
from sims_core.data.raw import BY_COLUMN, NO_LABELS, LabelFile, RawImage, Source, Tally
from sims_core.data.sources import open_source
from sims_core.data.types import Images
from sims_core.engine.execution import DataFiles
from sims_core.engine.stage import StageContext

SKIPPED_FILE = "skipped.json"


CHUNK_IMAGES, CHUNK_BYTES = 16, 1 << 22
"""A thread takes so many images at once; fewer where they have more bytes once decoded."""


class ProfilesFound(BadInput):
    """Pictures have colour profiles other than sRGB: the import is to convert them."""


@dataclass(frozen=True)
class ImportPlan:
    """What an import will do, and what is known of it before the images are read."""

    config: ImportConfig
    left_out: Tally
    """What lies in the source and is not imported."""
    notes: tuple[str, ...]
    """What was decided, in sentences."""


def _utf8(names: tuple[str, ...]) -> list[str]:
    """As they are, but for bytes that are not UTF-8, which no JSON can have."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def content_digest(source: Source) -> str:
    """SHA-256 of every file's bytes and of the names of its images and classes; not of its path."""
    sums = [file_sha256(path) for path in source.files]
    names = _utf8(source.names or ())
    return digest_of({"names": names, "classes": _utf8(source.classes), "files": sums})


def plan_import(
    files: DataFiles,
    *,
    split: str | None,
    labels: str | None,
    size: int | None,
    channels: int | None,
    skip_broken: bool,
    label_column: str | None = None,
) -> ImportPlan:
    """What the import of a source is named by; reads every byte of it once.

    Args:
        labels: None: the source's own, unless `files.labels` names a file; "none": none.
        label_column: the one with the classes, of a table or of the file of labels.

    Raises:
        BadInput: there is nothing to import, files of it are missing, or the labels do not fit.
    """
    if labels == NO_LABELS and label_column is not None:
        raise BadInput("`label_column` chooses labels, and `labels` none leaves them out")
    own = labels is None and files.labels is None
    source = _open(files, split, own, label_column if own else None)
    notes, inner = list(source.notes), source.label_file
    if own and label_column is not None:
        _check_used(source, label_column)
    if source.missing and not skip_broken:
        raise BadInput(
            f"{shown(files.imported)}: {len(source.missing)} parts are missing, such as "
            f"{source.missing[0]}; bring them, or pass `skip_broken`"
        )
    if source.missing:
        notes.append(f"{len(source.missing)} parts are missing, such as {source.missing[0]}")
    with only_our_errors(files.imported):
        if files.labels is not None:
            labels, told = _outer_labels(source, files.labels, label_column)
            notes += told
        elif inner is not None and labels is None:
            labels, told = _inner_labels(source, inner)
            notes += told
        elif inner is not None:
            notes.append(f"`labels` none: the labels of {inner.name} are left out")
        elif labels is None and source.label_column is not None:
            labels = BY_COLUMN + source.label_column
        config = {
            "content": content_digest(source),
            "layout": source.layout,
            "split": source.split,
            "labels": labels,
            "size": size,
            "channels": channels,
            "skip_broken": skip_broken,
        }
    return ImportPlan(ImportConfig.model_validate(config), source.left_out, tuple(notes))


def _check_used(source: Source, column: str) -> None:
    """Raises BadInput if a column was chosen and the source has nothing with columns."""
    inner = source.label_file
    if source.label_column is None and (inner is None or inner.column is None):
        raise BadInput(f"`label_column` {column}: a source like this ({source.layout}) has none")


def _outer_labels(source: Source, path: Path, column: str | None) -> tuple[str, list[str]]:
    """What a configuration calls the labels of a user's file, and what there is to say."""
    content = read_bounded(path)
    _named_labels(source, path, content, column)
    inner = source.label_file
    told = [f"`labels` {path}: {inner.name} is not used"] if inner is not None else []
    return label_digest(content, column), told


def _inner_labels(source: Source, inner: LabelFile) -> tuple[str, list[str]]:
    """As `_outer_labels`, of a file that the source brings."""
    if inner.empty:
        return NO_LABELS, [f"no labels: {inner.name} says so"]
    inner_labels(inner, source.label_names or ())
    of = f" (column {inner.column})" if inner.column else ""
    told = [f"classes: {inner.name}{of}; the sub-folders are none"]
    return label_digest(inner.content, inner.column), told


def _open(files: DataFiles, split: str | None, wanted: bool, column: str | None) -> Source:
    if files.imported is None:
        raise BadInput(
            "the imported images are damaged or not in this store: run the `sims data import` "
            "that brought them again"
        )
    return open_source(files.imported, split, wanted, column)


def _named_labels(source: Source, path: Path, content: bytes, column: str | None) -> NamedLabels:
    if source.label_names is None:
        raise BadInput(
            f"`labels` {path}: the images of a source like this ({source.layout}) have no file "
            "names; its own labels are used, or none with `labels` none"
        )
    return read_labels(content, str(path), source.label_names, column)


def _open_as_planned(config: ImportConfig, files: DataFiles) -> tuple[Source, NamedLabels | None]:
    """The source as it was planned, and the labels by the names of images where a file has them."""
    chosen = config.labels
    _, _, column = (chosen or "").partition(":")
    if chosen is None or chosen == NO_LABELS:
        return _open(files, config.split, chosen is None, None), None
    if chosen.startswith(BY_COLUMN):
        return _open(files, config.split, True, column), None
    inner = files.labels is None
    source = _open(files, config.split, inner, (column or None) if inner else None)
    with only_our_errors(files.imported):
        changed = BadInput("the file of the labels has changed: run the same command again")
        if files.labels is not None:
            content = read_bounded(files.labels)
            if label_digest(content, column or None) != chosen:
                raise changed
            return source, _named_labels(source, files.labels, content, column or None)
        file = source.label_file
        if file is None or label_digest(file.content, file.column) != chosen:
            raise changed
        return source, inner_labels(file, source.label_names or ())


def _labelled(
    source: Source, config: ImportConfig, labels: NamedLabels | None
) -> Iterator[RawImage]:
    """The source's images with the labels that were asked for."""
    if labels is not None:
        table = labels.labels
        return (replace(image, label=table[image.key or image.name]) for image in source.read())
    if config.labels == NO_LABELS:
        return (replace(image, label=None) for image in source.read())
    return source.read()


@dataclass(frozen=True)
class _Ready:
    """An image that only has to be written; or why it cannot be."""

    image: RawImage
    seen: Decoded | None = None
    png: bytes = b""
    sums: NDArray[np.int64] | None = None
    error: BrokenImage | OtherColours | None = None


def _ready(config: ImportConfig, image: RawImage) -> _Ready:
    """Decodes an image and encodes it as it will be stored."""
    try:
        seen = look_and_decode(image.load(), config.size, config.channels, config.srgb)
    except (BrokenImage, OtherColours) as error:
        # Anew: the one that was raised holds, by its traceback, all that was read.
        return _Ready(_without_content(image), error=type(error)(*error.args))
    pixels = seen.pixels
    return _Ready(_without_content(image), seen, encode_png(pixels), channel_sums(pixels))


def _ready_many(config: ImportConfig, images: list[RawImage]) -> tuple[list[_Ready], int]:
    """As many of the first images as together stay small once decoded, and how many they are."""
    done: list[_Ready] = []
    size = 0
    while len(done) < len(images) and size < CHUNK_BYTES:
        done.append(_ready(config, images[len(done)]))
        seen = done[-1].seen
        if seen is None:  # perhaps as large as it is broken
            break
        size += seen.pixels.nbytes
    return done, len(done)


def _in_chunks(images: Iterator[RawImage]) -> Iterator[list[RawImage]]:
    """So that a thread's turn is worth its cost also where pictures are tiny."""
    chunk: list[RawImage] = []
    for image in images:
        chunk.append(image)
        if len(chunk) == CHUNK_IMAGES or sum(each.held for each in chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _all_ready(config: ImportConfig, images: Iterator[RawImage], workers: int) -> Iterator[_Ready]:
    """Every image, in order; large ones that their chunk had no room for one at a time."""

    def make(chunk: list[RawImage]) -> tuple[list[RawImage], list[_Ready]]:
        done, count = _ready_many(config, chunk)
        return chunk[count:], done

    def weigh(chunk: list[RawImage]) -> int:
        return sum(image.held for image in chunk)

    for rest, done in in_order(make, _in_chunks(images), workers, weigh):
        yield from done
        for image in rest:
            yield _ready(config, image)


def _without_content(image: RawImage) -> RawImage:
    """So that the encoded picture is not held until the image is written."""
    return RawImage(image.name, bytes, image.label, image.key)


def _check_like_first(first: tuple[RawImage, Images], image: RawImage, pixels: Images) -> None:
    """Raises BadInput, with what mends it, if an image differs from the first in form."""
    named, reference = first
    kinds = {1: "grey", 3: "RGB"}
    if len(pixels) != len(reference):
        raise BadInput(
            f"{image.name} is {kinds[len(pixels)]}, {named.name} is {kinds[len(reference)]}: "
            "pass `channels` 3 or `channels` 1 to convert all"
        )
    if pixels.shape != reference.shape:
        raise BadInput(
            f"{image.name} is {pixels.shape[2]} x {pixels.shape[1]}, {named.name} is "
            f"{reference.shape[2]} x {reference.shape[1]}: pass `size` N to crop and resize all"
        )
    if (image.label is None) != (named.label is None):
        unlabelled = image.name if image.label is None else named.name
        raise BadInput(f"{unlabelled} has no class while others have one: pass `labels` none")
    if image.label is not None and not 0 <= image.label < MAX_CLASSES:
        raise BadInput(f"{image.name}: its class {image.label} is not in 0 .. {MAX_CLASSES - 1}")


class _Seen:
    """What was seen of the images that were read."""

    def __init__(self) -> None:
        self.skipped: list[dict[str, str]] = []
        self.remarks = Tally()
        self.formats: Counter[str] = Counter()
        self.sizes: Counter[tuple[int, int]] = Counter()

    def add(self, image: RawImage, seen: Decoded) -> None:
        self.formats[seen.format or "array"] += 1
        if len(self.sizes) < 10_000 or (seen.width, seen.height) in self.sizes:
            self.sizes[seen.width, seen.height] += 1
        for remark in seen.remarks:
            self.remarks.add(remark, image.name)

    def details(self) -> dict[str, Any]:
        """For the manifest: how the images were encoded, how large they were, what was changed."""
        sides = [min(size) for size in self.sizes]
        return {
            "skipped": len(self.skipped),
            "remarks": self.remarks.row(),
            "formats": dict(sorted(self.formats.items())),
            "original_sides": [min(sides), max(sides)],
        }


def import_images(context: StageContext[ImportConfig]) -> dict[str, Any]:
    """Stage `import`: reads the source that the execution names, writes shards.

    Raises:
        BadInput: naming the image that is broken or unlike the others.
        ProfilesFound: there are colours to convert, and the configuration does not say so.
    """
    config, files = context.config, context.execution.files
    source, labels = _open_as_planned(config, files)
    with only_our_errors(files.imported):
        if content_digest(source) != config.content:
            raise BadInput(f"{files.imported}: is not what it was; run the same command again")
    writer, seen = ImageWriter(context.directory), _Seen()
    try:
        images = _labelled(source, config, labels)
        _write_images(context, writer, seen, images, len(source.label_names or ()))
    except BaseException as error:
        writer.abandon()
        if isinstance(error, BadInput):
            raise type(error)(shown(error)) from None
        raise
    if not writer.count:
        raise BadInput(f"{shown(files.imported)}: no image of it could be read")
    if seen.skipped:
        (context.directory / SKIPPED_FILE).write_text(json.dumps(seen.skipped, indent=1))
    classes: tuple[str, ...] = labels.classes if labels is not None else ()
    if config.labels is None or config.labels.startswith(BY_COLUMN):
        classes = source.classes
    return {**writer.finish(), "classes": _utf8(classes), **seen.details()}


def _write_images(
    context: StageContext[ImportConfig],
    writer: ImageWriter,
    seen: _Seen,
    images: Iterator[RawImage],
    total: int,
) -> None:
    """Decodes, checks and writes every image; `total` of them are expected, 0 if nobody knows."""
    config, first = context.config, None
    for ready in _all_ready(config, images, context.execution.threads):
        image, decoded, error = ready.image, ready.seen, ready.error
        if isinstance(error, OtherColours):
            raise ProfilesFound(
                f"{image.name}: has a colour profile other than sRGB, to be converted"
            )
        if decoded is None or ready.sums is None:
            if not config.skip_broken:
                raise BadInput(f"{image.name}: {error}; mend or remove it, or pass `skip_broken`")
            seen.skipped.append({"name": shown(image.name), "reason": shown(error)})
            continue
        first = first or (image, decoded.pixels)
        _check_like_first(first, image, decoded.pixels)
        seen.add(image, decoded)
        writer.add_encoded(ready.png, ready.sums, decoded.pixels, image.label)
        if writer.count % 1000 == 0:
            context.progress(writer.count, max(total, writer.count), "img")


def imported_set(config: ImportConfig, folder: Path) -> ImportedSet:
    """What an import brought, from its artifact's index."""
    from sims_core.data.image_set import read_index

    return ImportedSet(config=config, contents=read_index(folder).contents)


def known_details(details: Mapping[str, Any]) -> bool:
    """Whether an artifact was made by an import that looks at colours, frames and 16 bits."""
    return "remarks" in details
