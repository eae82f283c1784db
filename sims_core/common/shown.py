"""Text from outside as it may be shown: in one line, and without orders to a terminal."""

from __future__ import annotations

import unicodedata

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
