"""Where decoded images lie beside the artifacts: what is known of them without decoding any."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from sims_core.store.locks import locked

DECODED_FOLDER = "cache/decoded"


def decoded_folders(root: Path) -> list[Path]:
    """The folder of each artifact of which decoded images are kept in the store at `root`."""
    return sorted((root / DECODED_FOLDER).glob("[0-9a-f]" * 64))


def disk_bytes(folder: Path) -> int:
    """What the disk holds of the files of a folder, without holes."""
    return sum(512 * path.stat().st_blocks for path in folder.iterdir())


def decoding_lock(root: Path, digest: str) -> Path:
    """The lock of who decodes images of this artifact, or removes them."""
    return root / "locks" / f"decoded-{digest}.lock"


def decoding(root: Path, digest: str, what: str) -> AbstractContextManager[None]:
    """Exclusive among those; the others wait for `what`."""
    return locked(decoding_lock(root, digest), what, "which another process is decoding")
