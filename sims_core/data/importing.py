"""Stage `import`: a user's own images into shards, and the labels that go with them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sims_core.common.digest import digest_of, file_sha256
from sims_core.common.errors import BadInput
from sims_core.data.config import ImportConfig, ImportedSet
from sims_core.data.image_set import ImageWriter
from sims_core.data.pictures import BrokenImage, decode, in_order
from sims_core.data.sources import RawImage, Source, open_source
from sims_core.data.types import Images
from sims_core.engine.execution import DataFiles
from sims_core.engine.stage import StageContext

NO_LABELS = "none"


MAX_CLASSES = 1_000_000


SKIPPED_FILE = "skipped.json"


def content_digest(source: Source) -> str:
    """SHA-256 of every file's bytes and of the names of its images and classes; not of its path."""
    sums = [file_sha256(path) for path in source.files]
    return digest_of({"names": source.names or (), "classes": source.classes, "files": sums})


def _label_pairs(path: Path) -> list[tuple[Any, Any]]:
    """(name, label) of a CSV file without or with a heading name,label; or of a JSON object of
    names, a list of pairs, or an object whose `labels` is such a list (StyleGAN's dataset.json)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            rows = [row for row in csv.reader(io.StringIO(text)) if row]
            if rows and len(rows[0]) == 2 and rows[0][1].strip().lower() in ("label", "class"):
                rows = rows[1:]
            return [(row[0].strip(), row[1].strip()) for row in rows]
        content = json.loads(text)
        if isinstance(content, dict) and not isinstance(content.get("labels", 0), int | str):
            content = content["labels"]
        pairs = content.items() if isinstance(content, dict) else content
        return [(name, label) for name, label in pairs]
    except (OSError, ValueError, TypeError, IndexError, AttributeError, csv.Error) as error:
        told = f" ({error})" if isinstance(error, OSError | ValueError) else ""
        raise BadInput(
            f"{path}: no labels in it{told}; wanted: CSV lines name,label or a JSON object "
            '{"name": label}'
        ) from None


def read_labels(path: Path, names: Sequence[str]) -> dict[str, int]:
    """The class of every image, from the user's file.

    Raises:
        BadInput: the file is unreadable, names something else, misses or repeats an image, or has
            a class that is not an integer of at least 0.
    """
    labels: dict[str, int] = {}
    known = set(names)
    for name, text in _label_pairs(path):
        label = int(text) if isinstance(text, int | str) and str(text).isdecimal() else None
        if label is None:
            raise BadInput(f"{path}: the class of {name} must be an integer from 0, got {text!r}")
        if name not in known:
            raise BadInput(f"{path}: {name!r} is no image of the source, such as {names[0]!r}")
        if labels.setdefault(name, label) != label:
            raise BadInput(f"{path}: {name} has two classes, {labels[name]} and {label}")
    if missing := [name for name in names if name not in labels]:
        raise BadInput(f"{path}: {len(missing)} of {len(names)} images have no class: {missing[0]}")
    return labels


def plan_import(
    files: DataFiles,
    *,
    split: str | None,
    labels: str | None,
    size: int | None,
    channels: int | None,
    skip_broken: bool,
) -> ImportConfig:
    """What the import of a source is named by; reads every byte of it once.

    Args:
        labels: None: the source's own, unless `files.labels` names a file; "none": none.

    Raises:
        BadInput: there is nothing to import, or the labels do not fit.
    """
    source = _open(files, split, by_folder=labels is None and files.labels is None)
    if files.labels is not None:
        _named_labels(source, files.labels)
        labels = file_sha256(files.labels)
    config = {
        "content": content_digest(source),
        "layout": source.layout,
        "split": source.split,
        "labels": labels,
        "size": size,
        "channels": channels,
        "skip_broken": skip_broken,
    }
    return ImportConfig.model_validate(config)


def _open(files: DataFiles, split: str | None, by_folder: bool) -> Source:
    if files.imported is None:
        raise BadInput(
            "the imported images are damaged or not in this store: run the `sims data import` "
            "that brought them again"
        )
    return open_source(files.imported, split, by_folder)


def _named_labels(source: Source, path: Path) -> Mapping[str, int]:
    if source.names is None:
        raise BadInput(
            f"--labels {path}: the images of a source like this ({source.layout}) have no file "
            "names; its own labels are used, or none with --labels none"
        )
    return read_labels(path, source.names)


def _labelled(source: Source, config: ImportConfig, files: DataFiles) -> Iterator[RawImage]:
    """The source's images with the labels that were asked for."""
    if config.labels is None:
        return source.read()
    if config.labels == NO_LABELS:
        return (replace(image, label=None) for image in source.read())
    if files.labels is None or file_sha256(files.labels) != config.labels:
        raise BadInput("the file of the labels has changed: run the same command again")
    labels = _named_labels(source, files.labels)
    return (replace(image, label=labels[image.name]) for image in source.read())


def _decoded(
    config: ImportConfig, image: RawImage
) -> tuple[RawImage, Images | None, BrokenImage | None]:
    try:
        return image, decode(image.load(), config.size, config.channels), None
    except BrokenImage as error:
        return image, None, error


def _check_like_first(first: tuple[RawImage, Images], image: RawImage, pixels: Images) -> None:
    """Raises BadInput, with what mends it, if an image differs from the first in form."""
    named, reference = first
    kinds = {1: "grey", 3: "RGB"}
    if len(pixels) != len(reference):
        raise BadInput(
            f"{image.name} is {kinds[len(pixels)]}, {named.name} is {kinds[len(reference)]}: "
            "pass --channels 3 or --channels 1 to convert all"
        )
    if pixels.shape != reference.shape:
        raise BadInput(
            f"{image.name} is {pixels.shape[2]} x {pixels.shape[1]}, {named.name} is "
            f"{reference.shape[2]} x {reference.shape[1]}: pass --size N to crop and resize all"
        )
    if (image.label is None) != (named.label is None):
        unlabelled = image.name if image.label is None else named.name
        raise BadInput(f"{unlabelled} has no class while others have one: pass --labels none")


def import_images(context: StageContext[ImportConfig]) -> dict[str, Any]:
    """Stage `import`: reads the source that the execution names, writes shards.

    Raises:
        BadInput: naming the image that is broken or unlike the others.
    """
    config, files = context.config, context.execution.files
    source = _open(files, config.split, by_folder=config.labels is None)
    if content_digest(source) != config.content:
        raise BadInput(f"{files.imported}: is not what it was; run the same command again")
    writer = ImageWriter(context.directory)
    first: tuple[RawImage, Images] | None = None
    skipped: list[dict[str, str]] = []
    images = _labelled(source, config, files)
    workers = context.execution.threads
    for image, pixels, error in in_order(partial(_decoded, config), images, workers):
        if pixels is None:
            if not config.skip_broken:
                raise BadInput(f"{image.name}: {error}; mend or remove it, or pass --skip-broken")
            skipped.append({"name": image.name, "reason": str(error)})
            continue
        first = first or (image, pixels)
        _check_like_first(first, image, pixels)
        if image.label is not None and not 0 <= image.label < MAX_CLASSES:
            raise BadInput(
                f"{image.name}: its class {image.label} is not in 0 .. {MAX_CLASSES - 1}"
            )
        writer.add(pixels, image.label)
        if writer.count % 1000 == 0:
            context.progress(writer.count, len(source.names or ()) or writer.count, "img")
    if not writer.count:
        raise BadInput(f"{files.imported}: no image of it could be read")
    if skipped:
        (context.directory / SKIPPED_FILE).write_text(json.dumps(skipped, indent=1))
    classes = source.classes if config.labels is None else ()
    return {**writer.finish(), "classes": list(classes), "skipped": len(skipped)}


def imported_set(config: ImportConfig, folder: Path) -> ImportedSet:
    """What an import brought, from its artifact's index."""
    from sims_core.data.image_set import read_index

    return ImportedSet(config=config, contents=read_index(folder).contents)
