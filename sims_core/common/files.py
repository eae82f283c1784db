"""Files that are written whole or not at all, on the disk before they are named, and what a full
disk says."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sims_core.common.errors import SimsError, StoreError

FSYNC = "SIMS_FSYNC"
"""Set to 0, nothing waits for the disk: for stores whose loss in a power failure is no loss."""
OFF = ("0", "false", "no", "off", "f", "n")
"""What turns a setting off, as `Settings` reads it."""
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explain_disk_errors(root: Path) -> Iterator[None]:
    """Turns a full disk and a refused write into one clear StoreError.

    Some libraries report a failed write as their own exception type, so the disk is asked as well.
    """
    try:
        yield
    except SimsError:
        raise
    except OSError as error:
        if is_full(error):
            raise StoreError(full_message(root)) from error
        if is_gone(root):
            raise StoreError(gone_message(root)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(f"cannot write {error.filename or root}: {error.strerror}") from error
        in_the_way = error.filename2 or error.filename
        if error.errno in IN_THE_WAY and str(in_the_way).startswith(f"{root}{os.sep}"):
            raise StoreError(f"{in_the_way} is in the way: move it") from error
        raise
    except Exception as error:
        if is_gone(root):
            raise StoreError(gone_message(root)) from error
        if shutil.disk_usage(root).free < 1 << 20:
            raise StoreError(full_message(root)) from error
        raise


def is_gone(root: Path) -> bool:
    """Whether a store that was there is not any more."""
    return not all((root / folder).is_dir() for folder in ("artifacts", "progress", "locks"))


def gone_message(root: Path) -> str:
    return (
        f"the store {root} is gone, or parts of it: it was removed or unmounted while this worked; "
        "run the same command again once it is there"
    )


def full_message(root: Path) -> str:
    free = shutil.disk_usage(root).free / 2**20
    return (
        f"the disk of the store {root} is full ({free:.1f} MiB free): make room or pass another "
        "`store`, then run the same command again: it goes on where it stopped"
    )


PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}|probe-[0-9a-f]{32}")


def is_partial(path: Path) -> bool:
    """Whether it is named as a file that has no name yet, or that was written to try the disk: one
    that is older than the moment it takes was left by a kill."""
    return PARTIAL.fullmatch(path.name) is not None


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Whole or not at all: written beside `path`, brought to the disk, then renamed.

    Args:
        durable: not, where a short file after a power cut would be noticed and made again.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def waits_for_disk() -> bool:
    """What SIMS_FSYNC says; it is read anew each time."""
    return os.environ.get(FSYNC, "1").lower() not in OFF


def sync(path: Path) -> None:
    """Waits until a file, or everything under a folder, is on the disk; see SIMS_FSYNC."""
    if not waits_for_disk():
        return
    if path.is_dir():
        for parent, _, files in os.walk(path, topdown=False):
            for path in (Path(parent, name) for name in files):
                if not path.is_symlink():
                    _sync(path)
            _sync(Path(parent))
    else:
        _sync(path)


def sync_name(path: Path) -> None:
    """Waits until the name of a file or folder, just given by a rename, is on the disk."""
    if waits_for_disk():
        _sync(path.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def stays_inside(path: str, longest_part: int) -> bool:
    """Whether a relative path stays in the folder that it is relative to, on every system, and
    shows as it is.

    Args:
        path: its parts with `/` between them.
        longest_part: bytes that a part may have in UTF-8.
    """
    return (
        path.isprintable()  # no surrogates, which have no bytes
        and "\\" not in path
        and all(
            part not in ("", ".", "..") and len(part.encode()) <= longest_part
            for part in path.split("/")
        )
    )


class NotRegular(OSError):
    """A folder, a FIFO or a device, where a file is wanted."""


def read_regular(path: Path, limit: int = 1 << 28) -> bytes:
    """All of a file that is to be held in memory.

    Raises:
        OSError: it cannot be read; it is none that ends, as a FIFO or a device may not; or it has
            more than `limit` bytes.
    """

    def without_waiting(name: str, flags: int) -> int:
        """A FIFO opened so does not wait for who writes to it."""
        return os.open(name, flags | os.O_NONBLOCK)

    with open(path, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(errno.EINVAL, "is no file", str(path))
        # Room is made for as much as is asked for.
        content = file.read(min(limit, max(status.st_size, 1 << 16)) + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit >> 20} MiB", str(path))
    return content


def remove(path: Path) -> None:
    """Removes whatever is there: a file, a link, a folder with all that it holds, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
