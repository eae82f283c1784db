"""The stages that measure generated images by their features: `evaluate` and `metric`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from sims_core.common.errors import BadInput, SimsError
from sims_core.common.frozen import Frozen
from sims_core.data.image_set import stream_samples
from sims_core.engine.stage import StageContext
from sims_core.evaluation.config import EvaluateConfig, MetricConfig
from sims_core.evaluation.figures import write_metrics
from sims_core.evaluation.images import FEATURES_FILE, STATISTICS_FILE
from sims_core.evaluation.metric import MeasuredSet, Metric, find_metric, load_metrics
from sims_core.evaluation.metrics.kid import KidOptions
from sims_core.evaluation.metrics.precision_recall import PrecisionRecallOptions


def _restricted(metric: Metric[Any], whole: MeasuredSet, name: str) -> MeasuredSet:
    """The parts that the metric has declared.

    Raises:
        BadInput: the set is without one of them.
    """
    if missing := [part for part in metric.needs if part not in whole.parts]:
        raise BadInput(f"metric {metric.name} needs {missing[0]}, and the {name} images have none")
    return MeasuredSet({part: whole.parts[part] for part in metric.needs})


def measure(
    metrics: Iterable[tuple[Metric[Any], Frozen]],
    generated: MeasuredSet,
    real: MeasuredSet,
    seed: int,
) -> dict[str, float]:
    """The figures of all the metrics, each with its options.

    Raises:
        SimsError: the features or a figure of them are not finite (of a diverged model).
        BadInput: a set lacks what a metric needs.
        ValueError: a metric returns other figures than it has declared.
    """
    for name, images in (("generated", generated), ("real", real)):
        if not np.isfinite(images.features).all():
            raise SimsError(f"the features of the {name} images are not finite")
    figures: dict[str, float] = {}
    for metric, options in metrics:
        sets = _restricted(metric, generated, "generated"), _restricted(metric, real, "real")
        found = metric.compute(*sets, options, seed)
        if set(found) != set(metric.keys):
            raise ValueError(f"metric {metric.name} declares {metric.keys}, returned {[*found]}")
        figures |= {key: float(found[key]) for key in metric.keys}
    if bad := [name for name, value in figures.items() if not math.isfinite(value)]:
        raise SimsError(f"{', '.join(bad)} not finite: the generated images are degenerate")
    return figures


def standard_figures(
    generated: MeasuredSet, real: MeasuredSet, config: EvaluateConfig
) -> dict[str, float]:
    """FID, KID, precision and recall, and the Inception Score where there are logits.

    Raises:
        SimsError: as `measure`.
    """
    options: Mapping[str, Frozen] = {
        "kid": KidOptions(subsets=config.kid_subsets, subset_size=config.kid_subset_size),
        "precision_recall": PrecisionRecallOptions(
            neighborhood=config.prc_neighborhood, real_images=config.prc_real_images
        ),
    }
    known = load_metrics()
    names = ["fid", "kid", "precision_recall"]
    if "logits" in generated.parts:
        names.append("inception_score")
    metrics = [(known[name], options.get(name) or known[name].options()) for name in names]
    return measure(metrics, generated, real, config.seed)


def _read_set(context: StageContext[Any], name: str) -> MeasuredSet:
    """What the stage `features` has stored of a set: features, statistics, and logits if any."""
    folder = context.open(name)
    parts: dict[Any, Any] = dict(load_file(folder / FEATURES_FILE))
    return MeasuredSet(parts | {"statistics": load_file(folder / STATISTICS_FILE)})


def _with_labels(context: StageContext[Any], name: str, found: MeasuredSet) -> MeasuredSet:
    """The set with the classes of its images, which lie beside the pixels, not the features."""
    images = context.store.manifest(context.inputs[name]).request.inputs["images"]
    samples = stream_samples(context.store.open_artifact(images), 0, len(found.features))
    labels = [sample.label for sample in samples]
    if None in labels:
        return found
    return MeasuredSet({**found.parts, "labels": np.array(labels, dtype=np.int64)})


def _write(context: StageContext[Any], content: dict[str, Any]) -> dict[str, Any]:
    """Stores one row of figures and counts as JSON and as Parquet, and returns it."""
    write_metrics(context.directory, content)
    table = pa.table({name: [value] for name, value in content.items()})
    pq.write_table(table, context.directory / "metrics.parquet")
    return content


def _counts(generated: MeasuredSet, real: MeasuredSet) -> dict[str, int]:
    return {"n_generated": len(generated.features), "n_real": len(real.features)}


def evaluate(context: StageContext[EvaluateConfig]) -> dict[str, Any]:
    """Stage `evaluate`: the standard metrics of inputs `generated` and `real` (features)."""
    generated, real = _read_set(context, "generated"), _read_set(context, "real")
    figures = standard_figures(generated, real, context.config)
    counts = {**_counts(generated, real), "seed": context.config.seed}
    if (sample := context.config.prc_real_images) is not None:
        counts["n_real_prc"] = min(sample, counts["n_real"])
    return _write(context, {**figures, **counts})


def measure_one(context: StageContext[MetricConfig]) -> dict[str, Any]:
    """Stage `metric`: one further metric of inputs `generated` and `real` (features).

    Raises:
        BadInput: the metric is not known here, or the images lack what it needs.
    """
    config = context.config
    metric = find_metric(config.name, config.version)
    generated, real = _read_set(context, "generated"), _read_set(context, "real")
    if "labels" in metric.needs:
        generated = _with_labels(context, "generated", generated)
        real = _with_labels(context, "real", real)
    options = metric.options.model_validate(config.options)
    figures = measure([(metric, options)], generated, real, config.seed or 0)
    return _write(context, {**figures, **_counts(generated, real)})
