"""Metrics through torch-fidelity, on features that are computed once and stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
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

from sims_core.common.errors import SimsError
from sims_core.data.image_set import read_index, stream_images, stream_picked
from sims_core.data.types import Images
from sims_core.engine.stage import StageContext
from sims_core.evaluation.config import EvaluateConfig, FeaturesConfig
from sims_core.evaluation.extractors import LOGITS, create_extractor, speed_up

FEATURES_FILE = "features.safetensors"


STATISTICS_FILE = "statistics.safetensors"


ISC_SPLITS = 10


CPU_BATCH = 32
"""Images that go through a network at once on a CPU: what is computed stays in its cache."""


PRC_BATCH = 1000
"""Rows of a distance matrix in memory at once: of 50,000 images 200 MB instead of 2 GB."""


Statistics = dict[str, NDArray[Any]]
"""What FID is made from: torch-fidelity's `mu` float32 [d] and `sigma` float64 [d, d]."""


class RGBDataset(Dataset[Tensor]):
    """uint8 images [N, C, H, W] as torch-fidelity wants them: uint8 [3, H, W], grey repeated."""

    def __init__(self, images: Images) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


def _batch_features(
    images: Images, extractor: FeatureExtractorBase, cuda: bool
) -> dict[str, Tensor]:
    """Layer to float32 [N, d] of one batch, on the CPU."""
    batch = torch.from_numpy(images).expand(-1, 3, -1, -1)
    parts = [batch.cuda()] if cuda else torch.split(batch, CPU_BATCH)
    with torch.inference_mode():
        found = [extractor.convert_features_tuple_to_dict(extractor(part)) for part in parts]
    return {name: torch.cat([part[name] for part in found]).cpu() for name in found[0]}


def _read_finished(paths: Sequence[Path]) -> list[dict[str, Tensor]]:
    """The first batches, as far as an earlier attempt wrote them without a gap."""
    finished = []
    for path in paths:
        try:
            finished.append(load_file(path))
        except (OSError, SafetensorError):  # not there, or cut by a crash of the machine
            break
    return finished


def _stream_chosen(
    folder: Path, config: FeaturesConfig, count: int, available: int, done: int
) -> Iterator[Images]:
    """The images that features are made of, after the first `done` of them."""
    if config.sample_seed is None or count == available:
        return stream_images(folder, done, count)
    drawn = np.random.default_rng(config.sample_seed).choice(available, count, replace=False)
    return stream_picked(folder, np.sort(drawn)[done:].tolist())


def extract_features(context: StageContext[FeaturesConfig]) -> dict[str, Any]:
    """Stage `features`: inputs `images` and `classifier` or `extractor`.

    Writes float32 [N, d] (and logits, if the extractor is to give them) and the statistics that
    FID is made from. Images are read batch by batch; a restart goes on after the last whole batch.
    """
    folder = context.open("images")
    available = read_index(folder).count
    count = min(context.config.count or available, available)
    cuda = context.execution.device.startswith("cuda")
    source = "classifier" if "classifier" in context.inputs else "extractor"
    extractor, layer = create_extractor(context.open(source), cuda)
    speed_up(extractor, channels_last=context.execution.channels_last and not cuda)
    size = context.execution.sampling_batch_size
    paths = [context.state / f"{start:09d}.safetensors" for start in range(0, count, size)]
    batches = _read_finished(paths)
    rest = _stream_chosen(folder, context.config, count, available, len(batches) * size)
    for path in paths[len(batches) :]:
        images = np.stack(list(islice(rest, size)))
        batches.append(_batch_features(images, extractor, cuda))
        save_file(batches[-1], path)
        context.progress(min(len(batches) * size, count), count, "img")
    features = {
        name: torch.cat([batch[key] for batch in batches])
        for key, name in ((layer, "features"), (LOGITS, "logits"))
        if key in batches[0]
    }
    save_file(features, context.directory / FEATURES_FILE)
    statistics = fid_features_to_statistics(features["features"])
    save_numpy(statistics, context.directory / STATISTICS_FILE)
    dim = features["features"].shape[1]
    return {"count": count, "dim": dim, "extractor": extractor.get_name()}


def metrics_of_features(
    generated: Tensor,
    real: Tensor,
    config: EvaluateConfig,
    statistics: tuple[Statistics, Statistics] | None = None,
    logits: Tensor | None = None,
) -> dict[str, float]:
    """FID, KID, precision and recall by torch-fidelity's own functions.

    Args:
        generated, real: float32 [n, d] and [m, d].
        statistics: theirs, if they are known.
        logits: of the generated images, float32 [n, classes]: the Inception Score is wanted too.

    Returns:
        fid; kid and kid_std (mean and deviation over subsets); precision; recall; isc and isc_std
        (mean and deviation over splits) with `logits`.

    Raises:
        SimsError: the features or a metric of them are not finite (of a diverged model).
    """
    for name, features in (("generated", generated), ("real", real)):
        if not bool(torch.isfinite(features).all()):
            raise SimsError(f"the features of the {name} images are not finite")
    if statistics is None:
        statistics = fid_features_to_statistics(generated), fid_features_to_statistics(real)
    fid = fid_statistics_to_metric(*statistics, verbose=False)
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
        prc_batch_size=PRC_BATCH,
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
    if logits is not None:
        isc = isc_features_to_metric(logits, splits=ISC_SPLITS, rng_seed=config.seed)
        metrics |= {"isc": isc[KEY_METRIC_ISC_MEAN], "isc_std": isc[KEY_METRIC_ISC_STD]}
    if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise SimsError(f"{', '.join(bad)} not finite: the generated images are degenerate")
    return metrics


def evaluate(context: StageContext[EvaluateConfig]) -> dict[str, Any]:
    """Stage `evaluate`: inputs `generated` and `real` (features)."""
    folders = context.open("generated"), context.open("real")
    generated, real = (load_file(folder / FEATURES_FILE) for folder in folders)
    of_generated, of_real = (load_numpy(folder / STATISTICS_FILE) for folder in folders)
    metrics = metrics_of_features(
        generated["features"],
        real["features"],
        context.config,
        (of_generated, of_real),
        generated.get("logits"),
    )
    counts = {
        "n_generated": len(generated["features"]),
        "n_real": len(real["features"]),
        "seed": context.config.seed,
    }
    (context.directory / "metrics.json").write_text(json.dumps({**metrics, **counts}))
    table = pa.table({name: [value] for name, value in {**metrics, **counts}.items()})
    pq.write_table(table, context.directory / "metrics.parquet")
    return {**metrics, **counts}
