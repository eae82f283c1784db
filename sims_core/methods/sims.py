"""SIMS: self-improvement with synthetic data (arXiv 2408.16333, Algorithm 1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from sims_core.common.frozen import Frozen
from sims_core.common.seeding import MOST_IMAGES
from sims_core.nets.config import UNetConfig
from sims_core.training.config import MOST_KIMG


class AuxData(StrEnum):
    """What the auxiliary is fine-tuned on. One caption of the paper says the second, three other
    sources the first, hence the default."""

    synthetic = "synthetic"
    real_and_synthetic = "real+synthetic"


class Sims(Frozen):
    """Self-improvement with synthetic data (arXiv 2408.16333, Algorithm 1)."""

    kind: Literal["sims"] = "sims"
    omega: Annotated[float, Field(gt=0)] = 1.0
    """Guidance strength; omega = 0 is `Standard`."""
    n_s: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 4000
    """Size of the self-synthetic set S."""
    budget_mimg: Annotated[float, Field(gt=0, le=MOST_KIMG / 1000)] = 0.0128
    """B, the auxiliary's training length in million images seen."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    aux_data: AuxData = AuxData.synthetic
    auxiliary_net: UNetConfig | None = None
    """Another architecture for the auxiliary, which is then trained from scratch on S; None
    fine-tunes the base."""

    @property
    def label(self) -> str:
        return f"sims omega={self.omega:g}"
