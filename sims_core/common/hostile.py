"""Reading of what may be hostile: bounded, and with no error but ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sims_core.common.errors import BadInput, SimsError
from sims_core.common.files import NotRegular, read_regular
from sims_core.common.shown import shown

T = TypeVar("T")

MAX_MEMBER = 1 << 28
"""No file that is held in memory, and none inside an archive, may have more bytes."""


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
    try:
        return read_regular(Path(path), limit)
    except NotRegular as error:
        raise BadInput(f"{shown(path)}: {error.strerror}") from None
    except OSError as error:
        raise BadInput(f"{shown(path)}: unreadable: {error.strerror}") from None


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
