"""Reading of what may be hostile: bounded, and with no error but ours."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sims_core.common.errors import BadInput, SimsError
from sims_core.common.shown import shown
from sims_core.data.types import Labels

T = TypeVar("T")

MAX_MEMBER = 1 << 28
"""No file inside an archive may unpack to more bytes."""

MAX_CLASSES = 1_000_000


def reason(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = str(error).splitlines()
    return shown(lines[0].rstrip("."), 300) if lines and lines[0] else type(error).__name__


@contextmanager
def only_our_errors(where: object) -> Iterator[None]:
    """Every error of a parser of foreign bytes becomes one line; ours have nothing raw in them.

    Parsers raise nearly anything on hostile bytes: of encodings, recursion, memory, types.
    """
    try:
        yield
    except SimsError as error:
        raise type(error)(shown(error)) from None
    except FileNotFoundError as error:
        raise BadInput(f"{shown(error.filename or where)}: is gone or was never there") from None
    except Exception as error:
        raise BadInput(f"{shown(where)}: unreadable: {reason(error)}") from None


def guarded(read: Callable[[], Iterator[T]], where: object) -> Iterator[T]:
    """The items of `read()`, by `only_our_errors`; what is done with them is not looked at."""
    with only_our_errors(where):
        items = read()
    while True:
        with only_our_errors(where):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def regular(path: Path) -> Path:
    """`path`, if it is a file that ends: reading a FIFO or a device may not.

    Raises:
        BadInput: it is none, or is not there.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "is missing"
        raise BadInput(f"{shown(path)}: {what}")
    return path


def read_bounded(path: Path | str, limit: int = MAX_MEMBER) -> bytes:
    """All of a file that is to be held in memory.

    Raises:
        BadInput: it is no file, is unreadable or has more than `limit` bytes.
    """
    try:  # a FIFO opened so does not wait for who writes to it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadInput(f"{shown(path)}: is no file")
            content = file.read(limit + 1)
    except OSError as error:
        raise BadInput(f"{shown(path)}: unreadable: {error.strerror}") from None
    if len(content) > limit:
        raise BadInput(f"{shown(path)}: has more than {limit >> 20} MiB")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"{shown(key)!r} stands there twice")
        found[key] = value
    return found


def parse_json(content: bytes, where: object) -> Any:
    """The value of a JSON text.

    Raises:
        BadInput: it is none, is nested too deeply, has an integer of thousands of digits, or gives
            one key of an object two values.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique)
    except RecursionError:
        raise BadInput(f"{shown(where)}: unreadable: nested too deeply") from None
    except (ValueError, MemoryError) as error:
        raise BadInput(f"{shown(where)}: unreadable: {reason(error)}") from None


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
