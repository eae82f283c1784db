"""Which column of a table holds the pictures, and which one the classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sims_core.common.errors import BadInput
from sims_core.common.shown import shown
from sims_core.data.classes import class_of

IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")

_CLASS_WORDS = re.compile(
    r"(.*_)?(label|labels|class|classes|cls|category|categories|target|targets)(_(id|idx|name))?|y",
    re.IGNORECASE,
)
_NO_CLASSES = re.compile(
    r"((original|orig|img|image)_)?(width|height|w|h|size|id|idx|index)"
    r"|key|url|uid|uuid|md5|sha\d+|p?hash|__index_level_\d+__",
    re.IGNORECASE,
)
"""Names of numbers that are no classes: of sizes, rows and files."""


@dataclass(frozen=True)
class Columns:
    """What is read of a table."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None = None
    """The words of the label column in order; None: it holds integers."""
    rest: tuple[str, ...] = ()
    """Columns that are not read."""


def may_be_classes(name: str, values: Sequence[Any]) -> bool:
    """Whether a column or JSON field of this name and these values may hold classes."""
    if _NO_CLASSES.fullmatch(name):
        return False
    known = [value for value in values if value is not None]
    return bool(_CLASS_WORDS.fullmatch(name)) or (
        bool(known) and all(class_of(value) is not None for value in known)
    )


def refuse_without_choice(where: object, candidates: Sequence[str]) -> None:
    """Raises BadInput if there are columns that may be classes: leaving them is never silent."""
    if candidates:
        raise BadInput(
            f"{shown(where)}: {shown(', '.join(candidates))} may be classes, and none is called "
            "label: choose one by `label_column`, or pass `labels` none"
        )


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold encoded pictures: bytes, or a struct with `bytes`."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def image_column(schema: pa.Schema) -> str | None:
    """The column of encoded pictures: called so, or the only one of such a type."""
    named = [name for name in IMAGE_COLUMNS if name in schema.names]
    found = named[:1] or [field.name for field in schema if holds_pictures(field.type)]
    if len(found) != 1 or schema.names.count(found[0]) != 1:
        return None
    return found[0] if holds_pictures(schema.field(found[0]).type) else None


def _may_be_label(field: pa.Field) -> bool:
    kind = field.type
    if _NO_CLASSES.fullmatch(field.name):
        return False
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_dictionary(kind)
        or pa.types.is_boolean(kind)
        or _CLASS_WORDS.fullmatch(field.name)
    )


def _is_words(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def find_columns(schema: pa.Schema, where: str, wanted: bool, column: str | None) -> Columns:
    """The columns of pictures and of classes.

    Args:
        wanted: labels are to be found.
        column: the one that was chosen; None: one that is called label, labels or fine_label.

    Returns:
        With `classes` () for words, which are still to be collected.

    Raises:
        BadInput: there is no column of pictures; none or not one that can be classes was chosen.
    """
    image = image_column(schema)
    if image is None:
        raise BadInput(
            f"{where}: wants one column of encoded images, named image or img; columns: "
            + ", ".join(f"{field.name} ({field.type})" for field in schema)
        )
    label = column or next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if not wanted:
        label = None
    elif label is None:
        others = [field for field in schema if field.name != image]
        refuse_without_choice(where, [field.name for field in others if _may_be_label(field)])
    if label is not None and schema.names.count(label) != 1:
        how = "twice" if label in schema.names else f"not; it has {', '.join(schema.names)}"
        raise BadInput(f"{where}: has a column {label} {how}")
    words = False
    if label is not None and not pa.types.is_integer(kind := schema.field(label).type):
        words = column is not None and _is_words(kind)
        if not words:
            mend = f": pass `label_column` {label} to number them" if _is_words(kind) else ""
            raise BadInput(f"{where}: column {label} must hold integers{mend}")
    rest = tuple(name for name in schema.names if name not in (image, label))
    return Columns(image, label, () if words else None, rest)
