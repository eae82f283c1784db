"""The stages that say which class each sample is of, and which mix that makes."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from sims_core.data.image_set import read_index, stream_images
from sims_core.data.mixtures import likeliest
from sims_core.data.points import read_points
from sims_core.data.ranges import to_unit_range
from sims_core.data.reweighing import groups_of, read_labels, write_labels
from sims_core.engine.stage import StageContext
from sims_core.evaluation.classifier import load_classifier
from sims_core.evaluation.config import LabelConfig, LabelPointsConfig, SharesConfig
from sims_core.evaluation.distances import described
from sims_core.evaluation.figures import write_metrics

CONFIDENCE = 0.95
BOOTSTRAP = 2000
"""Resamples behind the interval of a mean over replicates."""


def label_images(context: StageContext[LabelConfig]) -> dict[str, Any]:
    """Stage `label`: inputs `images` and `classifier`."""
    folder, device = context.open("images"), context.execution.device
    count, size = read_index(folder).count, context.execution.sampling_batch_size
    classifier = load_classifier(context.open("classifier")).to(device)
    images, found = stream_images(folder, 0, count), []
    for start in range(0, count, size):
        batch = to_unit_range(np.stack(list(islice(images, size))), device)
        found.append(classifier(batch).argmax(1).cpu().numpy())
        context.progress(min(start + size, count), count, "img")
    return write_labels(context.directory, np.concatenate(found))


def label_points(context: StageContext[LabelPointsConfig]) -> dict[str, Any]:
    """Stage `label_points`: input `points`; the components by Bayes' rule, so without training."""
    points = read_points(context.open("points"))
    return write_labels(context.directory, likeliest(context.config.mixture, points).numpy())


def shares(context: StageContext[SharesConfig]) -> dict[str, Any]:
    """Stage `shares`: of input `labels` the share of each group with its 95 % interval, and the
    total-variation distance sum |share - target| / 2 to the target mix (of replicates the mean).

    `acceptance_least` is the rate at which rejection sampling would keep samples of these shares on
    their way to the target, the least over replicates; 0 where a group is missing.

    Of images the interval is Wilson's for n independent draws; of replicates of points a bootstrap
    over replicates.

    Raises:
        BadInput: a class is in no group.
    """
    config, labels = context.config, read_labels(context.open("labels"))
    groups, target = groups_of(labels, config.target), np.array(config.target.shares)
    figures: dict[str, Any] = {}
    replicates = groups.reshape(-1, groups.shape[-1])
    found = np.stack([(replicates == number).mean(1) for number in range(len(target))], axis=1)
    for number, name in enumerate(config.names):
        key = f"share_{name}"
        if labels.ndim == 1:
            figures |= _binomial(key, int((groups == number).sum()), groups.size)
        else:
            figures |= described(key, found[:, number], BOOTSTRAP, number)
    distance = float(np.abs(found - target).sum(1).mean() / 2)
    least = float((found / target).min())
    figures |= {"tv": distance, "acceptance_least": least, "n_labelled": int(groups.shape[-1])}
    write_metrics(context.directory, figures)
    return figures


def _binomial(key: str, successes: int, count: int) -> dict[str, float]:
    from scipy.stats import binomtest

    ends = binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return {key: successes / count, f"{key}_low": float(ends.low), f"{key}_high": float(ends.high)}
