"""Metrics through torch-fidelity, on features that are computed once and stored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from sims_core.classifier import load_classifier
from sims_core.errors import SimsError
from sims_core.mixing import read_first
from sims_core.shards import Images
from sims_core.stages import EvaluateConfig, FeaturesConfig, StageContext

EXTRACTOR = "sims-classifier"
LAYER = "penultimate"


class ClassifierFeatures(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity is untyped
    """A classifier artifact as a feature extractor of torch-fidelity, registered by name.

    Use it directly with `torch_fidelity.calculate_metrics(feature_extractor="sims-classifier",
    feature_extractor_weights_path=<folder of the artifact>, ...)`.

    Input: uint8 [N, 3, H, W], as torch-fidelity wants; a grey classifier reads the first channel.
    """

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(
                "feature_extractor_weights_path must name a classifier artifact's folder"
            )
        self.classifier = load_classifier(Path(feature_extractor_weights_path))
        first = next(self.classifier.body.parameters())
        self.in_channels = first.shape[1]

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = images[:, : self.in_channels].float() / 127.5 - 1
        return (self.classifier.features(scaled),)


register_feature_extractor(EXTRACTOR, ClassifierFeatures)


class RGBDataset(Dataset[Tensor]):
    """uint8 images [N, C, H, W] as torch-fidelity wants them: uint8 [3, H, W], grey repeated."""

    def __init__(self, images: Images) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


def extract_features(context: StageContext[FeaturesConfig]) -> dict[str, Any]:
    """Stage `features`: inputs `images` and `classifier`; writes float32 [N, d]."""
    images = read_first(context.open("images"), context.config.count)
    cuda = context.execution.device.startswith("cuda")
    extractor = create_feature_extractor(
        EXTRACTOR,
        [LAYER],
        cuda=cuda,
        verbose=False,
        feature_extractor_weights_path=str(context.open("classifier")),
    )
    features: Tensor = get_featuresdict_from_dataset(
        RGBDataset(images),
        extractor,
        batch_size=context.execution.sampling_batch_size,
        cuda=cuda,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
    )[LAYER]
    save_file({"features": features.contiguous()}, context.directory / "features.safetensors")
    return {"count": len(features), "dim": features.shape[1], "extractor": EXTRACTOR}


def metrics_of_features(
    generated: Tensor, real: Tensor, config: EvaluateConfig
) -> dict[str, float]:
    """FID, KID, precision and recall by torch-fidelity's own functions.

    Args:
        generated, real: float32 [n, d] and [m, d].

    Returns:
        fid; kid and kid_std (mean and deviation over subsets); precision; recall.

    Raises:
        SimsError: the features or a metric of them are not finite (of a diverged model).
    """
    for name, features in (("generated", generated), ("real", real)):
        if not bool(torch.isfinite(features).all()):
            raise SimsError(f"the features of the {name} images are not finite")
    fid = fid_statistics_to_metric(
        fid_features_to_statistics(generated), fid_features_to_statistics(real), verbose=False
    )
    kid = kid_features_to_metric(
        generated,
        real,
        kid_subsets=config.kid_subsets,
        kid_subset_size=config.kid_subset_size,
        rng_seed=config.seed,
        verbose=False,
    )
    prc = prc_features_to_metric(
        generated,
        real,
        prc_neighborhood=config.prc_neighborhood,
        save_cpu_ram=True,
        verbose=False,
    )
    metrics = {
        "fid": fid[KEY_METRIC_FID],
        "kid": kid[KEY_METRIC_KID_MEAN],
        "kid_std": kid[KEY_METRIC_KID_STD],
        "precision": prc[KEY_METRIC_PRECISION],
        "recall": prc[KEY_METRIC_RECALL],
    }
    if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise SimsError(f"{', '.join(bad)} not finite: the generated images are degenerate")
    return metrics


def evaluate(context: StageContext[EvaluateConfig]) -> dict[str, Any]:
    """Stage `evaluate`: inputs `generated` and `real` (features)."""
    generated, real = (
        load_file(context.open(name) / "features.safetensors")["features"]
        for name in ("generated", "real")
    )
    metrics = metrics_of_features(generated, real, context.config)
    counts = {"n_generated": len(generated), "n_real": len(real), "seed": context.config.seed}
    (context.directory / "metrics.json").write_text(json.dumps({**metrics, **counts}))
    table = pa.table({name: [value] for name, value in {**metrics, **counts}.items()})
    pq.write_table(table, context.directory / "metrics.parquet")
    return {**metrics, **counts}
