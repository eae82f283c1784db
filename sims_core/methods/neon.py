"""Neon: negative extrapolation of weights from self-training (arXiv 2510.03597)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.methods.base import METHODS, Sampled, Steps
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.nets.config import MergeConfig
from sims_core.nets.stages import MERGE
from sims_core.store.artifacts import ArtifactRef


def _not_beyond_the_auxiliary(w: float) -> float:
    if w < -1:
        raise ValueError(
            "must be at least -1, which is the auxiliary itself: below, the weights would go "
            "beyond it, further towards the base's own samples"
        )
    return w


Extrapolation = Annotated[
    float,
    AfterValidator(_not_beyond_the_auxiliary),
    Field(le=1e6, allow_inf_nan=False, json_schema_extra={"minimum": -1}),
]
"""w: how far the weights are moved, in units of the fine-tune's own way."""


@METHODS.add("neon")
class Neon(SelfSynthetic):
    """Moves the base's weights away from the base fine-tuned on its own samples:
    theta = theta_r + w (theta_r - theta_s) (arXiv 2510.03597).

    One network is sampled, at the cost of the base. S and the auxiliary are SIMS's. w = 0 is the
    base, w = -1 the auxiliary. By the paper's theory a sampler that spreads mass wants w in
    (-1, 0), one that narrows it w > 0.
    """

    STRENGTHS: ClassVar[str | None] = "ws"

    kind: Literal["neon"] = "neon"
    w: Extrapolation = 1.0

    @property
    def label(self) -> str:
        return f"neon w={self.w:g}"

    @property
    def strength(self) -> float:
        return self.w

    @classmethod
    def arms(cls, template: Self, strengths: Sequence[float]) -> list[Self]:
        fields = template.model_dump()
        return [cls.model_validate({**fields, "w": w}) for w in sorted({w for w in strengths if w})]

    def with_recipe_of(self, other: SelfSynthetic) -> Self:
        """As every method's.

        Raises:
            BadInput: the other's auxiliary is of another architecture than the base.
        """
        if own := [f"{other.kind}.{name}" for name in other.own_nets]:
            raise BadInput(
                "neon merges the weights of base and auxiliary, which must be of one architecture: "
                f"leave {' and '.join(own)} out"
            )
        return super().with_recipe_of(other)

    def from_auxiliary(self, steps: Steps, base: ArtifactRef, auxiliary: ArtifactRef) -> Sampled:
        request = MERGE.request(MergeConfig(w=self.w), base=base, auxiliary=auxiliary)
        return Sampled(steps.add(roles.MERGE, request))
