"""What a file is by its name and first bytes, where it is not imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from sims_core.data.raw import SUFFIXES

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

UNREAD_PICTURES = (
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".psd", ".tga", ".ico"),
    *(".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".eps", ".pcx", ".pfm", ".dcm", ".xcf"),
)
ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".zst", ".bz2", ".xz", ".npz", ".arrow", ".h5", ".hdf5")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

_MAGIC = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"),
    *(b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n", b"P4 ", b"P5 ", b"P6 "),
)


def plain_name(name: str) -> str:
    """A member's name without the ./ that archives of a whole folder begin all names with, such as
    `bsdtar -acf set.zip .` and `tar -cf set.tar .` write."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden, or made by macOS for itself."""
    if not name.startswith((".", "__MACOSX")) and "/." not in name and "/__MACOSX" not in name:
        return False
    parts = PurePosixPath(name).parts
    return any(part.startswith((".", "__MACOSX")) and part not in ("..", ".") for part in parts)


def is_picture_name(name: str) -> bool:
    """Whether a file that is not hidden is a picture by its name."""
    return name.lower().endswith(SUFFIXES)


def looks_like_picture(start: bytes) -> bool:
    """Whether a file's first bytes are those of a format that is read."""
    return start.startswith(_MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def kind_of(name: str, first_bytes: Callable[[], bytes] = bytes) -> str:
    """Why a file that is no picture by its name is left out.

    Args:
        first_bytes: reads at least 12 bytes of it, where its name says nothing.
    """
    lower = name.lower()
    suffix = PurePosixPath(lower).suffix
    if suffix in UNREAD_PICTURES:
        return f"a picture of a kind that is not read ({suffix})"
    if suffix == ".npy":
        return "an array (.npy)"
    if lower.endswith((*ARCHIVES, *TAR_SUFFIXES)):
        return "an archive"
    if suffix in TABLES:
        return f"a table ({suffix}): if it holds labels, pass it to `labels`"
    if looks_like_picture(first_bytes()):
        return "a picture without a known suffix: rename it"
    return "no picture"
