"""Images to latents and back: stages `encode` and `decode`.

Encoded latents are stored as the autoencoder has them, with the scaling to what networks see.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sims_core.common import purposes
from sims_core.common.errors import BadInput, SimsError
from sims_core.data.config import EncodeConfig
from sims_core.data.grid import GRID_FILE, GRID_IMAGES, image_grid
from sims_core.data.image_set import (
    IMAGES_PER_SHARD,
    ImageSet,
    Sample,
    Scaling,
    Shard,
    read_index,
    read_samples,
    scaled_latents,
    stream_images,
    stream_samples,
)
from sims_core.data.ranges import to_float16, to_uint8, to_unit_range
from sims_core.data.sharded import Content, Maker, draw_grid_of, make_shards, take_shards
from sims_core.data.types import Images, Latents
from sims_core.diffusion.noise import generator
from sims_core.engine.memory import explain_out_of_memory
from sims_core.engine.stage import StageContext
from sims_core.latents.autoencoder import (
    LATENT_STD,
    autoencoder_config,
    open_autoencoder,
    own_scaling,
)
from sims_core.latents.config import DecodeConfig

ENCODE_KIND = "latents"
"""Kind of the artifacts that hold latents, raw or not."""
PIXELS_AT_ONCE = 2**22
"""What goes through an autoencoder at once: 16 images of 512 x 512, 2 GiB an activation of Stable
Diffusion's. More at once is hardly faster."""


def _at_once(pixels: int, batch_size: int) -> int:
    return max(1, min(batch_size, PIXELS_AT_ONCE // pixels))


class Decoder:
    """Latents as networks see them to images.

    Args:
        context: of a stage with the input `autoencoder`.
        scaling: how networks see latents; None: as those of the input `encoded`.

    Raises:
        BadInput: `encoded` has no scaling.
    """

    def __init__(self, context: StageContext[Any], scaling: Scaling | None = None) -> None:
        scaling = scaling or read_index(context.open("encoded")).scaling
        if scaling is None:
            raise BadInput(f"{context.inputs['encoded'].short} holds no encoded images")
        self.scaling, self.execution = scaling, context.execution
        self.autoencoder = open_autoencoder(context)
        self.factor = autoencoder_config(context).downsampling

    def __call__(
        self, latents: Latents, after_batch: Callable[[int], None] = lambda done: None
    ) -> Images:
        """uint8 images [N, C, H, W] of float16 latents [N, c, h, w]."""
        pixels = latents[0, 0].size * self.factor**2
        size, device = _at_once(pixels, self.execution.sampling_batch_size), self.execution.device
        shift, scale = (
            torch.tensor(each, device=device)[:, None, None]
            for each in (self.scaling.shift, self.scaling.scale)
        )
        images = []
        for start in range(0, len(latents), size):
            batch = torch.from_numpy(latents[start : start + size]).to(device).float()
            with explain_out_of_memory("SIMS_SAMPLING_BATCH_SIZE", len(batch), "decoding"):
                images.append(to_uint8(self.autoencoder.decode(batch / scale + shift).sample))
            after_batch(start + len(batch))
        return np.concatenate(images)


def decode(context: StageContext[DecodeConfig]) -> dict[str, Any]:
    """Stage `decode`: inputs `latents`, `autoencoder` and `encoded`, whose scaling is the latents'.

    Labels and seeds stay with their images.
    """
    folder = context.open("latents")
    index = read_index(folder)
    count = min(context.config.count or index.count, index.count)
    shards = make_shards(context, count, IMAGES_PER_SHARD, lambda: _decoder(context, index))
    draw_grid_of(context.state, context.directory, shards)
    labels = (sample.label for sample in stream_samples(folder, 0, count))
    classes = Counter(label for label in labels if label is not None)
    config = autoencoder_config(context)
    side = index.height * config.downsampling
    take_shards(context.state, context.directory, (config.in_channels, side, side), shards, classes)
    return {"count": count}


def _decoder(context: StageContext[DecodeConfig], index: ImageSet) -> Maker:
    folder, decoder = context.open("latents"), Decoder(context)

    def make(start: int, size: int, report: Callable[[int], None]) -> Content:
        samples = list(stream_samples(folder, start, start + size))
        stored = np.stack([sample.content for sample in samples])
        images = decoder(scaled_latents(stored, index.scaling), report)
        labels = [sample.label for sample in samples if sample.label is not None]
        seeds = [sample.seed for sample in samples if sample.seed is not None]
        return Content(images, labels or None, seeds or None)

    return make


def encode(context: StageContext[EncodeConfig]) -> dict[str, Any]:
    """Stage `encode`: inputs `images` and `autoencoder`.

    Latents are stored as the autoencoder has them; their index says how networks see them, and
    `sigma_data` the deviation that they have then. grid.png shows the first images decoded again,
    `psnr` (dB) says how much of them came back. Raw latents (means and deviations of posteriors) in
    the place of images are drawn from; nothing is known of their images then.
    """
    index = read_index(context.open("images"))
    shards = make_shards(context, index.count, IMAGES_PER_SHARD, lambda: _encoder(context, index))
    mean, std = _moments(context.state, shards)
    if context.config.scaling == "standardized":
        scaling = _standardised(mean, std)
    elif context.config.scaling == "fixed":
        scaling = Scaling(shift=context.config.shift, scale=context.config.scale)
    else:
        scaling = own_scaling(open_autoencoder(context))
    psnr = _draw_reconstructions(context, Decoder(context, scaling), shards)
    classes = Counter({int(label): n for label, n in index.class_histogram.items()})
    config = autoencoder_config(context)
    side = index.height if _is_raw(context) else index.height // config.downsampling
    shape = (config.latent_channels, side, side)
    take_shards(context.state, context.directory, shape, shards, classes, scaling)
    return {
        "count": index.count,
        "mean": [round(float(m), 6) for m in mean],
        "std": [round(float(s), 6) for s in std],
        "sigma_data": round(float(np.sqrt(np.mean((std * scaling.scale) ** 2))), 6),
        "psnr": psnr,
    }


def _is_raw(context: StageContext[EncodeConfig]) -> bool:
    """Whether the input `images` has raw latents in their place."""
    return context.inputs["images"].kind == ENCODE_KIND


def _encoder(context: StageContext[EncodeConfig], index: ImageSet) -> Maker:
    if _is_raw(context):
        return _drawer(context)
    folder, autoencoder = context.open("images"), open_autoencoder(context)
    at_once = _at_once(index.height * index.width, context.execution.sampling_batch_size)

    def make(start: int, size: int, report: Callable[[int], None]) -> Content:
        samples = stream_samples(folder, start, start + size)
        latents: list[Latents] = []
        labels: list[int] = []
        for first in range(start, start + size, at_once):
            batch = list(islice(samples, at_once))
            latents.append(_drawn(context, autoencoder, batch, first))
            labels += [sample.label for sample in batch if sample.label is not None]
            report(first + len(batch) - start)
        return Content(np.concatenate(latents), labels or None, None)

    return make


def _drawer(context: StageContext[EncodeConfig]) -> Maker:
    """Draws from the means and deviations of raw latents, as `_drawn` does from posteriors."""
    folder, seed = context.open("images"), context.config.seed

    def make(start: int, size: int, report: Callable[[int], None]) -> Content:
        latents: list[Latents] = []
        labels: list[int] = []
        for place, sample in enumerate(stream_samples(folder, start, start + size), start):
            mean, std = torch.from_numpy(sample.content).chunk(2)
            noise = torch.randn(mean.shape, generator=generator(seed, purposes.POSTERIOR, place))
            latents.append(to_float16(mean + std * noise, f"latents {place} are not finite"))
            labels += [] if sample.label is None else [sample.label]
        report(size)
        return Content(np.stack(latents), labels or None, None)

    return make


def _drawn(
    context: StageContext[EncodeConfig], autoencoder: Any, batch: list[Sample], first: int
) -> Latents:
    """A draw from the posterior of each image, float16 [N, c, h, w]; each has its own generator."""
    images = to_unit_range(np.stack([s.content for s in batch]), context.execution.device)
    with explain_out_of_memory("SIMS_SAMPLING_BATCH_SIZE", len(batch), "encoding"):
        posterior = autoencoder.encode(images).latent_dist
    seed = context.config.seed
    own = [generator(seed, purposes.POSTERIOR, first + i) for i in range(len(batch))]
    return to_float16(posterior.sample(own), "the latents of an image are not finite")


def _moments(
    folder: Path, shards: Sequence[Shard]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each channel over all latents of the shards under `folder`."""
    sums, count = np.zeros(0), 0
    for shard in shards:
        latents, _ = read_samples([folder / shard.file])
        wide = np.moveaxis(latents.astype(np.float64), 1, 0).reshape(latents.shape[1], -1)
        found = np.stack([wide.sum(1), (wide**2).sum(1)])
        sums, count = found if count == 0 else sums + found, count + wide.shape[1]
    mean, mean_square = sums / count
    return mean, np.sqrt(np.maximum(mean_square - mean**2, 0))


def _standardised(mean: NDArray[np.float64], std: NDArray[np.float64]) -> Scaling:
    if (std <= 1e-6 * np.abs(mean)).any():  # what rounding leaves of none
        raise SimsError(
            f"channel {int(np.argmin(std))} of the latents is the same everywhere: the autoencoder "
            "tells these images not apart"
        )
    return Scaling(shift=tuple(map(float, mean)), scale=tuple(float(LATENT_STD / s) for s in std))


def _draw_reconstructions(
    context: StageContext[EncodeConfig], decoder: Decoder, shards: Sequence[Shard]
) -> float | None:
    """Writes grid.png of the first images decoded again; returns their PSNR in dB (equal: None)."""
    stored, _ = read_samples([context.state / shards[0].file])
    again = decoder(scaled_latents(stored[:GRID_IMAGES], decoder.scaling))
    (context.directory / GRID_FILE).write_bytes(image_grid(again))
    if _is_raw(context):
        return None
    images = np.stack(list(stream_images(context.open("images"), 0, len(again))))
    mse = float(np.mean((images.astype(np.float64) - again) ** 2))
    return round(10 * math.log10(255**2 / mse), 3) if mse else None
