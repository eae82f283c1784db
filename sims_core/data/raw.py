"""What a source of images is: a stream of images that are not read yet, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sims_core.common.shown import shown
from sims_core.data.types import Images

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif"),
)
"""Names of pictures that are read end so, in any case."""

FIRST_NAMES = 3
"""So many examples are kept of whatever is counted."""

NO_LABELS = "none"
"""In place of the labels of a configuration: they are left out."""

BY_COLUMN = "column:"
"""Before the name of a column or JSON field, in place of the labels of a configuration."""


class Tally:
    """Things counted by reason, with the first few of their names."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def add(self, reason: str, name: object, count: int = 1) -> None:
        """Counts `count` more of a reason; `name` is kept as an example, fit to be shown."""
        self._counts[reason] = self._counts.get(reason, 0) + count
        first = self._first.setdefault(reason, [])
        if len(first) < FIRST_NAMES:
            first.append(shown(name))

    def merge(self, row: Mapping[str, Mapping[str, Any]]) -> None:
        """Counts what another's `row` says, which came after what was counted here."""
        for reason, counted in row.items():
            self._counts[reason] = self._counts.get(reason, 0) + counted["count"]
            first = [*self._first.get(reason, []), *counted["first"]]
            self._first[reason] = first[:FIRST_NAMES]

    def __bool__(self) -> bool:
        return bool(self._counts)

    def row(self) -> dict[str, dict[str, Any]]:
        """reason -> {"count", "first"}, in the order of their first appearance."""
        return {
            reason: {"count": count, "first": self._first[reason]}
            for reason, count in self._counts.items()
        }


@dataclass(frozen=True)
class RawImage:
    """An image of a source, not read yet."""

    name: str
    """File or row: what a message about it says."""
    load: Callable[[], bytes | Images]
    """Encoded, or uint8 [C, H, W]; raises BrokenImage."""
    label: int | None = None
    key: str | None = None
    """Its name in a file of labels, where that is not `name`."""
    held: int = 0
    """Bytes that it holds in memory already."""


@dataclass(frozen=True)
class LabelFile:
    """A file of labels that lies inside a source."""

    name: str
    content: bytes
    """All of it, as it was read."""
    column: str | None = None
    """The column of a table that has the classes."""
    empty: bool = False
    """It says that there are no labels."""
    folder: str = ""
    """Where it lies, with / at its end: it names images from there on."""


@dataclass(frozen=True)
class Source:
    """Something to import images from."""

    layout: str
    files: tuple[Path, ...]
    """Everything that its content is in, in order."""
    read: Callable[[], Iterator[RawImage]]
    split: str | None = None
    names: tuple[str, ...] | None = None
    """Names of all its images, where names identify them: files of a folder, members of a zip."""
    classes: tuple[str, ...] = ()
    """Name of each class, where the source gives names."""
    keys: tuple[str, ...] | None = None
    """Names of its images in a file of labels; None: `names`."""
    label_file: LabelFile | None = None
    """Labels of its own, which stand above its sub-folders."""
    label_column: str | None = None
    """The column or field of its labels, where that must be said: it was chosen, or is a field."""
    left_out: Tally = field(default_factory=Tally)
    """What lies there and is not imported, as far as that is known before the images are read."""
    notes: list[str] = field(default_factory=list)
    """What was decided, in sentences."""
    missing: tuple[str, ...] = ()
    """Files that must have been there, by the names of the others."""

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """What a file of labels calls the images; None: they have no names."""
        return self.names if self.keys is None else self.keys
