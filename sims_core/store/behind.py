"""What may stand behind a store: a bucket that other hosts have too (see store/remote/).

Only what a store needs to know of it is here, so that nothing of it is imported where there is
none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sims_core.store.artifacts import MANIFEST_FILE, ArtifactRef, StageRequest

NOTES_FOLDER = "bucket"
"""Under a store's root: a file for each artifact that the bucket is known to have, or that is in
use; see store/remote/holds.py."""


class Behind(Protocol):
    """Where artifacts come from that the store lacks, and go to that it has made."""

    def has(self, ref: ArtifactRef) -> bool:
        """Whether it has an entry, as far as its manifest says."""

    def have(self, ref: ArtifactRef) -> bool:
        """Whether it has the entry, which then is in the store, or was and may come again when it
        is opened. The caller holds the entry's lock."""

    def obtain(self, ref: ArtifactRef) -> bool:
        """Brings every byte of the entry into the store, if it has them."""

    def publish(self, ref: ArtifactRef) -> None:
        """Brings a whole entry there, unless it is there already. The caller holds its lock."""

    def publish_run(self, folder: Path) -> None:
        """Brings there what people look at of a run."""

    def turn(self, request: StageRequest, again: bool) -> AbstractContextManager[bool]:
        """Waits until nobody else computes the entry.

        The context's value is whether it is still to be computed; what it then commits is
        published when the context is left.

        Args:
            again: It is computed although it is there.
        """

    def keeping_all(self) -> AbstractContextManager[None]:
        """Nothing leaves the store in the context for want of room."""

    @property
    def id(self) -> str:
        """Names it, the same on every host."""

    @property
    def url(self) -> str:
        """What people call it; no credentials are in it."""

    def leave(self, mark: str) -> None:
        """Leaves a mark there; see `sims_core.store.marks`."""

    def sees(self, mark: str) -> bool:
        """Whether somebody has left that mark there."""


def is_evicted(root: Path, ref: ArtifactRef) -> bool:
    """Whether the files of an entry left the store at `root` for want of room: only its manifest is
    there, and a note that the bucket has the rest."""
    try:
        if not (root / NOTES_FOLDER / ref.digest).read_bytes():
            return False
        inside = [path.name for path in (root / ref.location).iterdir()]
    except OSError:
        return False
    return inside == [MANIFEST_FILE]
