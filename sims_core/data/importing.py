"""Stage `import`: a user's own images into shards, and the labels that go with them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sims_core.common.errors import BadInput
from sims_core.common.hostile import only_our_errors, read_bounded
from sims_core.common.shown import shown
from sims_core.data.classes import MAX_CLASSES
from sims_core.data.colours import OtherColours
from sims_core.data.config import ImportConfig, ImportedSet
from sims_core.data.content import content_digest, in_utf8
from sims_core.data.image_writer import ImageWriter
from sims_core.data.import_progress import First, Observer, Parts
from sims_core.data.labels import NamedLabels, inner_labels, label_digest, read_labels
from sims_core.data.pictures import BrokenImage, in_order
from sims_core.data.preparing import ENOUGH_BYTES, Content, Options, Ready, prepare
from sims_core.data.raw import BY_COLUMN, NO_LABELS, LabelFile, RawImage, Source, Tally
from sims_core.data.sources import open_source
from sims_core.engine.execution import DataFiles
from sims_core.engine.pool import Pool
from sims_core.engine.stage import StageContext

SKIPPED_FILE = "skipped.json"


CHUNK_IMAGES = 16
"""A process is given so many images at once; fewer where they have many bytes."""

ALONE_S = 0.3
"""Processes are started for what takes longer."""

PREPARE_SOME = "sims_core.data.preparing:prepare_some"


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
            f"{source.missing[0]}; put them there, or pass `skip_broken`"
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
    """As `_outer_labels`, of a file that is part of the source."""
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
            "that made them again"
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


def _contents(images: Sequence[RawImage]) -> list[Content]:
    """The pictures as they are read; what cannot be read stays as the reason."""
    contents: list[Content] = []
    for image in images:
        try:
            contents.append(image.load())
        except BrokenImage as error:
            contents.append(BrokenImage(*error.args))
    return contents


def _in_chunks(images: Iterator[RawImage]) -> Iterator[list[RawImage]]:
    """So that a process's turn is worth its cost also where pictures are tiny."""
    chunk: list[RawImage] = []
    for image in images:
        chunk.append(image)
        if len(chunk) == CHUNK_IMAGES or sum(each.held for each in chunk) >= ENOUGH_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _all_ready(
    options: Options, images: Iterator[RawImage], processes: int
) -> Iterator[tuple[RawImage, Ready]]:
    """Every image, in order. What takes longer than processes take to start is shared by them."""
    started = time.monotonic()
    for image in images:
        yield _without_content(image), prepare(options, _contents([image])[0])
        if processes > 1 and time.monotonic() - started > ALONE_S:
            break
    else:
        return

    def weigh(chunk: list[RawImage]) -> int:
        return sum(image.held for image in chunk)

    with Pool(PREPARE_SOME, processes) as pool:

        def make(chunk: list[RawImage]) -> tuple[list[RawImage], list[Ready]]:
            done = pool((options, _contents(chunk)))
            return [*map(_without_content, chunk[: len(done)]), *chunk[len(done) :]], done

        for chunk, done in in_order(make, _in_chunks(images), processes, weigh):
            yield from zip(chunk, done, strict=False)
            for image in chunk[len(done) :]:  # large ones, which the answer had no room for
                yield from zip([image], pool((options, _contents([image]))), strict=True)


def _without_content(image: RawImage) -> RawImage:
    """So that the encoded picture is not held until the image is written."""
    return RawImage(image.name, bytes, image.label, image.key)


def _check_like_first(first: First, image: RawImage, shape: Sequence[int]) -> None:
    """Raises BadInput, with what mends it, if an image differs from the first in form."""
    kinds = {1: "grey", 3: "RGB"}
    if shape[0] != first.shape[0]:
        raise BadInput(
            f"{image.name} is {kinds[shape[0]]}, {first.name} is {kinds[first.shape[0]]}: "
            "pass `channels` 3 or `channels` 1 to convert all"
        )
    if tuple(shape) != first.shape:
        raise BadInput(
            f"{image.name} is {shape[2]} x {shape[1]}, {first.name} is "
            f"{first.shape[2]} x {first.shape[1]}: pass `size` N to crop and resize all"
        )
    if (image.label is not None) != first.labelled:
        unlabelled = image.name if image.label is None else first.name
        raise BadInput(f"{unlabelled} has no class while others have one: pass `labels` none")
    if image.label is not None and not 0 <= image.label < MAX_CLASSES:
        raise BadInput(f"{image.name}: its class {image.label} is not in 0 .. {MAX_CLASSES - 1}")


def import_images(context: StageContext[ImportConfig]) -> dict[str, Any]:
    """Stage `import`: reads the source that the execution names, writes shards.

    One that was interrupted goes on after its last whole shard, to the same bytes.

    Raises:
        BadInput: naming the image that is broken or unlike the others.
        ProfilesFound: there are colours to convert, and the configuration does not say so.
    """
    config, files = context.config, context.execution.files
    source, labels = _open_as_planned(config, files)
    _check_unchanged(source, context)
    parts = Parts(context.state)
    writer, observer = ImageWriter(context.state, parts.written), Observer()
    try:
        images = islice(_labelled(source, config, labels), parts.read, None)
        _write_images(context, writer, parts, observer, images, len(source.label_names or ()))
        _check_unchanged(source, context)
        if not writer.count:
            raise BadInput(f"{shown(files.imported)}: no image of it could be read")
    except BaseException as error:
        writer.abandon()
        if isinstance(error, BadInput):
            parts.forget()
            raise type(error)(shown(error)) from None
        raise
    seen = observer.seen
    if seen.skipped:
        (context.directory / SKIPPED_FILE).write_text(json.dumps(seen.skipped, indent=1))
    classes: tuple[str, ...] = labels.classes if labels is not None else ()
    if config.labels is None or config.labels.startswith(BY_COLUMN):
        classes = source.classes
    return {
        **writer.finish(context.directory),
        "classes": in_utf8(classes),
        "skipped": len(seen.skipped),
        "remarks": seen.remarks,
        "formats": seen.formats,
        "original_sides": list(seen.sides or ()),
    }


def _check_unchanged(source: Source, context: StageContext[ImportConfig]) -> None:
    """Raises BadInput if the source is not what the configuration is of."""
    imported = context.execution.files.imported
    with only_our_errors(imported):
        if content_digest(source) != context.config.content:
            raise BadInput(f"{imported}: is not what it was; run the same command again")


def _write_images(
    context: StageContext[ImportConfig],
    writer: ImageWriter,
    parts: Parts,
    observer: Observer,
    images: Iterator[RawImage],
    total: int,
) -> None:
    """Decodes, checks and writes every image; `total` of them are expected, 0 if nobody knows.

    Args:
        observer: is told of all, those of the finished parts included.
    """
    config, read, own = context.config, 0, Observer()
    first = parts.done[0].first if parts.done else None
    for part in parts.done:
        observer.merge(part.seen)
    options = Options(config.size, config.channels, config.srgb, context.state / "alone.lock")
    for image, ready in _all_ready(options, images, context.execution.threads):
        read += 1
        if isinstance(ready.error, OtherColours):
            raise ProfilesFound(
                f"{image.name}: has a colour profile other than sRGB, to be converted"
            )
        if ready.error is not None:
            if not config.skip_broken:
                raise BadInput(
                    f"{image.name}: {ready.error}; mend or remove it, or pass `skip_broken`"
                )
            own.skip(shown(image.name), shown(ready.error))
            continue
        channels, height, width = ready.shape
        first = first or First(
            name=image.name, shape=(channels, height, width), labelled=image.label is not None
        )
        _check_like_first(first, image, ready.shape)
        own.add(image.name, ready)
        writer.add_encoded(ready.png, ready.sums, image.label)
        if len(writer.done) > len(parts.done):
            parts.add(writer.done[-1], read, first, own.seen)
            observer.merge(own.seen)
            read, own = 0, Observer()
        if writer.count % 1000 == 0:
            context.progress(writer.count, max(total, writer.count), "img")
    observer.merge(own.seen)


def imported_set(config: ImportConfig, folder: Path) -> ImportedSet:
    """What an import brought, from its artifact's index."""
    from sims_core.data.image_set import read_index

    return ImportedSet(config=config, contents=read_index(folder).contents)


def known_details(details: Mapping[str, Any]) -> bool:
    """Whether an artifact was made by an import that looks at colours, frames and 16 bits."""
    return "remarks" in details
