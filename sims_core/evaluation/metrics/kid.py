"""Kernel distance: unbiased squared MMD, cubic kernel (Binkowski et al., arXiv 1801.01401)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sims_core.common.frozen import Frozen
from sims_core.evaluation.metric import Figure, MeasuredSet, Metric


class KidOptions(Frozen):
    """Random subsets of both sets, whose distances are averaged."""

    subsets: Annotated[int, Field(ge=1)] = 100
    subset_size: Annotated[int, Field(ge=2)] = 500


def compute(
    generated: MeasuredSet, real: MeasuredSet, options: KidOptions, seed: int
) -> dict[str, float]:
    """torch-fidelity's: mean and deviation over the subsets, drawn from the seed."""
    import torch
    from torch_fidelity.metric_kid import (
        KEY_METRIC_KID_MEAN,
        KEY_METRIC_KID_STD,
        kid_features_to_metric,
    )

    found = kid_features_to_metric(
        torch.from_numpy(generated.features),
        torch.from_numpy(real.features),
        kid_subsets=options.subsets,
        kid_subset_size=options.subset_size,
        rng_seed=seed,
        verbose=False,
    )
    return {"kid": found[KEY_METRIC_KID_MEAN], "kid_std": found[KEY_METRIC_KID_STD]}


METRIC = Metric(
    name="kid",
    version=1,
    figures=(
        Figure(
            "kid",
            "KID",
            "lower",
            decimals=5,
            spread="kid_std",
            spread_over="subsets",
            remark="the squared distance itself, not multiplied by 1,000 as many papers give it",
        ),
    ),
    needs=("features",),
    options=KidOptions,
    compute=compute,
    random=True,
)
