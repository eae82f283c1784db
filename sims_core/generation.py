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

from sims_core.config import UNetConfig
from sims_core.denoiser import Denoiser
from sims_core.digest import file_sha256
from sims_core.errors import BadInput, SimsError
from sims_core.guidance import negative_guidance
from sims_core.networks import load_model
from sims_core.sampler import make_sampler
from sims_core.seeding import image_seed
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
    sample: Callable[[Denoiser, Tensor], Tensor],
    seeds: Sequence[int],
    shape: Sequence[int],
    batch_size: int,
    device: str = "cpu",
    after_batch: Callable[[int], None] = lambda done: None,
) -> Images:
    """uint8 [len(seeds), *shape]; batches only group the work, each image has its own noise."""
    images = []
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        noise = seeded_noise(batch, shape).to(device)
        images.append(to_uint8(sample(denoiser, noise)))
        after_batch(start + len(batch))
    return np.concatenate(images)


def load_denoiser(context: StageContext[GenerateConfig]) -> tuple[Denoiser, tuple[int, ...]]:
    """The denoiser to sample from (guided if omega > 0) and the shape of one image."""
    config, device = context.config, context.execution.device
    base, model = load_model(context.open("base"), device)
    if not isinstance(model.net, UNetConfig):
        raise BadInput(f"images need a U-Net, the base is {model.net.kind!r}")
    shape = (model.net.channels, model.net.image_size, model.net.image_size)
    if config.omega == 0:
        return base, shape
    auxiliary, _ = load_model(context.open("auxiliary"), device)
    return negative_guidance(base, auxiliary, config.omega), shape


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
    denoiser, shape = load_denoiser(context)
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
        images = sample_images(denoiser, sample, seeds, shape, batch_size, device, report)
        write_shard(context.state / name, images, start, seeds=seeds)
        finished.add(name)
    needed = -(-64 // config.images_per_shard)  # write_index draws the first 64 images
    first, _ = read_images([context.state / shard.file for shard in shards[:needed]])
    write_index(context.directory, first, shards)
    for shard in shards:
        os.replace(context.state / shard.file, context.directory / shard.file)
    networks = 1 if config.omega == 0 else 2
    return {"count": config.count, "nfe": config.sampler.nfe * networks}
