"""Generation into shards: image i is a function of (models, sampler, guidance, seed i) alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sims_core.common import purposes
from sims_core.common.errors import BadInput
from sims_core.common.precision import Precision
from sims_core.common.seeding import derive_seed, image_seed
from sims_core.data.image_set import Shard
from sims_core.data.ranges import to_float16, to_uint8
from sims_core.data.sharded import Content, Maker, draw_grid_of, make_shards, take_shards
from sims_core.data.types import Images, Latents
from sims_core.diffusion.denoiser import Denoiser, NetDenoiser
from sims_core.diffusion.guidance import class_guidance, negative_guidance
from sims_core.diffusion.sampler import Sampler, auxiliary_evaluations, make_sampler
from sims_core.engine.execution import Execution, check_precision
from sims_core.engine.memory import explain_out_of_memory
from sims_core.engine.stage import StageContext
from sims_core.nets.build import image_net, round_to_known
from sims_core.nets.config import ImageNet, ModelConfig
from sims_core.nets.saved import load_model, read_model_config
from sims_core.sampling.config import GenerateConfig


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise, float32 [len(seeds), *shape] on the CPU, one generator per seed."""
    return torch.stack(
        [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def sample_images(
    denoiser: Denoiser,
    sample: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    batch_size: int,
    device: str = "cpu",
    after_batch: Callable[[int], None] = lambda done: None,
    labels: Sequence[int] | None = None,
    finish: Callable[[Tensor], NDArray[Any]] = to_uint8,
) -> NDArray[Any]:
    """[len(seeds), *shape]; batches only group the work, each image has its own noise.

    Args:
        labels: class of each image, for a conditional denoiser.
        finish: makes of a batch's samples what is stored: uint8 images, float16 latents.
    """
    images = []
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        noise = seeded_noise(batch, shape).to(device)
        classes = None
        if labels is not None:
            classes = torch.tensor(labels[start : start + batch_size], device=device)
        images.append(finish(sample(denoiser, noise, classes)))
        after_batch(start + len(batch))
    return np.concatenate(images)


def image_labels(seeds: Sequence[int], num_classes: int) -> list[int] | None:
    """Class of each image, a function of its seed alone and uniform over classes; None for 0."""
    if not num_classes:
        return None
    return [derive_seed(seed, purposes.LABEL) % num_classes for seed in seeds]


def load_denoiser(context: StageContext[GenerateConfig]) -> tuple[Denoiser, ImageNet]:
    """The denoiser to sample from and the base's network.

    Each network is guided by its own answer without a class (if sampler.class_guidance > 0), and
    the base by the auxiliary (if omega > 0).
    """
    omega = context.config.omega
    base, net = _load_guided(context, "base")
    if omega == 0:
        return base, net
    auxiliary, _ = _load_guided(context, "auxiliary")
    return negative_guidance(base, auxiliary, omega, context.config.interval), net


def _load_guided(context: StageContext[GenerateConfig], name: str) -> tuple[Denoiser, ImageNet]:
    """The input model of this name under classifier-free guidance, and its network.

    An auxiliary that knows no classes is asked for none, and has nothing to be guided by.

    Raises:
        BadInput: it was never trained without a class.
    """
    sampler, execution = context.config.sampler, context.execution
    denoiser, model = load_for_sampling(context.open(name), execution, sampler.precision)
    net = image_net(model)
    if not net.num_classes:
        return without_labels(denoiser), net
    if sampler.class_guidance and not net.knows_no_class:
        raise BadInput(f"class_guidance: the {name} was never trained without a class")
    return class_guidance(denoiser, sampler.class_guidance), net


def without_labels(denoiser: Denoiser) -> Denoiser:
    """A denoiser that knows no classes, to stand beside one that does."""
    return lambda x, sigma, labels=None: denoiser(x, sigma)


def evaluations(context: StageContext[GenerateConfig]) -> int:
    """Passes of networks for one image, of base and auxiliary.

    Raises:
        BadInput: there is guidance, but none of the sampler's noise levels is guided.
    """
    config, sampler = context.config, context.config.sampler
    model = read_model_config(context.open("base"))
    own = sampler.evaluations * _passes(config, model)
    if config.omega == 0:
        return own
    guided = auxiliary_evaluations(sampler, config.interval, round_to_known(model))
    if not guided:  # planning refuses it, but does not round
        raise BadInput(f"no noise level of the sampler is in the interval {config.interval}")
    return own + guided * _passes(config, read_model_config(context.open("auxiliary")))


def _passes(config: GenerateConfig, model: ModelConfig) -> int:
    """Passes of a network that make one evaluation of its denoiser."""
    return config.sampler.passes if image_net(model).num_classes else 1


class HalfPrecision(nn.Module):
    """A network whose passes are in bf16 or fp16; what goes in and comes out is float32."""

    def __init__(self, net: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.net = net
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.dtype):
            result: Tensor = self.net(x, c_noise, labels)
        return result.float()


def load_for_sampling(
    folder: Path, execution: Execution, precision: Precision = "fp32"
) -> tuple[NetDenoiser, ModelConfig]:
    """A stored model on the execution's device, in its memory format, compiled if it says so.

    Raises:
        BadInput: the device cannot compute in that precision.
    """
    check_precision("sampler.precision", precision, execution.device)
    denoiser, model = load_model(folder, execution.device)
    if not execution.channels_last:
        denoiser.to(memory_format=torch.contiguous_format)
    if precision != "fp32":
        denoiser.net = HalfPrecision(denoiser.net, precision)
    if execution.compile is not None:
        denoiser.net.compile(backend=execution.compile)
    return denoiser, model


def generate(context: StageContext[GenerateConfig]) -> dict[str, Any]:
    """Stage `generate`: inputs `base` and, for omega > 0, `auxiliary` (models)."""
    shards = _sample_shards(context, to_uint8)
    draw_grid_of(context.state, context.directory, shards)
    return _finish(context, shards)


def generate_latents(context: StageContext[GenerateConfig]) -> dict[str, Any]:
    """Stage `generate_latents`: as `generate`, of models of latents."""
    return _finish(context, _sample_shards(context, to_float16))


def _sample_shards(
    context: StageContext[GenerateConfig], finish: Callable[[Tensor], Images | Latents]
) -> tuple[Shard, ...]:
    """All shards, under the stage's state."""
    config, execution = context.config, context.execution
    size = execution.sampling_batch_size

    def prepare() -> Maker:
        model = read_model_config(context.open("base"))
        evaluations(context)
        denoiser, net = load_denoiser(context)
        sample = make_sampler(config.sampler, round_to_known(model))
        shape = (net.channels, net.image_size, net.image_size)

        def make(start: int, count: int, report: Callable[[int], None]) -> Content:
            seeds = [image_seed(config.first_seed, start + i) for i in range(count)]
            labels = image_labels(seeds, net.num_classes)
            with explain_out_of_memory("SIMS_SAMPLING_BATCH_SIZE", min(size, count), "sampling"):
                samples = sample_images(
                    *(denoiser, sample, seeds, shape, size, execution.device),
                    report,
                    labels,
                    finish,
                )
            return Content(samples, labels, seeds)

        return make

    return make_shards(context, config.count, config.images_per_shard, prepare)


def _finish(context: StageContext[GenerateConfig], shards: tuple[Shard, ...]) -> dict[str, Any]:
    """Index and shards into the artifact."""
    config, model = context.config, read_model_config(context.open("base"))
    net = image_net(model)
    every_seed = (image_seed(config.first_seed, i) for i in range(config.count))
    labels = image_labels(list(every_seed), net.num_classes)
    shape = (net.channels, net.image_size, net.image_size)
    take_shards(context.state, context.directory, shape, shards, Counter(labels or ()))
    return {"count": config.count, "nfe": evaluations(context)}
