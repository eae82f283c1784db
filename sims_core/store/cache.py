"""Where decoded images lie beside the artifacts: what is known of them without decoding any."""

from __future__ import annotations

from pathlib import Path

DECODED_FOLDER = "cache/decoded"


def decoded_folders(root: Path) -> list[Path]:
    """The folder of each artifact of which decoded images are kept in the store at `root`."""
    return sorted((root / DECODED_FOLDER).glob("[0-9a-f]" * 64))


def disk_bytes(folder: Path) -> int:
    """What the disk holds of the files of a folder, without holes."""
    return sum(512 * path.stat().st_blocks for path in folder.iterdir())
