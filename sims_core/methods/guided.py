"""What methods share that sample away from an auxiliary: strength, and where it is applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field

from sims_core.diffusion.config import SigmaInterval
from sims_core.methods.base import Method


class Guided(Method):
    """A method of negative guidance: s = (1 + omega) s_base - omega s_auxiliary."""

    STRENGTHS: ClassVar[str | None] = "omegas"

    omega: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Guidance strength; omega = 0 is standard training."""
    interval: SigmaInterval | None = None
    """Noise levels [low, high] that are guided; at others only the base is evaluated (arXiv
    2404.07724). None: all are."""

    @property
    def label(self) -> str:
        where = "" if self.interval is None else " sigma={:g}..{:g}".format(*self.interval)
        return f"{self.kind} omega={self.omega:g}{where}"

    @property
    def strength(self) -> float:
        return self.omega

    @classmethod
    def arms(cls, template: Self, strengths: Sequence[float]) -> list[Self]:
        guided = sorted({omega for omega in strengths if omega > 0})
        return [template.model_copy(update={"omega": omega}) for omega in guided]
