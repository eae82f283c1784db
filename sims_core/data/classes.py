"""Class labels as sources write them: integers from 0."""

from __future__ import annotations

from typing import Any

from sims_core.common.errors import BadInput
from sims_core.common.shown import shown
from sims_core.data.types import Labels

MAX_CLASSES = 1_000_000


def class_of(value: Any) -> int | None:
    """A class label of JSON, CSV or a table: an integer from 0, also as text; None: it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, int):
        return value if value >= 0 else None
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def check_classes(labels: Labels, where: object) -> Labels:
    """Raises BadInput unless every class is in 0 .. MAX_CLASSES - 1."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < MAX_CLASSES):
        raise BadInput(f"{shown(where)}: a class is not in 0 .. {MAX_CLASSES - 1}")
    return labels
