"""Files that are written whole or not at all, and what a full disk says."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sims_core.common.errors import StoreError


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explain_disk_errors(root: Path) -> Iterator[None]:
    """Turns a full disk and a refused write into one clear StoreError.

    Some libraries report a failed write as their own exception type, so the disk is asked as well.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if is_full(error):
            raise StoreError(full_message(root)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(f"cannot write {error.filename or root}: {error.strerror}") from error
        raise
    except Exception as error:
        if shutil.disk_usage(root).free < 1 << 20:
            raise StoreError(full_message(root)) from error
        raise


def full_message(root: Path) -> str:
    free = shutil.disk_usage(root).free / 2**20
    return (
        f"the disk of the store {root} is full ({free:.1f} MiB free): make room or pass another "
        "`store`, then run the same command again: it goes on where it stopped"
    )


def write_atomically(path: Path, content: str | bytes) -> None:
    """Whole or not at all: written beside `path`, then renamed."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
