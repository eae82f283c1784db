"""Groups of classes, target mixes over them, and the stages' configuration that move one mix to
another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from sims_core.common.frozen import Frozen

Share = Annotated[float, Field(gt=0, lt=1)]
Classes = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

SUM_TOLERANCE = 1e-6
"""Shares may differ from a sum of one by so much, as texts of decimals do."""


class GroupMix(Frozen):
    """A mix over groups of classes: the share of each."""

    groups: Annotated[tuple[Classes, ...], Field(min_length=2)]
    """The classes of each group; no class is in two."""
    shares: tuple[Share, ...]

    @model_validator(mode="after")
    def _is_a_mix(self) -> GroupMix:
        classes = [each for group in self.groups for each in group]
        if len(set(classes)) < len(classes):
            raise ValueError(f"a class is in two groups of {[list(g) for g in self.groups]}")
        if len(self.shares) != len(self.groups):
            raise ValueError(f"{len(self.shares)} shares for {len(self.groups)} groups")
        if abs(sum(self.shares) - 1) > SUM_TOLERANCE:
            raise ValueError(f"shares must sum to 1, those of {self.shares} to {sum(self.shares)}")
        return self


class Guided(Frozen):
    """How the auxiliary that is trained on a re-weighted set will guide."""

    omega: Annotated[float, Field(gt=0)]
    exponent: Annotated[float, Field(ge=0)]
    """How strongly the set is skewed: 1 by the formula, 0 not at all."""


class ReweighConfig(Frozen):
    """A set with exact counts of each group, drawn from another one."""

    target: GroupMix
    count: Annotated[int, Field(ge=1)] | None = None
    """Images, or points of each replicate. None: the largest set of this mix in which none comes
    twice."""
    at_least: int = 1
    """Fewer are refused."""
    guided: Guided | None = None
    """None: the new set has the target's mix; else the one that an auxiliary must learn so that its
    guidance moves the base to the target."""
    seed: int


class RejectConfig(Frozen):
    """The first `count` that rejection sampling to a target mix accepts."""

    target: GroupMix
    count: Annotated[int, Field(ge=1)]
    seed: int


def guided_shares(
    shares: Sequence[float], target: Sequence[float], omega: float, exponent: float = 1.0
) -> list[float]:
    """The mix q that an auxiliary must have so that guidance away from it moves `shares` to
    `target`.

    Where the groups are well apart, p^(1 + omega) / q^omega has the mass p^(1 + omega) / q^omega in
    each, so that q is proportional to (p^(1 + omega) / target^e)^(1 / omega) at e = 1. Another
    exponent stretches the whole way from p to the target: q is proportional to
    p (p / target)^(exponent / omega), which is the same at 1 and p itself at 0.

    Args:
        shares: p, the mix that the base makes; a share of 0 stays 0.
        target: the mix wanted, each share above 0.

    Returns:
        Shares that sum to one.
    """
    raw = [p * (p / t) ** (exponent / omega) for p, t in zip(shares, target, strict=True)]
    return [each / sum(raw) for each in raw]


def exact_counts(shares: Sequence[float], count: int) -> list[int]:
    """Counts that sum to `count`, each within one of its share (largest remainder; of equal
    remainders the earlier group's)."""
    wanted = [share * count / sum(shares) for share in shares]
    counts = [int(each + 1e-9) for each in wanted]
    order = sorted(range(len(shares)), key=lambda group: (counts[group] - wanted[group], group))
    for group in order[: count - sum(counts)]:
        counts[group] += 1
    return counts


def acceptance(shares: Sequence[float], target: Sequence[float]) -> list[float]:
    """The probability with which rejection sampling keeps a sample of each group.

    The largest is 1. Of a mix p the target t comes out where a sample of group g is kept with
    probability (t_g / p_g) / max (t / p); sum p_g times that are kept.

    Raises:
        ZeroDivisionError: a group has no share.
    """
    ratios = [t / p for p, t in zip(shares, target, strict=True)]
    return [each / max(ratios) for each in ratios]
