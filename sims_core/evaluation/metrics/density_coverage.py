"""Density and coverage (Naeem et al., "Reliable Fidelity and Diversity Metrics", arXiv 2002.09797).

Both ask which generated images lie in the balls around *real* images, so that, unlike precision and
recall, a real outlier with its huge ball adds little, and no ball is built on generated images.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.evaluation.metric import Figure, MeasuredSet, Metric

BLOCK = 500
"""Rows of a distance matrix in memory at once: of 50,000 images 200 MB instead of 20 GB."""


class DensityCoverageOptions(Frozen):
    neighborhood: Annotated[int, Field(ge=1)] = 5
    """k: a ball around a real image reaches to its k-th nearest real neighbour."""


def compute(
    generated: MeasuredSet, real: MeasuredSet, options: DensityCoverageOptions, seed: int
) -> dict[str, float]:
    """The paper's equations 3 and 4, with open balls as in its authors' implementation.

    Density is the number of real balls that a generated image lies in, in the mean and over k: 1
    for two equal sets, more where generated images crowd the densest places. Coverage is the
    fraction of real images with a generated one in their ball: two samples of N and M images of one
    distribution have 1 - prod_{i=1..k} (N - i) / (N + M - i) in the mean.

    Distances are in float64: torch takes them from scalar products, and float32 would lose the near
    ones.

    Raises:
        BadInput: no real image has k neighbours.
    """
    import torch

    neighborhood, count = options.neighborhood, len(real.features)
    if neighborhood >= count:
        raise BadInput(
            f"neighborhood {neighborhood} of density_coverage must be below the number of real "
            f"images, {count}"
        )
    images = torch.from_numpy(real.features).double()
    others = torch.from_numpy(generated.features).double()
    inside = covered = 0
    for block in torch.split(images, BLOCK):
        # The nearest of all is the image itself.
        radii = torch.cdist(block, images).kthvalue(neighborhood + 1, dim=1, keepdim=True).values
        within = torch.cdist(block, others) < radii
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return {"density": inside / (neighborhood * len(others)), "coverage": covered / count}


METRIC = Metric(
    name="density_coverage",
    version=1,
    figures=(
        Figure("density", "Density", "higher"),
        Figure("coverage", "Coverage", "higher", limits=(0, 1)),
    ),
    needs=("features",),
    options=DensityCoverageOptions,
    compute=compute,
)
