"""A small classifier of the real data whose penultimate layer is the feature space of FID and KID.

FID in these features ranks models of one data set; it is not comparable with Inception's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sims_core.common import purposes
from sims_core.common.digest import canonical_json
from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.data.epochs import batch_indices
from sims_core.data.image_set import read_images, read_index
from sims_core.data.ranges import to_unit_range
from sims_core.diffusion.noise import generator
from sims_core.engine.stage import Progress, StageContext, no_progress
from sims_core.evaluation.config import ClassifierConfig, ClassifierStageConfig, Half
from sims_core.nets.build import initialise

STEPS_BETWEEN_NEWS = 50
"""After so many steps the training says how far it is."""


class ClassifierShape(Frozen):
    """What is needed to build the network again."""

    classifier: ClassifierConfig
    in_channels: int
    num_classes: int


class Classifier(nn.Module):
    """Convolutions with GroupNorm, then `num_features` non-negative features, then logits.

    Input: float [N, in_channels, H, W] in [-1, 1], any H and W.
    """

    def __init__(self, shape: ClassifierShape) -> None:
        super().__init__()
        config = shape.classifier
        widths = [shape.in_channels, *config.channels]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(1, after), nn.SiLU()]
            if index < len(config.channels) - 1:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.to_features = nn.Linear(4 * config.channels[-1], config.num_features)
        self.to_logits = nn.Linear(config.num_features, shape.num_classes)

    def features(self, x: Tensor) -> Tensor:
        """[N, num_features], float32."""
        return F.relu(self.to_features(self.body(x)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.to_logits(self.features(x))
        return logits


def fit(
    network: Classifier,
    images: Tensor,
    labels: Tensor,
    config: ClassifierConfig,
    seed: int,
    progress: Progress = no_progress,
) -> None:
    """Adam with cosine decay over config.kimg thousand images seen; images in [-1, 1]."""
    initialise(network, generator(seed, purposes.INITIALISE))
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    steps = max(1, round(config.kimg * 1000) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        batch = batch_indices(step, config.batch_size, len(images), seed).to(images.device)
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % STEPS_BETWEEN_NEWS == 0:
            seen = (step + 1) * config.batch_size
            progress(seen, steps * config.batch_size, "img", loss=loss.item())


def members_of(half: Half, count: int) -> NDArray[np.bool_]:
    """Which of `count` images are in a half, [count]; number 0 has the odd one."""
    order = np.random.default_rng(half.seed).permutation(count)
    first = np.zeros(count, dtype=bool)
    first[order[: -(-count // 2)]] = True
    return first if half.number == 0 else ~first


def _accuracy(network: Classifier, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((network(x).argmax(1) == y).float().mean())


def train_classifier(context: StageContext[ClassifierStageConfig]) -> dict[str, Any]:
    """Stage `classifier`: input `images`, labelled."""
    folder = context.open("images")
    images, labels = read_images([folder / shard.file for shard in read_index(folder).shards])
    if labels is None:
        raise BadInput(f"{context.inputs['images'].short} has no labels to train a classifier on")
    device = context.execution.device
    config, half = context.config.classifier, context.config.half
    chosen = np.ones(len(images), dtype=bool) if half is None else members_of(half, len(images))
    shape = ClassifierShape(
        classifier=config, in_channels=images.shape[1], num_classes=int(labels.max()) + 1
    )
    network = Classifier(shape).to(device)
    x, y = to_unit_range(images[chosen], device), torch.from_numpy(labels[chosen]).to(device)
    fit(network, x, y, config, context.config.seed, context.progress)
    network.eval()
    details = {"train_accuracy": _accuracy(network, x, y), "images": len(x)}
    if half is not None:
        x, y = to_unit_range(images[~chosen], device), torch.from_numpy(labels[~chosen]).to(device)
        details |= {"held_out_accuracy": _accuracy(network, x, y), "held_out": len(x)}
    save_file(network.cpu().state_dict(), context.directory / "classifier.safetensors")
    (context.directory / "classifier.json").write_text(
        canonical_json(shape.model_dump(mode="json"))
    )
    return details


def load_classifier(folder: Path) -> Classifier:
    """Reads a classifier artifact, in evaluation mode, without gradients."""
    shape = ClassifierShape.model_validate_json((folder / "classifier.json").read_bytes())
    network = Classifier(shape)
    network.load_state_dict(load_file(folder / "classifier.safetensors"))
    return network.eval().requires_grad_(False)
