"""What an import has seen and done, kept shard by shard: one that was interrupted goes on there."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sims_core.common.digest import file_sha256
from sims_core.common.frozen import Frozen
from sims_core.common.sealed import Sealed
from sims_core.data.image_writer import Written
from sims_core.data.preparing import Ready
from sims_core.data.raw import Tally

logger = logging.getLogger("sims_core.import")

DONE_FILE = "imported.jsonl"


class First(Frozen):
    """The form of a set's first image, which all others must have."""

    name: str
    shape: tuple[int, int, int]
    labelled: bool


class Seen(Frozen):
    """What was seen of images that were read."""

    skipped: tuple[dict[str, str], ...] = ()
    remarks: dict[str, dict[str, Any]] = {}
    formats: dict[str, int] = {}
    sides: tuple[int, int] | None = None
    """The smallest and the largest of the pictures' shorter sides."""


class Observer:
    """Collects what is seen."""

    def __init__(self) -> None:
        self._skipped: list[dict[str, str]] = []
        self._remarks = Tally()
        self._formats: Counter[str] = Counter()
        self._sides: list[int] = []

    def skip(self, name: str, reason: str) -> None:
        self._skipped.append({"name": name, "reason": reason})

    def add(self, name: str, ready: Ready) -> None:
        self._formats[ready.format or "array"] += 1
        self._sides = [min([*self._sides, ready.side]), max([*self._sides, ready.side])]
        for remark in ready.remarks:
            self._remarks.add(remark, name)

    def merge(self, seen: Seen) -> None:
        """Adds what was seen of the images that came next."""
        self._skipped += seen.skipped
        self._remarks.merge(seen.remarks)
        self._formats.update(seen.formats)
        sides = [*self._sides, *(seen.sides or ())]
        self._sides = [min(sides), max(sides)] if sides else []

    @property
    def seen(self) -> Seen:
        return Seen(
            skipped=tuple(self._skipped),
            remarks=self._remarks.row(),
            formats=dict(sorted(self._formats.items())),
            sides=(self._sides[0], self._sides[1]) if self._sides else None,
        )


class Part(Sealed):
    """A shard that is done, and what it took; its line is believed only with its checksum."""

    written: Written
    sha256: str
    read: int
    """Images of the source that were read for it, skipped ones included."""
    first: First
    """Of the whole set."""
    seen: Seen


class Parts:
    """The finished parts of one import, in a file with a line for each, under `state`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.done = self._read()
        if self.done:
            count = sum(part.written.shard.count for part in self.done)
            logger.info("goes on after %d images, which were imported before", count)

    def _read(self) -> list[Part]:
        """The first ones, as far as lines and shards are whole."""
        try:
            lines = (self.state / DONE_FILE).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        done: list[Part] = []
        for line in lines:
            try:
                part = Part.model_validate_json(line)
                is_whole = part.checksum and part.is_intact()
                if not is_whole or file_sha256(self.state / part.written.shard.file) != part.sha256:
                    logger.warning("unfinished work is damaged: %s; it is made again", DONE_FILE)
                    break
            except (ValidationError, FileNotFoundError):  # torn by a kill
                break
            done.append(part)
        text = "".join(f"{part.model_dump_json()}\n" for part in done)
        (self.state / DONE_FILE).write_text(text)
        return done

    @property
    def read(self) -> int:
        """Images of the source that need not be read again."""
        return sum(part.read for part in self.done)

    @property
    def written(self) -> Sequence[Written]:
        return [part.written for part in self.done]

    def add(self, written: Written, read: int, first: First, seen: Seen) -> None:
        """A shard is done."""
        sha256 = file_sha256(self.state / written.shard.file)
        part = Part(written=written, sha256=sha256, read=read, first=first, seen=seen).sealed()
        with (self.state / DONE_FILE).open("a") as file:
            file.write(f"{part.model_dump_json()}\n")
        self.done.append(part)

    def forget(self) -> None:
        """Removes everything: the import is refused."""
        for path in self.state.iterdir():
            path.unlink()
