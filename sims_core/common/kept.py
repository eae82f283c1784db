"""What is kept of unfinished work: named when it is whole, and checked before it is trusted.

Beside each file or folder `name` lies `name.sha256`, which says what it holds. A bit that turned on
the disk, a file cut by a power failure or one changed by hand is noticed: its maker goes on from
what it kept before, or begins again.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from sims_core.common.digest import digest_of, file_sha256
from sims_core.common.files import read_regular, remove, sync, write_atomically

logger = logging.getLogger("sims_core.kept")

SUFFIX = ".sha256"


def note_of(path: Path) -> Path:
    """The file that says what `path` holds."""
    return path.with_name(path.name + SUFFIX)


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a folder."""
    if not path.is_dir():
        return file_sha256(path)
    inside = sorted(each for each in path.rglob("*") if not each.is_dir())
    return digest_of({each.relative_to(path).as_posix(): file_sha256(each) for each in inside})


def note(path: Path, partial: Path | None = None) -> None:
    """Says what a finished file or folder holds, once that is on the disk.

    Args:
        partial: where it is until it is given its name.
    """
    made = partial or path
    sync(made)
    write_atomically(note_of(path), content_sha256(made), durable=False)


def keep(partial: Path, path: Path) -> None:
    """Gives a finished file or folder its name, having said what it holds."""
    if path.is_dir():
        remove(path)
    note(path, partial)
    os.replace(partial, path)


def is_kept(path: Path) -> bool:
    """Whether `path` is there and holds what it did when it was kept.

    What differs is said. What was not kept yet when its maker was killed has nothing that says
    what it holds, and is no more than not there.
    """
    try:
        if read_regular(note_of(path)) == content_sha256(path).encode():
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        logger.warning("unfinished work: %s cannot be read (%s)", path, error.strerror)
        return False
    logger.warning("unfinished work is damaged: %s is not as it was kept; it is made again", path)
    return False


def move_kept(path: Path, target: Path) -> None:
    """Renames what was kept, in the place of what `target` was; one of the two is whole always."""
    remove(target)
    note = note_of(path)
    if note.is_file():
        shutil.copyfile(note, note_of(target))
    os.replace(path, target)
