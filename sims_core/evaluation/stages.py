"""Stages that measure images and points."""

from __future__ import annotations

from typing import Any

from sims_core.engine.stage import Stage
from sims_core.evaluation.config import (
    ClassifierStageConfig,
    EvaluateAgainstPointsConfig,
    EvaluateConfig,
    EvaluatePointsConfig,
    ExtractorConfig,
    FeaturesConfig,
    LabelConfig,
    LabelPointsConfig,
    MetricConfig,
    ReferenceConfig,
    ReferenceFileConfig,
    SharesConfig,
    StatisticsFidConfig,
)

CLASSIFIER = Stage(
    "classifier",
    1,
    "classifier",
    ClassifierStageConfig,
    "sims_core.evaluation.classifier:train_classifier",
    accelerated=True,
)
EXTRACTOR = Stage(
    "extractor",
    1,
    "extractor",
    ExtractorConfig,
    "sims_core.evaluation.extractors:prepare_extractor",
)
FEATURES = Stage(
    "features",
    3,
    "features",
    FeaturesConfig,
    "sims_core.evaluation.images:extract_features",
    accelerated=True,
)
EVALUATE = Stage(
    "evaluate", 2, "metrics", EvaluateConfig, "sims_core.evaluation.measuring:evaluate"
)
METRIC = Stage("metric", 1, "metrics", MetricConfig, "sims_core.evaluation.measuring:measure_one")
IMPORT_REFERENCE = Stage(
    "import_reference",
    1,
    "statistics",
    ReferenceFileConfig,
    "sims_core.evaluation.references:import_reference",
)
STATISTICS_FID = Stage(
    "statistics_fid",
    1,
    "metrics",
    StatisticsFidConfig,
    "sims_core.evaluation.references:fid_against_statistics",
)
REFERENCE = Stage(
    "reference", 1, "reference", ReferenceConfig, "sims_core.evaluation.points:make_reference"
)
EVALUATE_POINTS = Stage(
    "evaluate_points",
    1,
    "metrics",
    EvaluatePointsConfig,
    "sims_core.evaluation.points:evaluate_points",
)
LABEL = Stage(
    "label",
    1,
    "labels",
    LabelConfig,
    "sims_core.evaluation.labelling:label_images",
    accelerated=True,
)
LABEL_POINTS = Stage(
    "label_points",
    1,
    "labels",
    LabelPointsConfig,
    "sims_core.evaluation.labelling:label_points",
)
EVALUATE_AGAINST_POINTS = Stage(
    "evaluate_against_points",
    1,
    "metrics",
    EvaluateAgainstPointsConfig,
    "sims_core.evaluation.points:evaluate_against_points",
)
SHARES = Stage("shares", 1, "metrics", SharesConfig, "sims_core.evaluation.labelling:shares")

STAGES: tuple[Stage[Any], ...] = (
    *(CLASSIFIER, EXTRACTOR, FEATURES, EVALUATE, METRIC),
    *(IMPORT_REFERENCE, STATISTICS_FID, REFERENCE, EVALUATE_POINTS),
    *(LABEL, LABEL_POINTS, SHARES, EVALUATE_AGAINST_POINTS),
)
