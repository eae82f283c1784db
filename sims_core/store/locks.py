"""Locks among the processes of a host, which say who holds them.

A lock is a file that its holder keeps locked (flock): the kernel frees it when the holder dies,
however it dies. The file says who the holder is, and goes when the lock is given back. Whoever gets
a lock looks whether its file still has the name: one that was removed meanwhile locks nobody out.

A file can be removed while its lock is held, by whoever tidies up: the next to come would make
another and lock that. On Linux the holder therefore has a name of the kernel's as well (an abstract
socket), which nobody can remove; it is seen in the same container, or by all that are in none.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sims_core.common.errors import StoreError

logger = logging.getLogger("sims_core.store")

TELL_S = 60.0
"""Who waits says so at once, and again as often."""
LONGEST_POLL_S = 0.25
COMPUTING = "which another run is computing"
MARK = b'{"lock"'
"""What the content of a lock's file begins with."""
LONGEST = 4096
"""Bytes of it that are read."""


@contextmanager
def locked(path: Path, what: str, held: str = COMPUTING) -> Iterator[None]:
    """Holds the lock of this file.

    Args:
        what: the lock is of, for who waits.
        held: why it is not free then.

    Raises:
        StoreError: something that is no lock is in its place.
    """
    file, guard = _acquire(path, what, held)
    try:
        yield
    finally:
        guard.close()
        # Removed while it is held: who opened it before finds out, by its name, that it is gone.
        with suppress(OSError):
            if is_named(file, path):
                path.unlink()
        os.close(file)


def _acquire(path: Path, what: str, held: str) -> tuple[int, socket.socket]:
    """The lock's file, locked, and the guard of its name."""
    began, told, pause = time.monotonic(), -TELL_S, 0.005
    while True:
        file = _opened(path)
        who = None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_named(file, path) and (guard := _guard(path)) is not None:
                _sign(file)
                return file, guard
        except BlockingIOError:
            who = holder(path)
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if time.monotonic() - told >= TELL_S:
            logger.info("%s", waiting_for(f"{what}, {held}", who, time.monotonic() - began))
            told = time.monotonic()
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_POLL_S)


def _guard(path: Path) -> socket.socket | None:
    """The kernel's name for the lock, held until it is closed; None if somebody has it."""
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform == "linux":
        folder = path.parent.stat()
        try:
            guard.bind(f"\0sims/{folder.st_dev}/{folder.st_ino}/{path.name}"[:107])
        except OSError as error:
            guard.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return None
    return guard


def _opened(path: Path) -> int:
    """The lock's file, opened and not changed."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            file = os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # of somebody else who shares the store: it can be locked unsigned
            file = os.open(path, flags | os.O_RDONLY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise StoreError(f"{path} is in the way of a lock: remove it") from None
        raise
    try:
        found = os.fstat(file)
        head = os.pread(file, LONGEST, 0) if stat.S_ISREG(found.st_mode) else b"?"
    except BaseException:
        os.close(file)
        raise
    if found.st_nlink > 1 or not _is_of_a_lock(head):  # another file, which must stay as it is
        os.close(file)
        raise StoreError(f"{path} is in the way of a lock: remove it")
    return file


def _is_of_a_lock(content: bytes) -> bool:
    """Whether a holder wrote it, or a power cut has cut or emptied what one wrote."""
    return content.startswith(MARK) or MARK.startswith(content.rstrip(b"\0"))


def is_named(file: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    held = os.fstat(file)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)


def _sign(file: int) -> None:
    """Writes down who holds the lock. A disk too full for that is no reason not to hold it."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    me = {"lock": 1, "host": socket.gethostname(), "pid": os.getpid(), "since": since}
    with suppress(OSError):
        content = json.dumps(me).encode()
        os.pwrite(file, content, 0)
        os.ftruncate(file, len(content))


def holder(path: Path) -> dict[str, Any] | None:
    """Who says in the file that they hold it: `host`, `pid`, `since`; None if it is not said."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            said = json.loads(os.pread(file, LONGEST, 0))
        finally:
            os.close(file)
        return {"host": str(said["host"]), "pid": int(said["pid"]), "since": str(said["since"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def waiting_for(what: str, who: dict[str, Any] | None, waited_s: float) -> str:
    """The line of who waits for a lock."""
    so_far = f", for {waited_s / 60:.0f} min so far" if waited_s >= TELL_S else ""
    if who is None:
        return f"waiting for {what}{so_far}"
    return (
        f"waiting for {what}{so_far}: process {who['pid']} on {who['host']} since {who['since']}, "
        f"{condition(who)}"
    )


def condition(who: dict[str, Any]) -> str:
    """Whether a holder is alive, and what to do if it is stopped."""
    if who["host"] != socket.gethostname():
        return "on another host or in another container"
    try:
        state = Path(f"/proc/{who['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "not seen from here"
    if state in "Tt":
        return f"stopped: let it go on (kill -CONT {who['pid']}) or end it (kill {who['pid']})"
    return "alive"
