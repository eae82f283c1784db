"""Stage `train` for images: labels, grids of samples on the way, and what lack of memory says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.common.kept import SUFFIX, keep
from sims_core.common.seeding import derive_seed, image_seed
from sims_core.data.grid import image_grid
from sims_core.data.mixing import load_training_set, read_shares
from sims_core.data.ranges import to_float16, to_uint8
from sims_core.data.types import Images, Labels
from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.sampler import make_sampler
from sims_core.engine.memory import explain_out_of_memory
from sims_core.engine.stage import StageContext
from sims_core.nets.build import image_net, round_to_known
from sims_core.nets.config import ImageNet
from sims_core.sampling.images import image_labels, sample_images
from sims_core.training.config import TrainStageConfig
from sims_core.training.model_files import (
    SNAPSHOTS_FOLDER,
    OnTheWay,
    keep_snapshots,
    load_initial,
    write_model,
)
from sims_core.training.trainer import Training, train

GRIDS_FOLDER = "samples"


GRID_SAMPLES = 16


def checked_labels(labels: Labels | None, net: ImageNet) -> Tensor | None:
    """The classes that the network is conditioned on, None for an unconditional one.

    Raises:
        BadInput: it is conditional, and the training set has no labels or more classes.
    """
    if not net.num_classes:
        return None
    if labels is None:
        raise BadInput(
            f"model.net.num_classes is {net.num_classes}, but not all training images have "
            "labels: set it to 0, or import the images with labels"
        )
    if labels.min() < 0 or labels.max() >= net.num_classes:
        raise BadInput(
            f"model.net.num_classes is {net.num_classes}, but the training set has labels "
            f"{labels.min()}..{labels.max()}: they must be 0..{net.num_classes - 1}"
        )
    return torch.from_numpy(labels)


def train_image_model(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Trains in this process: alone, or as one of those that `train_in_processes` launched."""
    config, execution = context.config, context.execution
    net = image_net(config.model)
    images, labels = load_training_set(context.store, context.open("data"), execution.threads)
    shares = read_shares(context.open("data"), context.inputs["data"].kind)
    own = config.training.batch_size // execution.num_processes
    size = min(execution.micro_batch_size or own, own)
    with explain_out_of_memory("SIMS_MICRO_BATCH_SIZE", size, "training"):
        training = Training(
            config.model,
            config.training,
            images,
            config.seed,
            load_initial(context),
            labels=checked_labels(labels, net),
            execution=execution,
            shares=shares,
        )
        hooks = (
            keep_snapshots(training, config, context.state),
            keep_grids(training, context.state / GRIDS_FOLDER, _finisher(context)),
        )

        def after_step() -> None:
            for hook in hooks:
                hook.after_step()

        denoiser = train(
            training,
            context.state / "checkpoint.pt",
            execution.checkpoint_kimg,
            context.progress,
            after_step,
            lambda step: all(hook.is_whole(step) for hook in hooks),
        )
    if training.acceleration.rank == 0:
        write_model(context, denoiser, training)
        for hook in hooks:
            if not hook.is_whole(training.step):
                raise DamagedArtifact(
                    "what the training wrote on its way is damaged: run the same command again, "
                    "and it starts again"
                )
        for name in (SNAPSHOTS_FOLDER, GRIDS_FOLDER):
            if (context.state / name).exists():  # copied: a kill before the commit empties it
                shutil.copytree(
                    *(context.state / name, context.directory / name),
                    ignore=shutil.ignore_patterns(f"*{SUFFIX}", "*.partial"),
                )
    return {"nimg": training.nimg, "images": len(images), "final_loss": training.log[-1][1]}


def _finisher(context: StageContext[TrainStageConfig]) -> Callable[[Tensor], Images]:
    """What makes images of a sampled batch: latents are decoded."""
    if "encoded" not in context.inputs:
        return to_uint8
    from sims_core.latents.coding import Decoder

    decoder = Decoder(context)
    return lambda latents: decoder(to_float16(latents))


def keep_grids(
    training: Training, folder: Path, finish: Callable[[Tensor], Images] = to_uint8
) -> OnTheWay:
    """What draws a grid of samples under `folder` every `grid_kimg` of `training`.

    Args:
        finish: makes images of a batch of samples.
    """
    config = training.config
    every = max(1, round(config.grid_kimg * 1000 / config.batch_size))

    def after_step() -> None:
        due = config.grid_kimg > 0 and training.step % every == 0
        if due and training.acceleration.rank == 0:
            draw_grid(training, folder, finish)

    def written(step: int) -> list[Path]:
        steps = range(every, step + 1, every) if config.grid_kimg > 0 else ()
        return [grid_file(folder, due * config.batch_size) for due in steps]

    return OnTheWay(after_step, written)


def grid_file(folder: Path, nimg: int) -> Path:
    """Where the grid of samples lies that the model drew after `nimg` images."""
    return folder / f"kimg-{nimg / 1000:010.3f}.png"


def draw_grid(training: Training, folder: Path, finish: Callable[[Tensor], Images]) -> None:
    """Writes a PNG of samples of the averaged model, always from the same seeds."""
    net = image_net(training.model)
    seeds = [image_seed(derive_seed(training.seed, purposes.GRID), i) for i in range(GRID_SAMPLES)]
    images = sample_images(
        training.snapshot(),
        make_sampler(training.model.sampler_for(SamplerConfig()), round_to_known(training.model)),
        seeds,
        (net.channels, net.image_size, net.image_size),
        GRID_SAMPLES,
        str(training.acceleration.device),
        labels=image_labels(seeds, net.num_classes),
        finish=finish,
    )
    folder.mkdir(exist_ok=True)
    target = grid_file(folder, training.nimg)
    partial = target.with_suffix(".partial")
    partial.write_bytes(image_grid(images, columns=GRID_SAMPLES // 2))
    keep(partial, target)
