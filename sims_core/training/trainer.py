"""Training over images seen, with checkpoints that resume to the same bytes."""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from sims_core.common import purposes
from sims_core.common.errors import TrainingDiverged
from sims_core.common.kept import is_kept, keep, move_kept
from sims_core.data.epochs import Shares
from sims_core.diffusion.denoiser import NetDenoiser, squared_errors
from sims_core.diffusion.noise import generator
from sims_core.engine.execution import Execution
from sims_core.engine.stage import Progress, no_progress
from sims_core.nets.build import build_net, initialise, make_denoiser
from sims_core.nets.config import ModelConfig
from sims_core.nets.losses import denoising_errors, model_loss
from sims_core.training.acceleration import Acceleration
from sims_core.training.batches import Batch, TrainingData, draw_batch
from sims_core.training.config import TrainingConfig

logger = logging.getLogger("sims_core.training")


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
        """The decay in step n = 1, 2, ..., by the images seen before it; none in the first."""
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


TELL_S = 2.0
"""A long training says at least so often how far it is."""


class UnreadableCheckpoint(Exception):
    """A checkpoint is cut or garbled; nothing of it was loaded."""


class Training:
    """One training run: network, optimiser, EMA and position, all of them in its checkpoint.

    Args:
        model: network and preconditioning.
        config: recipe.
        data: the training set, [N, ...]: uint8 images, or floats scaled to about [-1, 1].
        seed: of initialisation, order and noise.
        initial: weights to fine-tune from; None is a new network.
        labels: classes int64 [N], for a conditional network.
        execution: how to compute; None is plainly, where the data are.
        shares: how often real and synthetic data are drawn; None: all equally.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        data: TrainingData,
        seed: int,
        initial: NetDenoiser | None = None,
        *,
        labels: Tensor | None = None,
        execution: Execution | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.model, self.config, self.data, self.seed = model, config, data, seed
        self.loss = model_loss(model, config.P_mean, config.P_std)
        self.labels, self.shares = labels, shares
        self.execution = execution or Execution(device=str(data.device))
        net = build_net(model.net)
        if initial is None:
            initialise(net, *self.initial_generators(model))
        else:
            net.load_state_dict(initial.net.state_dict())
        self.step = 0
        self.log: list[tuple[int, float]] = []
        self._set_up(net)

    foreach_ema = False
    """Few operations for all parameters: faster where they are many and small."""

    def initial_generators(self, model: ModelConfig) -> list[torch.Generator]:
        """What the network's random weights are drawn from."""
        return [generator(self.seed, purposes.INITIALISE)]

    def _set_up(self, net: nn.Module) -> None:
        config = self.config
        self.acceleration = Acceleration(self.execution, config.precision)
        if not self.execution.channels_last:
            net.to(memory_format=torch.contiguous_format)
        self.denoiser = make_denoiser(net, self.model).to(self.acceleration.device).train()
        self.optimizer = torch.optim.Adam(
            self.denoiser.parameters(), lr=config.learning_rate, fused=True
        )
        self.schedule = LambdaLR(self.optimizer, lambda step: learning_rate_factor(step, config))
        self.ema = make_average(self.denoiser.parameters(), config, self.foreach_ema)
        self._prepared_net, self._stepper = self.acceleration.prepare(net, self.optimizer)
        self._prepared = make_denoiser(self._prepared_net, self.model).train()

    @property
    def nimg(self) -> int:
        return self.step * self.config.batch_size

    def _next_batch(self) -> Batch:
        """This process's part of the step's batch, on the device."""
        batch = draw_batch(
            *(self.data, self.labels, self.config, self.seed, self.step),
            with_dropout=getattr(self.model.net, "drops_out", False),
            with_augment_labels=getattr(self.model.net, "is_told_of_augmentation", False),
            loss=self.loss,
            shares=self.shares,
        )
        if self.acceleration.processes > 1:
            own = self.acceleration.part(len(batch))
            batch = batch.map(lambda part: part[own])
        return batch.map(self.acceleration.to_device)

    def advance(self) -> Tensor:
        """One optimiser step; returns this process's part of its loss, a scalar on the device.

        The mean over processes is the batch's loss.
        """
        batch, how = self._next_batch(), self.acceleration
        whole, done = self.config.batch_size / how.processes, 0
        losses = []
        for micro in batch.micro_batches(how.micro_batch_size(len(batch))):
            done += len(micro)
            with how.accumulating(self._prepared_net, last=done == len(batch)):
                loss = self._loss(micro)
                if len(micro) != whole:
                    loss = loss * (len(micro) / whole)
                how.backward(loss)
            losses.append(loss.detach())
        self._stepper.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.step(self.denoiser.parameters())
        self.step += 1
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _loss(self, batch: Batch) -> Tensor:
        """The model's own loss of some images, a scalar; EDM's where it has none."""
        tell: Any = getattr(self.denoiser.net, "tell", None)
        if tell is not None:
            tell(batch.dropout, batch.augment_labels)
        seen = (batch.images, batch.sigma, batch.noise, batch.labels)
        if self.loss is not None:
            return denoising_errors(self._prepared, self.loss, *seen).mean()
        return squared_errors(self._prepared, *seen).mean()

    def save(self, path: Path) -> None:
        state = {
            "net": self.denoiser.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema.state_dict(),
            "step": self.step,
            "log": self.log,
            "scaler": self.acceleration.scaler_state,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        if path.exists():
            move_kept(path, previous_of(path))
        keep(partial, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            UnreadableCheckpoint: nothing of it was loaded.
        """
        self.restore(self.read(path))

    def read(self, path: Path) -> dict[str, Any]:
        """What a checkpoint holds; raises UnreadableCheckpoint."""
        try:
            state: dict[str, Any] = torch.load(
                path, map_location=self.acceleration.device, weights_only=True
            )
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise UnreadableCheckpoint(str(error).split("\n")[0]) from error
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Network, optimiser, average and position as they were."""
        self.denoiser.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        self.log = [(int(nimg), float(loss)) for nimg, loss in state["log"]]
        self.acceleration.load_scaler_state(state["scaler"])

    def snapshot(self) -> NetDenoiser:
        """What `finish` would give now, without finishing."""
        averaged = deepcopy(self.denoiser)
        self.acceleration.unwrap(averaged.net)
        self.ema.copy_to(averaged.parameters())
        return averaged.eval().requires_grad_(False)

    def finish(self) -> NetDenoiser:
        """The denoiser with the averaged weights."""
        self.acceleration.unwrap(self.denoiser.net)
        self.ema.copy_to(self.denoiser.parameters())
        return self.denoiser.eval().requires_grad_(False)


def previous_of(checkpoint: Path) -> Path:
    """Where the checkpoint before lies, for the case that this one is damaged."""
    return checkpoint.with_suffix(f".previous{checkpoint.suffix}")


def train(
    training: Training,
    checkpoint: Path | None = None,
    checkpoint_kimg: float = 2.0,
    progress: Progress = no_progress,
    after_step: Callable[[], None] = lambda: None,
    may_resume: Callable[[int], bool] = lambda step: True,
) -> NetDenoiser:
    """Runs `training` to its end, from `checkpoint` if that exists and is whole.

    Args:
        may_resume: whether what `after_step` had written until a step is whole.
        after_step: called after each step, before its checkpoint: what it writes to the disk is
            there when a restart goes on after that step.

    Raises:
        TrainingDiverged: the loss or the weights are not finite; the last checkpoint stays.
    """
    if checkpoint is not None:
        _resume(training, checkpoint, may_resume)
    config, total = training.config, training.config.num_steps
    # Intervals in steps from the start, not from the resumption: the log must not depend on it.
    every_log = max(1, total // 100)
    every_checkpoint = max(1, round(checkpoint_kimg * 1000 / config.batch_size))
    first_step, started = training.step, time.monotonic()
    told = started
    figures: dict[str, float] = {}

    def tell() -> None:
        elapsed = max(1e-9, time.monotonic() - started)
        rate = (training.step - first_step) * config.batch_size / elapsed
        nimg = total * config.batch_size
        progress(training.nimg, nimg, "img", **figures, img_per_s=rate)

    while training.step < total:
        part_of_loss = training.advance()
        after_step()
        if training.step % every_log == 0 or training.step == total:
            loss = _checked_loss(training, part_of_loss)
            training.log.append((training.nimg, loss))
            figures["loss"] = loss
            tell()
        elif time.monotonic() - told > TELL_S:  # with the last loss: asking for it costs a wait
            told = time.monotonic()
            tell()
        if checkpoint is not None and training.step % every_checkpoint == 0:
            _checked_loss(training, part_of_loss)
            if training.acceleration.rank == 0:
                training.save(checkpoint)
    return training.finish()


def _resume(training: Training, checkpoint: Path, may_resume: Callable[[int], bool]) -> None:
    """Goes on from the last checkpoint that is whole, or from the beginning."""
    found = [path for path in (checkpoint, previous_of(checkpoint)) if path.exists()]
    for path in found:
        if not is_kept(path):
            continue
        try:
            state = training.read(path)
        except UnreadableCheckpoint as error:  # whole, but of another version of torch
            logger.warning("%s: unreadable (%s)", path, error)
            continue
        if may_resume(state["step"]):
            training.restore(state)
            logger.info("resumed at %.1f kimg", training.nimg / 1000)
            return
    if found:
        logger.warning("no checkpoint can be trusted: training starts again")


def _checked_loss(training: Training, part: Tensor) -> float:
    """The batch's loss.

    Raises:
        TrainingDiverged: it is not finite, or the weights are not: the loss is from before its
            step's update, which may have broken them.
    """
    loss = float(training.acceleration.mean_over_processes(part))
    finite = all(bool(p.isfinite().all()) for p in training.denoiser.parameters())
    if not (finite and math.isfinite(loss)):
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the weights are not finite"
        raise TrainingDiverged(
            f"{what} at {training.nimg / 1000:.1f} kimg; lower training.learning_rate "
            f"({training.config.learning_rate:g}); the last good checkpoint is kept"
        )
    return loss
