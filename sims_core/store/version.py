"""The version of a store: what a program must know to read and write it.

The file `version` of a store has a number. One without it was made before there was one, and is of
version 1. The number goes up when an older program would misread what a newer one has written, or
would damage it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sims_core.common.errors import StoreError
from sims_core.common.files import write_atomically

VERSION_FILE = "version"
VERSION = 1
LONGEST = 32
"""Characters of that file that are read."""


def check_version(root: Path) -> bool:
    """Whether the store at `root` says its version.

    Raises:
        StoreError: it is one that this program does not know.
    """
    path = root / VERSION_FILE
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is in the way of the store's version: remove it")
    try:
        with path.open("rb") as file:
            said = file.read(LONGEST)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if not said.strip(b"\0"):  # cut by a power failure, where nothing waited for the disk
        return False
    number = 0
    with suppress(ValueError):
        number = int(said)
    if number < 1:
        raise StoreError(f"{path} names no version: write {VERSION} into it, or remove it")
    if number > VERSION:
        raise StoreError(
            f"the store {root} is of version {number}, and this program knows {VERSION}: update "
            "sims-loop, or pass another `store`"
        )
    return True


def mark_version(root: Path) -> None:
    """Writes the version down."""
    write_atomically(root / VERSION_FILE, f"{VERSION}\n")
