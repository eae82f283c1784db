"""Tables of a loop's figures, and the ratios in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sims_core.reports.over_seeds import as_row
from sims_core.reports.summary import ArmSummary


def ratios(arm: ArmSummary, figure: str, reference: float) -> list[float]:
    """Metric of each generation over `reference`; NaN where that is not positive."""
    return [
        generation.metrics[figure] / reference if reference > 0 else math.nan
        for generation in arm.generations
    ]


def table_rows(
    arms: Sequence[ArmSummary], figure: str, baselines: Sequence[int], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One row a generation of an arm: seed, figures, both ratios of `figure`, counts and cost.

    Args:
        baselines: for each arm the number of the arm whose G^1 it is compared with.
        seeds: for each arm that of its models.
    """
    rows = []
    for arm, baseline, seed in zip(arms, baselines, seeds, strict=True):
        cost = arm.cost.columns if arm.cost else {}
        own = arm.generations[0].metrics[figure]
        standard = arms[baseline].generations[0].metrics[figure]
        for generation, to_own, to_standard in zip(
            arm.generations, ratios(arm, figure, own), ratios(arm, figure, standard), strict=True
        ):
            rows.append(
                {
                    "arm": arm.curve,
                    "t": generation.t,
                    **as_row(seed, generation.metrics),
                    f"{figure}_ratio_own": to_own,
                    f"{figure}_ratio_standard": to_standard,
                    **cost,
                }
            )
    return rows
