"""Labels of images that have names: from a user's file, from dataset.json or metadata inside."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sims_core.common.errors import BadInput
from sims_core.common.hostile import parse_json, reason
from sims_core.common.shown import shown
from sims_core.data.class_folders import in_class_order
from sims_core.data.classes import class_of
from sims_core.data.columns import LABEL_COLUMNS, may_be_classes, refuse_without_choice
from sims_core.data.file_kinds import plain_name
from sims_core.data.raw import LabelFile

DATASET_FILE = "dataset.json"
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABEL_FILES = (DATASET_FILE, *METADATA_FILES)

NAME_COLUMNS = ("file_name", "filename", "name", "path", "file", "image")
HEADINGS = (*LABEL_COLUMNS, "class", "cls")

MAX_WORD = 200

MEND = "pass `labels` FILE or `labels` none, or move it away"

Table = list[dict[str, Any]]


@dataclass(frozen=True)
class NamedLabels:
    """The class of each image, and the names of the classes where they were words."""

    labels: Mapping[str, int]
    classes: tuple[str, ...] = ()


def label_digest(content: bytes, column: str | None) -> str:
    """What a configuration calls labels of a file: its SHA-256, and the column that was chosen."""
    digest = hashlib.sha256(content).hexdigest()
    return digest if column is None else f"{digest}:{column}"


def find_labels(
    where: object,
    names: Sequence[str],
    others: Iterable[str],
    read: Callable[[str], bytes | None],
    column: str | None,
    wanted: bool,
    notes: list[str],
    outside: Mapping[str, Callable[[], bytes | None]] | None = None,
    mend: str = MEND,
) -> LabelFile | None:
    """The file with the labels of pictures: at the top, else in a folder that is round them all.

    Args:
        where: the source, for messages.
        names: of the pictures, with / between folders.
        others: names of what is no picture.
        read: all bytes of a file; None: there is none.
        column, wanted: as `find_label_file` takes them.
        notes: what people are told of what was found is added here.
        outside: files of labels of a source that lie above its split, by name.
        mend: what an error advises.

    Raises:
        BadInput: as `find_label_file`; or labels lie where they would be ignored.
    """
    found = find_label_file(read, column, wanted, notes)
    if found is not None or not wanted or not names:
        return found
    tops = ["", *_common_folders(names)]
    for top in tops[1:]:
        if (found := find_label_file(read, column, wanted, notes, top)) is not None:
            return found
    seen = {top + file for top in tops for file in LABEL_FILES}
    for name in sorted(others):
        if is_label_file(name) and name not in seen:
            base = PurePosixPath(name).name
            why = "not all pictures lie beside or below it"
            if base not in LABEL_FILES:
                why = f"its name is not {base.lower()}"
            refuse_unused(where, name, partial(read, name), why, mend)
    for name, content in (outside or {}).items():
        refuse_unused(where, name, content, "it lies outside the split", mend)
    return None


def _common_folders(names: Sequence[str]) -> list[str]:
    """The folders that all of these lie in, from the outermost on, each with / at its end."""
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    both = zip(min(parts), max(parts), strict=False)
    common = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both)]
    return ["/".join(common[:depth]) + "/" for depth in range(1, len(common) + 1)]


def is_label_file(name: str) -> bool:
    """Whether a file is called as those of labels are, in any folder and any case."""
    return PurePosixPath(name).name.lower() in LABEL_FILES


def refuse_unused(
    where: object,
    name: str,
    read: Callable[[], bytes | None],
    why: str,
    mend: str = MEND,
) -> None:
    """Raises BadInput if a file that is not used has labels, or what may be some."""
    base = PurePosixPath(name).name.lower()
    try:
        found = find_label_file(lambda each: read() if each == base else None, None, True, [])
    except BadInput:  # unreadable, or columns that may be classes
        found = LabelFile(name, b"")
    if found is not None and not found.empty:
        raise BadInput(
            f"{shown(where)}: {shown(name)} may hold classes and is not used ({why}): {mend}"
        )


def find_label_file(
    read: Callable[[str], bytes | None],
    column: str | None,
    wanted: bool,
    notes: list[str],
    folder: str = "",
) -> LabelFile | None:
    """The labels that a folder or archive of pictures has, by EDM's, StyleGAN's or Hugging
    Face's file names.

    Args:
        read: all bytes of a file; None: there is none.
        column: of metadata; None: one that is called as labels are.
        wanted: labels are to be found (else only what is beyond doubt counts).
        folder: where they are looked for, with / at its end.

    Raises:
        BadInput: the file is unreadable, or has columns that may be classes and none was chosen.
    """
    name = folder + DATASET_FILE
    content = read(name)
    if content is not None:
        value = parse_json(content, name)
        if isinstance(value, dict) and "labels" in value:
            return LabelFile(name, content, empty=not value["labels"], folder=folder)
    for file in METADATA_FILES:
        name = folder + file
        content = read(name)
        if content is None:
            continue
        table = _table(content, name)
        names = list(table[0]) if table else []
        if not any(each in names for each in NAME_COLUMNS):
            continue
        chosen = column or next((each for each in HEADINGS if each in names), None)
        if chosen is not None:
            return LabelFile(name, content, chosen, folder=folder)
        if wanted:
            rest = [each for each in names if each not in NAME_COLUMNS]
            refuse_without_choice(
                name, [each for each in rest if may_be_classes(each, [r.get(each) for r in table])]
            )
            if rest:
                notes.append(f"{name}: not imported: {shown(', '.join(rest))}")
    return None


def _table(content: bytes, name: str) -> Table:
    """Rows of a CSV file with a heading, of JSON lines or of Parquet."""
    try:
        if name.endswith(".parquet"):
            rows: Table = pq.read_table(pa.BufferReader(content)).to_pylist()
            return rows
        if name.endswith(".jsonl"):
            lines = [line for line in content.splitlines() if line.strip()]
            rows = [parse_json(line, f"{name}, line {n}") for n, line in enumerate(lines, 1)]
        else:
            text = io.StringIO(content.decode("utf-8-sig"), newline="")
            rows = list(csv.DictReader(text, restval=None))
    except (ValueError, csv.Error, pa.ArrowException, OSError) as error:
        raise BadInput(f"{shown(name)}: unreadable: {reason(error)}") from None
    if any(not isinstance(row, dict) or None in row for row in rows):
        raise BadInput(f"{shown(name)}: has a row with other columns than the first")
    return rows


def inner_labels(file: LabelFile, names: Sequence[str]) -> NamedLabels:
    """The labels of a file inside a source.

    Raises:
        BadInput: as `read_labels`.
    """
    inside = [name.removeprefix(file.folder) for name in names]
    if file.column is None:
        pairs = _json_pairs(file.content, file.name)
        found = NamedLabels(_checked(pairs, file.name, inside))
    else:
        found = _of_table(_table(file.content, file.name), file.column, file.name, inside)
    labels = {file.folder + name: label for name, label in found.labels.items()}
    return NamedLabels(labels, found.classes)


def read_labels(
    content: bytes, where: str, names: Sequence[str], column: str | None = None
) -> NamedLabels:
    """The class of every image, from the user's file: CSV, or JSON of names or pairs.

    Args:
        where: the file's name; .json, .jsonl and .parquet are read as such, all else as CSV.
        column: with the classes; then the file is a table with a heading.

    Raises:
        BadInput: the file is unreadable, names something else, misses or repeats an image, or has
            a class that is not an integer of at least 0 (without `column`).
    """
    lower = where.lower()
    if lower.endswith(".json") and column is None:
        return NamedLabels(_checked(_json_pairs(content, where), where, names))
    if lower.endswith((".json", ".jsonl", ".parquet")):
        table = _json_table(content, where) if lower.endswith(".json") else _table(content, lower)
        return _of_table(table, _column_of(table, column, where), where, names)
    rows = _csv_rows(content, where)
    if column is None and all(len(row) == 2 for row in rows):
        if rows and rows[0][1].strip().lower() in ("label", "class"):
            rows = rows[1:]
        pairs = ((row[0].strip(), row[1].strip()) for row in rows)
        return NamedLabels(_checked(pairs, where, names))
    table = _table(content, f"{where}.csv")
    return _of_table(table, _column_of(table, column, where), where, names)


def _csv_rows(content: bytes, where: str) -> list[list[str]]:
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = [row for row in csv.reader(text) if row]
    except (ValueError, csv.Error) as error:
        raise _no_labels(where, reason(error)) from None
    if any(len(row) < 2 for row in rows):
        raise _no_labels(where)
    return rows


def _no_labels(where: str, told: str = "") -> BadInput:
    return BadInput(
        f"{where}: no labels in it{f' ({told})' if told else ''}; wanted: CSV lines name,label or "
        'a JSON object {"name": label}'
    )


def _json_table(content: bytes, where: str) -> Table:
    value = parse_json(content, where)
    if not isinstance(value, list) or any(not isinstance(row, dict) for row in value):
        raise _no_labels(where)
    return value


def _column_of(table: Table, column: str | None, where: str) -> str:
    """The column with the classes; raises BadInput where that is not clear."""
    names = [str(name) for name in table[0]] if table else []
    chosen = column or next((name for name in HEADINGS if name in names), None)
    if chosen is None or chosen not in names:
        option = f"`label_column` {chosen}: " if chosen else ""
        raise BadInput(
            f"{option}{where} has the columns {', '.join(names) or 'of no table'}: wanted one "
            "with the names of the images and one with their classes (`label_column`)"
        )
    return chosen


def _of_table(table: Table, column: str, where: str, names: Sequence[str]) -> NamedLabels:
    """Labels of a table; where its classes are words, they are numbered in order."""
    column = _column_of(table, column, where)
    named = next((name for name in NAME_COLUMNS if table and name in table[0]), None)
    if named is None or named == column:
        raise BadInput(f"{where}: has no column with names of images, such as file_name")
    values = [row.get(column) for row in table]
    classes: tuple[str, ...] = ()
    if any(isinstance(value, str) and class_of(value) is None for value in values):
        if any(not isinstance(value, str | int) or _is_odd(value) for value in values):
            raise BadInput(
                f"{where}: the column {column} must hold integers from 0, or words of at most "
                f"{MAX_WORD} letters"
            )
        classes = tuple(in_class_order([str(value) for value in values]))
        numbers = {name: number for number, name in enumerate(classes)}
        values = [numbers[str(value)] for value in values]
    pairs = zip((row.get(named) for row in table), values, strict=True)
    return NamedLabels(_checked(pairs, where, names), classes)


def _is_odd(value: str | int) -> bool:
    """Whether a class can be neither a number nor a word."""
    return isinstance(value, str) and (not value.strip() or len(value) > MAX_WORD)


def _json_pairs(content: bytes, where: str) -> Iterable[tuple[Any, Any]]:
    """(name, label) of a JSON object of names, a list of pairs, or an object whose `labels` is such
    a list (EDM's and StyleGAN's dataset.json)."""
    value = parse_json(content, where)
    if isinstance(value, dict) and not isinstance(value.get("labels", 0), int | str):
        value = value["labels"]
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs
    ):
        raise _no_labels(where)
    return pairs


def _checked(pairs: Iterable[tuple[Any, Any]], where: str, names: Sequence[str]) -> dict[str, int]:
    """Every image's class; raises BadInput unless each image has one, and nothing else has."""
    labels: dict[str, int] = {}
    known = set(names)
    for name, text in pairs:
        label = class_of(text)
        if label is None:
            told = shown(repr(text), 100)
            raise BadInput(f"{where}: the class of {name} must be an integer from 0, got {told}")
        if isinstance(name, str) and name not in known:
            name = plain_name(name)  # as `find .` lists files
        if not isinstance(name, str) or name not in known:
            raise BadInput(f"{where}: {name!r} is no image of the source, such as {names[0]!r}")
        if labels.setdefault(name, label) != label:
            raise BadInput(f"{where}: {name} has two classes, {labels[name]} and {label}")
    if missing := [name for name in names if name not in labels]:
        raise BadInput(
            f"{where}: {len(missing)} of {len(names)} images have no class: {missing[0]}"
        )
    return labels
