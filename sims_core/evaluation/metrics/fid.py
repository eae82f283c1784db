"""Fréchet distance of the Gaussians of two sets' features (Heusel et al., arXiv 1706.08500)."""

from __future__ import annotations

from sims_core.evaluation.metric import Figure, MeasuredSet, Metric, NoOptions


def compute(
    generated: MeasuredSet, real: MeasuredSet, options: NoOptions, seed: int
) -> dict[str, float]:
    """torch-fidelity's, from the stored means and covariances."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    found = fid_statistics_to_metric(generated.statistics, real.statistics, verbose=False)
    return {"fid": found[KEY_METRIC_FID]}


METRIC = Metric(
    name="fid",
    version=1,
    figures=(Figure("fid", "FID", "lower"),),
    needs=("statistics",),
    options=NoOptions,
    compute=compute,
)
