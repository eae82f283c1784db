"""Features of images: computed once, by torch-fidelity's extractors, and stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics

from sims_core.common.kept import is_kept, keep
from sims_core.data.image_set import read_index, stream_images, stream_picked
from sims_core.data.types import Images
from sims_core.engine.stage import StageContext
from sims_core.evaluation.config import FeaturesConfig
from sims_core.evaluation.extractors import LOGITS, create_extractor, speed_up

FEATURES_FILE = "features.safetensors"


STATISTICS_FILE = "statistics.safetensors"


CPU_BATCH = 32
"""Images that go through a network at once on a CPU: what is computed stays in its cache."""


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


class _Rows:
    """The features of all images by layer, filled batch by batch and held once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.done = 0
        self.layers: dict[str, Tensor] = {}

    def add(self, batch: Mapping[str, Tensor]) -> None:
        """Puts the rows of the next images behind those before them."""
        start = self.done
        for layer, rows in batch.items():
            if layer not in self.layers:
                self.layers[layer] = rows.new_empty((self.count, *rows.shape[1:]))
            self.done = start + len(rows)
            self.layers[layer][start : self.done] = rows


def _stream_chosen(
    folder: Path, config: FeaturesConfig, count: int, available: int, done: int
) -> Iterator[Images]:
    """The images that features are made of, after the first `done` of them."""
    if config.sample_seed is None or count == available:
        return stream_images(folder, done, count)
    drawn = np.random.default_rng(config.sample_seed).choice(available, count, replace=False)
    picked = stream_picked(folder, np.sort(drawn)[done:].tolist())
    return (sample.content for sample in picked)


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
    rows = _Rows(count)

    def path_of_next() -> Path:
        return context.state / f"{rows.done:09d}.safetensors"

    while is_kept(path_of_next()):  # an earlier attempt wrote it
        rows.add(load_file(path_of_next()))
    rest = _stream_chosen(folder, context.config, count, available, rows.done)
    while rows.done < count:
        path = path_of_next()
        batch = _batch_features(np.stack(list(islice(rest, size))), extractor, cuda)
        partial = path.with_suffix(".partial")
        save_file(batch, partial)
        keep(partial, path)
        rows.add(batch)
        context.progress(rows.done, count, "img")
    features = {
        name: rows.layers[key]
        for key, name in ((layer, "features"), (LOGITS, "logits"))
        if key in rows.layers
    }
    save_file(features, context.directory / FEATURES_FILE)
    statistics = fid_features_to_statistics(features["features"])
    save_numpy(statistics, context.directory / STATISTICS_FILE)
    dim = features["features"].shape[1]
    return {"count": count, "dim": dim, "extractor": extractor.get_name()}
