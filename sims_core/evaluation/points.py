"""Evaluation of points: Wasserstein distances to the true Gaussian, beside their floors.

A finite sample of the truth itself is at a distance from it: the floor. It is measured on a fresh
real sample of the same size, once a run, in the stage `reference`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sims_core.common import purposes
from sims_core.common.errors import SimsError
from sims_core.common.seeding import derive_seed
from sims_core.data.points import draw_real, read_points, true_covariance, write_points
from sims_core.diffusion.gaussian import moments
from sims_core.engine.stage import StageContext
from sims_core.evaluation.config import (
    EvaluateAgainstPointsConfig,
    EvaluatePointsConfig,
    ReferenceConfig,
)
from sims_core.evaluation.distances import Floats, described, empirical_w2, moment_w2
from sims_core.evaluation.figures import write_metrics

REFERENCE_FILE = "reference.json"


DISTANCES_FILE = "distances.parquet"


def make_reference(context: StageContext[ReferenceConfig]) -> dict[str, Any]:
    """Stage `reference`: the true moments, a real sample to compare with, and the floors."""
    config, source = context.config, context.config.source
    mean, covariance = torch.tensor(source.mean).double(), true_covariance(source)
    reference = draw_real(
        source, derive_seed(source.seed, purposes.REFERENCE), config.empirical_points
    )
    fresh = draw_real(source, derive_seed(source.seed, purposes.FLOOR), source.count)
    floors = {
        "w2": moment_w2(fresh, mean, covariance),
        "w2_empirical": empirical_w2(fresh[:, : config.empirical_points], reference),
    }
    write_points(context.directory, reference)
    content = {
        "mean": mean.tolist(),
        "covariance": covariance.tolist(),
        "floors": {name: values.tolist() for name, values in floors.items()},
    }
    (context.directory / REFERENCE_FILE).write_text(json.dumps(content))
    return {f"{name}_floor": float(values.mean()) for name, values in floors.items()}


def evaluate_points(context: StageContext[EvaluatePointsConfig]) -> dict[str, Any]:
    """Stage `evaluate_points`: inputs `generated` (points) and `reference`.

    Raises:
        SimsError: a distance is not finite (points of a diverged model).
    """
    config, folder = context.config, context.open("reference")
    truth = json.loads((folder / REFERENCE_FILE).read_bytes())
    mean, covariance = (torch.tensor(truth[name]).double() for name in ("mean", "covariance"))
    points = read_points(context.open("generated"), config.num_points)
    if not bool(torch.isfinite(points).all()):
        raise SimsError("generated points are not finite: the model has diverged")
    trace = torch.diagonal(moments(points)[1], dim1=-2, dim2=-1).sum(-1)
    values: dict[str, Floats] = {
        "w2": moment_w2(points, mean, covariance),
        "w2_empirical": empirical_w2(points[:, : config.empirical_points], read_points(folder)),
        "trace": trace.numpy() / float(torch.trace(covariance)),
    }
    table = {"replicate": np.arange(len(points)), **values}
    pq.write_table(pa.table(table), context.directory / DISTANCES_FILE, compression="none")
    figures: dict[str, Any] = {}
    for name, per_replicate in values.items():
        figures |= described(name, per_replicate, config.bootstrap, config.seed)
    metrics = {
        **figures,
        **{f"{name}_floor": float(np.mean(floor)) for name, floor in truth["floors"].items()},
        "n_generated": config.num_points,
        "n_empirical": config.empirical_points,
        "replicates": len(points),
        "seed": config.seed,
    }
    write_metrics(context.directory, metrics)
    return metrics


def evaluate_against_points(context: StageContext[EvaluateAgainstPointsConfig]) -> dict[str, Any]:
    """Stage `evaluate_against_points`: inputs `generated`, `reference` and `fresh` (points).

    Reference and fresh points are of the same truth: their distance is the floor.

    Raises:
        SimsError: generated points are not finite (of a diverged model).
    """
    config = context.config
    points, reference, fresh = (
        read_points(context.open(name), config.empirical_points)
        for name in ("generated", "reference", "fresh")
    )
    if not bool(torch.isfinite(points).all()):
        raise SimsError("generated points are not finite: the model has diverged")
    values = empirical_w2(points, reference)
    metrics = {
        **described("w2_empirical", values, config.bootstrap, config.seed),
        "w2_empirical_floor": float(empirical_w2(fresh, reference).mean()),
        "n_empirical": config.empirical_points,
        "replicates": len(points),
        "seed": config.seed,
    }
    write_metrics(context.directory, metrics)
    return metrics


def read_distances(folder: Path, name: str) -> Floats:
    """A distance of each replicate, [R], from an evaluation's verified folder."""
    values: Floats = pq.read_table(folder / DISTANCES_FILE).column(name).to_numpy()
    return values
