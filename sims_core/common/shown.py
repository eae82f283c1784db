"""Text from outside as it may be shown: in one line, and without orders to a terminal."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode's control, format (also those that turn the direction of writing), surrogate (a byte of a
file's name that is not UTF-8), private, line and paragraph characters."""


def shown(text: object, limit: int = 2000) -> str:
    """`text` with every character that a terminal would obey or hide written as an escape.

    What is longer than `limit` characters keeps its beginning and its end.
    """
    raw = str(text)
    if len(raw) > limit:
        raw = f"{raw[: limit // 2]}...{raw[-limit // 2 :]}"
    if raw.isascii() and raw.isprintable():
        return raw
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN else c for c in raw)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python has a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def shown_value(value: Any) -> str:
    """A parameter's value as the command line takes it; None: that of the preset."""
    if value is None:
        return "preset's"
    if (
        value
        and isinstance(value, list)
        and all(isinstance(each, int | float | str) for each in value)
    ):
        return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    return value if isinstance(value, str) else json.dumps(value)
