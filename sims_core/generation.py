"""Generation into shards: image i is a function of (models, sampler, omega, seed i) alone."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sims_core.acceleration import explain_out_of_memory
from sims_core.config import Execution, ImageNet, ModelConfig
from sims_core.denoiser import Denoiser, NetDenoiser
from sims_core.digest import file_sha256
from sims_core.errors import SimsError
from sims_core.guidance import negative_guidance
from sims_core.networks import image_net, load_model
from sims_core.sampler import Sampler, make_sampler
from sims_core.seeding import derive_seed, image_seed
from sims_core.shards import Images, Shard, read_images, shard_name, write_index, write_shard
from sims_core.stages import GenerateConfig, StageContext
from sims_core.store import write_atomically

logger = logging.getLogger("sims_core.generation")


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise, float32 [len(seeds), *shape] on the CPU, one generator per seed."""
    return torch.stack(
        [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def to_uint8(x: Tensor) -> Images:
    """float [-1, 1], [N, C, H, W] to the nearest of 256 grey levels.

    Raises:
        SimsError: a value is not finite.
    """
    if not torch.isfinite(x).all():
        raise SimsError("the sampler ran away (values not finite): lower omega or add steps")
    levels: Images = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return levels


def sample_images(
    denoiser: Denoiser,
    sample: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    batch_size: int,
    device: str = "cpu",
    after_batch: Callable[[int], None] = lambda done: None,
    labels: Sequence[int] | None = None,
) -> Images:
    """uint8 [len(seeds), *shape]; batches only group the work, each image has its own noise.

    Args:
        labels: class of each image, for a conditional denoiser.
    """
    images = []
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        noise = seeded_noise(batch, shape).to(device)
        classes = None
        if labels is not None:
            classes = torch.tensor(labels[start : start + batch_size], device=device)
        images.append(to_uint8(sample(denoiser, noise, classes)))
        after_batch(start + len(batch))
    return np.concatenate(images)


def image_labels(seeds: Sequence[int], num_classes: int) -> list[int] | None:
    """Class of each image, a function of its seed alone and uniform over classes; None for 0."""
    if not num_classes:
        return None
    return [derive_seed(seed, "label") % num_classes for seed in seeds]


def load_denoiser(context: StageContext[GenerateConfig]) -> tuple[Denoiser, ImageNet]:
    """The denoiser to sample from (guided if omega > 0) and the base's network."""
    config, execution = context.config, context.execution
    base, model = load_for_sampling(context.open("base"), execution)
    net = image_net(model)
    if config.omega == 0:
        return base, net
    auxiliary, _ = load_for_sampling(context.open("auxiliary"), execution)
    return negative_guidance(base, auxiliary, config.omega), net


def load_for_sampling(folder: Path, execution: Execution) -> tuple[NetDenoiser, ModelConfig]:
    """A stored model on the execution's device, in its memory format, compiled if it says so."""
    denoiser, model = load_model(folder, execution.device)
    if not execution.channels_last:
        denoiser.to(memory_format=torch.contiguous_format)
    if execution.compile is not None:
        denoiser.net.compile(backend=execution.compile)
    return denoiser, model


class FinishedShards:
    """Which shards are done, with their SHA-256: a restart goes on after them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._list = folder / "finished.json"
        self._sha256: dict[str, str] = {}
        if self._list.exists():
            with suppress(ValueError):  # cut by a crash of the machine: nothing counts as done
                self._sha256 = json.loads(self._list.read_bytes())

    def __contains__(self, name: str) -> bool:
        path = self.folder / name
        return path.exists() and file_sha256(path) == self._sha256.get(name)

    def add(self, name: str) -> None:
        self._sha256[name] = file_sha256(self.folder / name)
        write_atomically(self._list, json.dumps(self._sha256))


def generate(context: StageContext[GenerateConfig]) -> dict[str, Any]:
    """Stage `generate`: inputs `base` and, for omega > 0, `auxiliary` (models)."""
    config = context.config
    denoiser, net = load_denoiser(context)
    shape = (net.channels, net.image_size, net.image_size)
    sample = make_sampler(config.sampler)
    finished = FinishedShards(context.state)
    shards = []
    for number, start in enumerate(range(0, config.count, config.images_per_shard)):
        count = min(config.images_per_shard, config.count - start)
        name = shard_name(number)
        shards.append(Shard(file=name, count=count))
        if name in finished:
            logger.info("kept %s of an earlier attempt", name)
            continue
        seeds = [image_seed(config.first_seed, start + i) for i in range(count)]

        def report(done: int, start: int = start) -> None:
            context.progress(start + done, config.count, "img")

        batch_size = context.execution.sampling_batch_size
        device = context.execution.device
        labels = image_labels(seeds, net.num_classes)
        with explain_out_of_memory("SIMS_SAMPLING_BATCH_SIZE", min(batch_size, count), "sampling"):
            images = sample_images(
                denoiser, sample, seeds, shape, batch_size, device, report, labels
            )
        write_shard(context.state / name, images, start, labels, seeds)
        finished.add(name)
    needed = -(-64 // config.images_per_shard)  # write_index draws the first 64 images
    first, _ = read_images([context.state / shard.file for shard in shards[:needed]])
    every_seed = (image_seed(config.first_seed, i) for i in range(config.count))
    labels = image_labels(list(every_seed), net.num_classes)
    write_index(context.directory, first, shards, labels)
    for shard in shards:
        os.replace(context.state / shard.file, context.directory / shard.file)
    networks = 1 if config.omega == 0 else 2
    return {"count": config.count, "nfe": config.sampler.nfe * networks}
