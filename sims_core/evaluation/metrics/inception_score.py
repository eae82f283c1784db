"""Inception Score: how sure and how varied the predicted classes are (arXiv 1606.03498)."""

from __future__ import annotations

from sims_core.evaluation.metric import Figure, MeasuredSet, Metric, NoOptions

SPLITS = 10


def compute(
    generated: MeasuredSet, real: MeasuredSet, options: NoOptions, seed: int
) -> dict[str, float]:
    """torch-fidelity's: mean and deviation over ten parts of the images, shuffled by the seed."""
    import torch
    from torch_fidelity.metric_isc import (
        KEY_METRIC_ISC_MEAN,
        KEY_METRIC_ISC_STD,
        isc_features_to_metric,
    )

    logits = torch.from_numpy(generated.logits)
    found = isc_features_to_metric(logits, splits=SPLITS, rng_seed=seed)
    return {"isc": found[KEY_METRIC_ISC_MEAN], "isc_std": found[KEY_METRIC_ISC_STD]}


METRIC = Metric(
    name="inception_score",
    version=1,
    figures=(Figure("isc", "Inception Score", "higher", spread="isc_std", spread_over="splits"),),
    needs=("logits",),
    options=NoOptions,
    compute=compute,
    random=True,
)
