"""Training over images seen, with checkpoints that resume to the same bytes."""

from __future__ import annotations

import logging
import math
import os
import pickle
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from sims_core.config import ModelConfig, TrainingConfig
from sims_core.denoiser import EDMDenoiser, edm_loss
from sims_core.errors import BadInput, TrainingDiverged
from sims_core.mixing import load_training_set
from sims_core.networks import build_net, initialise, load_model, save_model
from sims_core.seeding import generator
from sims_core.shards import Images
from sims_core.stages import (
    Progress,
    SnapshotConfig,
    StageContext,
    TrainStageConfig,
    no_progress,
)

logger = logging.getLogger("sims_core.training")


def to_unit_range(images: Images, device: str = "cpu") -> Tensor:
    """uint8 [N, C, H, W] to float32 in [-1, 1] on `device`."""
    return torch.from_numpy(images).to(device).float() / 127.5 - 1


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> Tensor:
    """Indices of batch `step`, [batch_size]: every image once an epoch, in a new order each.

    A function of its arguments alone, so that training can start at any step.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    indices = torch.empty_like(positions)
    for epoch in set(epochs.tolist()):
        order = torch.randperm(count, generator=generator(seed, "epoch", epoch))
        inside = epochs == epoch
        indices[inside] = order[positions[inside] % count]
    return indices


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Factor on the learning rate at `step`: linear ramp over images seen, then the decay."""
    nimg = step * config.batch_size
    ramp = (
        min(1.0, (nimg + config.batch_size) / (config.ramp_kimg * 1000))
        if config.ramp_kimg
        else 1.0
    )
    if config.decay == "constant":
        return ramp
    return ramp * 0.5 * (1 + math.cos(math.pi * step / config.num_steps))


class EDMAverage(EMAModel):
    """EMAModel with EDM's half-life of min(half-life, images seen * ema_rampup_ratio)."""

    def __init__(self, parameters: Any, config: TrainingConfig, foreach: bool) -> None:
        super().__init__(parameters, foreach=foreach)
        self.config = config

    def get_decay(self, optimization_step: int) -> float:
        """In step n = 1, 2, ... of the images seen before it; none in the first."""
        config = self.config
        nimg = (optimization_step - 1) * config.batch_size
        halflife = min(config.ema_halflife_kimg * 1000, nimg * (config.ema_rampup_ratio or 0))
        return 0.5 ** (config.batch_size / halflife) if halflife else 0.0


def make_average(parameters: Any, config: TrainingConfig, foreach: bool) -> EMAModel:
    """The average of the weights that is the model."""
    if config.ema_rampup_ratio is not None:
        return EDMAverage(parameters, config, foreach)
    decay = 0.5 ** (config.batch_size / (config.ema_halflife_kimg * 1000))
    return EMAModel(parameters, decay=decay, foreach=foreach)


class UnreadableCheckpoint(Exception):
    """A checkpoint is cut or garbled; nothing of it was loaded."""


class Training:
    """One training run: network, optimiser, EMA and position, all of them in its checkpoint.

    Args:
        model: network and preconditioning.
        config: recipe.
        data: the training set on the device, float32 [N, ...] scaled to about [-1, 1].
        seed: of initialisation, order and noise.
        initial: weights to fine-tune from; None is a new network.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        data: Tensor,
        seed: int,
        initial: EDMDenoiser | None = None,
    ) -> None:
        self.config, self.data, self.seed = config, data, seed
        net = build_net(model.net)
        if initial is None:
            initialise(net, *self.initial_generators(model))
        else:
            net.load_state_dict(initial.net.state_dict())
        self.denoiser = EDMDenoiser(net, model.sigma_data).to(data.device).train()
        self.optimizer = torch.optim.Adam(
            self.denoiser.parameters(), lr=config.learning_rate, fused=True
        )
        self.schedule = LambdaLR(self.optimizer, lambda step: learning_rate_factor(step, config))
        self.ema = make_average(self.denoiser.parameters(), config, self.foreach_ema)
        self.step = 0
        self.log: list[tuple[int, float]] = []

    foreach_ema = False
    """Few operations for all parameters: faster where they are many and small."""

    def initial_generators(self, model: ModelConfig) -> list[torch.Generator]:
        """Of the network's random weights."""
        return [generator(self.seed, "initialise")]

    @property
    def nimg(self) -> int:
        return self.step * self.config.batch_size

    def advance(self) -> Tensor:
        """One optimiser step; returns its loss, a scalar on the device."""
        indices = batch_indices(self.step, self.config.batch_size, len(self.data), self.seed)
        noise = generator(self.seed, "noise", self.step)
        loss = edm_loss(
            self.denoiser,
            self.data[indices.to(self.data.device)],
            noise,
            self.config.P_mean,
            self.config.P_std,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.step(self.denoiser.parameters())
        self.step += 1
        return loss.detach()

    def save(self, path: Path) -> None:
        state = {
            "net": self.denoiser.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema.state_dict(),
            "step": self.step,
            "log": self.log,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.data.device, weights_only=True)
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise UnreadableCheckpoint(str(error).split("\n")[0]) from error
        self.denoiser.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        self.log = [(int(nimg), float(loss)) for nimg, loss in state["log"]]

    def snapshot(self) -> EDMDenoiser:
        """What `finish` would give now, without finishing."""
        averaged = deepcopy(self.denoiser)
        self.ema.copy_to(averaged.parameters())
        return averaged.eval().requires_grad_(False)

    def finish(self) -> EDMDenoiser:
        """The denoiser with the averaged weights."""
        self.ema.copy_to(self.denoiser.parameters())
        return self.denoiser.eval().requires_grad_(False)


def train(
    training: Training,
    checkpoint: Path | None = None,
    checkpoint_kimg: float = 2.0,
    progress: Progress = no_progress,
    after_step: Callable[[], None] = lambda: None,
) -> EDMDenoiser:
    """Runs `training` to its end, from `checkpoint` if that exists.

    Args:
        after_step: called after each step, before its checkpoint: what it writes to the disk is
            there when a restart goes on after that step.

    Raises:
        TrainingDiverged: the loss or the weights are not finite; the last checkpoint stays.
    """
    if checkpoint is not None and checkpoint.exists():
        try:
            training.load(checkpoint)
            logger.info("resumed at %.1f kimg", training.nimg / 1000)
        except UnreadableCheckpoint as error:  # the machine went down before it was on the disk
            logger.warning("%s: unreadable, training starts again (%s)", checkpoint, error)
    total = training.config.num_steps
    # Intervals in steps from the start, not from the resumption: the log must not depend on it.
    every_log = max(1, total // 100)
    every_checkpoint = max(1, round(checkpoint_kimg * 1000 / training.config.batch_size))
    started, first_step = time.monotonic(), training.step
    while training.step < total:
        loss = training.advance()
        after_step()
        if training.step % every_log == 0 or training.step == total:
            _log_loss(training, float(loss))
            elapsed = max(1e-9, time.monotonic() - started)
            rate = (training.step - first_step) * training.config.batch_size / elapsed
            progress(
                training.nimg,
                total * training.config.batch_size,
                "img",
                loss=float(loss),
                img_per_s=rate,
            )
        if checkpoint is not None and training.step % every_checkpoint == 0:
            _check_finite(training, float(loss))
            training.save(checkpoint)
    return training.finish()


def _log_loss(training: Training, loss: float) -> None:
    _check_finite(training, loss)
    training.log.append((training.nimg, loss))


def _check_finite(training: Training, loss: float) -> None:
    # The loss is from before its step's update, which may have broken the weights.
    finite = all(bool(p.isfinite().all()) for p in training.denoiser.parameters())
    if not (finite and math.isfinite(loss)):
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the weights are not finite"
        raise TrainingDiverged(
            f"{what} at {training.nimg / 1000:.1f} kimg; lower training.learning_rate "
            f"({training.config.learning_rate:g}); the last good checkpoint is kept"
        )


SNAPSHOTS_FOLDER = "snapshots"


def snapshot_folder(folder: Path, nimg: int) -> Path:
    """Where the model lies as it was after `nimg` images."""
    return folder / SNAPSHOTS_FOLDER / f"{nimg:012d}"


def keep_snapshots(
    training: Training, config: TrainStageConfig, folder: Path
) -> Callable[[], None]:
    """What writes a model under `folder` whenever `training` has come to a snapshot's step."""
    steps = {config.training.steps_of(kimg) for kimg in config.snapshots_kimg}

    def after_step() -> None:
        if training.step not in steps:
            return
        target = snapshot_folder(folder, training.nimg)
        partial = target.with_suffix(".partial")
        for old in (target, partial):  # of an attempt that was killed before its next checkpoint
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        save_model(training.snapshot().cpu(), config.model, partial)
        os.replace(partial, target)

    return after_step


def take_snapshot(context: StageContext[SnapshotConfig]) -> dict[str, Any]:
    """Stage `snapshot`: input `model`; writes the model that it was after `nimg` images.

    Raises:
        BadInput: no snapshot was kept there.
    """
    folder, nimg = context.open("model"), context.config.nimg
    source = snapshot_folder(folder, nimg)
    if not source.is_dir():
        kept = [int(path.name) for path in sorted((folder / SNAPSHOTS_FOLDER).glob("*"))]
        raise BadInput(
            f"{context.inputs['model'].short} kept no snapshot at {nimg} images; it has {kept}"
        )
    shutil.copytree(source, context.directory, dirs_exist_ok=True)
    return {"nimg": nimg}


def train_model(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train`: inputs `data` (a mix) and, to fine-tune, `initial` (a model)."""
    config = context.config
    if config.model.net.kind != "unet":
        if config.snapshots_kimg:
            raise BadInput("snapshots_kimg are kept of image models only")
        from sims_core.point_training import train_point_model

        return train_point_model(context)
    images, _ = load_training_set(context.store, context.open("data"))
    initial = None
    if "initial" in context.inputs:
        initial, initial_config = load_model(context.open("initial"))
        if initial_config != config.model:
            raise BadInput(
                "a fine-tune needs the network and sigma_data of the model it starts from"
            )
    device = context.execution.device
    training = Training(
        config.model, config.training, to_unit_range(images, device), config.seed, initial
    )
    denoiser = train(
        training,
        context.state / "checkpoint.pt",
        context.execution.checkpoint_kimg,
        context.progress,
        keep_snapshots(training, config, context.state),
    )
    save_model(denoiser.cpu(), config.model, context.directory)
    if config.snapshots_kimg:  # copied: a kill before the commit empties the directory
        shutil.copytree(context.state / SNAPSHOTS_FOLDER, context.directory / SNAPSHOTS_FOLDER)
    rows = "".join(f"{nimg},{loss:.9g}\n" for nimg, loss in training.log)
    (context.directory / "loss.csv").write_text("nimg,loss\n" + rows)
    return {"nimg": training.nimg, "images": len(images), "final_loss": training.log[-1][1]}
