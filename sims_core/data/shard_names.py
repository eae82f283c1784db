"""Files that must have been there: parts of a whole that number themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from sims_core.common.shown import shown

MOST_PARTS = 100_000


def missing_parts(paths: Sequence[Path]) -> tuple[str, ...]:
    """Files `name-00001-of-00003` that are not there while others of their whole are."""
    found: dict[tuple[str, str, str, str], set[int]] = defaultdict(set)
    for path in paths:
        if match := re.fullmatch(r"(.*-)(\d{1,9})-of-(\d{1,9})(.*)", path.name):
            start, number, total, rest = match.groups()
            found[str(path.parent / start), total, rest, str(len(number))].add(int(number))
    missing = []
    for (start, total, rest, width), numbers in found.items():
        if int(total) > MOST_PARTS:
            continue
        first = 0 if 0 in numbers or int(total) not in numbers else 1
        for number in range(first, first + int(total)):
            if number not in numbers:
                name = f"{Path(start).name}{number:0{int(width)}d}-of-{total}{rest}"
                missing.append(shown(name))
    return tuple(missing)


def shard_gaps(paths: Sequence[Path]) -> list[str]:
    """A sentence about numbers that are missing among files that are numbered one after another."""
    found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for path in paths:
        if "-of-" in path.name:
            continue
        if match := re.fullmatch(r"(\D*(?:\d+\D+)*?)(\d{1,9})(\D*)", path.name):
            found[match[1], match[3]][int(match[2])] = match[2]
    notes = []
    for (start, rest), numbers in found.items():
        low, high = min(numbers), max(numbers)
        gaps = high - low + 1 - len(numbers)
        if len(numbers) > 1 and 0 < gaps <= len(numbers):
            width = len(numbers[low])
            first = next(number for number in range(low, high) if number not in numbers)
            notes.append(
                f"{gaps} of the numbers from {low} to {high} are missing among the files "
                f"{shown(start)}...{shown(rest)}, the first is {shown(start)}{first:0{width}d}"
            )
    return notes
