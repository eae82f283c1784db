"""Standard training: the base is the model."""

from __future__ import annotations

from typing import Literal

from sims_core.common.frozen import Frozen


class Standard(Frozen):
    """Standard training: the base is the model. The same flow as SIMS less the bracket."""

    kind: Literal["standard"] = "standard"

    @property
    def label(self) -> str:
        return "standard"
