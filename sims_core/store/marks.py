"""Marks: how processes on several hosts find out whether they share a store, or a bucket.

One leaves a mark, the others look for it. Equal paths and equal URLs prove nothing: each host may
have a folder of that name, and each may be told another server.
"""

from __future__ import annotations

from pathlib import Path

from sims_core.store.store import Store

MARK = "mark-"


def place_of(store: Store) -> str:
    """Names what others can share of a store: its bucket, where it has one, else its folder."""
    return store.behind.id if store.behind is not None else str(store.root)


def described(store: Store) -> str:
    """A store for people: its folder, and its bucket if it has one."""
    bucket = f" and the bucket {store.behind.url}" if store.behind is not None else ""
    return f"the store {store.root}{bucket}"


def _path(store: Store, mark: str) -> Path:
    return store.root / "locks" / f"{MARK}{mark}"


def leave_mark(store: Store, mark: str) -> None:
    """Leaves an empty file in the store, and one in its bucket; the same again is no error."""
    _path(store, mark).touch()
    if store.behind is not None:
        store.behind.leave(mark)


def shares_folder(store: Store, mark: str) -> bool:
    """Whether the mark was left in this store."""
    return _path(store, mark).is_file()


def shares_bucket(store: Store, mark: str) -> bool:
    """Whether the mark was left in the bucket behind this store."""
    return store.behind is not None and store.behind.sees(mark)
