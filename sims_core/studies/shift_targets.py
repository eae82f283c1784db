"""Target mixes over named groups of classes, as a user asks for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.data.groups import GroupMix


@dataclass(frozen=True)
class Target:
    """A mix over named groups."""

    names: tuple[str, ...]
    mix: GroupMix

    @property
    def name(self) -> str:
        """What it is called: of two groups by the share of the first."""
        pairs = list(zip(self.names, self.mix.shares, strict=True))
        shown = pairs[:1] if len(pairs) == 2 else pairs
        return ",".join(f"{name}={share:g}" for name, share in shown)


def make_targets(
    groups: Mapping[str, Sequence[int]],
    targets: Sequence[float | Mapping[str, float]],
    num_classes: int,
) -> tuple[Target, ...]:
    """The targets over the groups.

    Args:
        groups: classes by the group's name; none: every class is a group called by its number.
        targets: a share for every group by its name, or of two groups the first one's share alone.
        num_classes: classes are 0 .. num_classes - 1, each in one group.

    Raises:
        BadInput: groups overlap, leave a class out or name one that does not occur; a target names
            no group or not all, has a share outside of (0, 1), or shares that do not sum to 1.
    """
    given = dict(groups) or {str(number): [number] for number in range(num_classes)}
    _check_groups(given, num_classes)
    return tuple(_target(given, each) for each in targets)


def _check_groups(groups: Mapping[str, Sequence[int]], num_classes: int) -> None:
    taken: dict[int, str] = {}
    if len(groups) < 2:
        raise BadInput(f"groups: want at least two, got {', '.join(groups)}")
    for name, classes in groups.items():
        for number in classes:
            if not 0 <= number < num_classes:
                raise BadInput(
                    f"groups.{name}: class {number} does not occur; classes are 0 to "
                    f"{num_classes - 1}"
                )
            if number in taken:
                raise BadInput(f"groups: class {number} is in {taken[number]} and in {name}")
            taken[number] = name
    if missing := sorted(set(range(num_classes)) - set(taken)):
        raise BadInput(
            f"groups: every class must be in one, {', '.join(map(str, missing))} is in none"
        )


def _target(groups: Mapping[str, Sequence[int]], wanted: float | Mapping[str, float]) -> Target:
    names = tuple(groups)
    if not isinstance(wanted, Mapping):
        if len(names) != 2:
            raise BadInput(
                f"targets: a number is the share of the first of two groups; there are "
                f"{len(names)}, give the share of each: {{{', '.join(names)}}}"
            )
        wanted = {names[0]: wanted, names[1]: 1 - wanted}
    if unknown := [name for name in wanted if name not in groups]:
        raise BadInput(f"targets: no group {unknown[0]!r}; groups: {', '.join(names)}")
    if missing := [name for name in names if name not in wanted]:
        raise BadInput(f"targets: no share of group {missing[0]!r} in {dict(wanted)}")
    shares = tuple(wanted[name] for name in names)
    if any(not 0 < share < 1 for share in shares):
        raise BadInput(f"targets: every share must be between 0 and 1, got {dict(wanted)}")
    try:
        mix = GroupMix(groups=tuple(tuple(groups[name]) for name in names), shares=shares)
    except ValidationError as error:
        raise BadInput(f"targets: {one_line(error).removeprefix('value: ')}") from None
    return Target(names, mix)


def pool_size(rate: float, target: Sequence[float], known_from: int, count: int) -> int:
    """How many samples rejection needs so that it keeps `count` all but surely.

    Six standard deviations of the number that is kept, and four of the rate's own error, are
    allowed for: the rate is p / t of the group that is rarest beside the target.

    Args:
        rate: at which samples are kept, known from so many of the model's.

    Raises:
        BadInput: a group is missing among them.
    """
    if rate == 0:
        raise BadInput(
            f"the base made none of a group among {known_from} samples: no mix with a share of it "
            "can be reached"
        )
    rarest = min(rate * min(target), 1.0)
    doubt = math.sqrt((1 - rarest) / (rarest * known_from))
    return math.ceil((count + 6 * math.sqrt(count)) / rate * (1 + 4 * doubt))
