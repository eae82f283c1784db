"""Configuration of training and of its stages.

Lengths are in kimg (thousand images seen) or mimg (million), never in epochs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.common.precision import Precision
from sims_core.nets.config import ModelConfig, Net

MOST_KIMG = 1e8
"""The longest training that is accepted; EDM2's longest is 2e6."""


class TrainingConfig(Frozen):
    """EDM training (arXiv 2206.00364, Table 1), its length in images seen."""

    kimg: Annotated[float, Field(gt=0, le=MOST_KIMG)] = 25.0
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 1e-3
    ramp_kimg: Annotated[float, Field(ge=0, le=MOST_KIMG)] = 0.0
    """Linear ramp of the learning rate from zero; EDM's 10,000 kimg starves a short fine-tune."""
    decay: Literal["constant", "cosine"] = "cosine"
    P_mean: Annotated[float, Field(ge=-20, le=20)] = -1.2
    P_std: Annotated[float, Field(gt=0, le=20)] = 1.2
    ema_halflife_kimg: Annotated[float, Field(gt=0, le=MOST_KIMG)] = 0.5
    """After a warm-up: diffusers' EMAModel caps the decay at (1 + n) / (10 + n) in step n."""
    ema_rampup_ratio: Annotated[float, Field(gt=0)] | None = None
    """Instead of that warm-up EDM's: the half-life is at most this times the images seen so far, so
    that the average never depends on how long the training goes on."""
    precision: Precision = "fp32"
    """Precision of the network's passes. bf16 and fp16 are mixed: weights, loss and EDM's scalings
    are always float32."""
    x_flip: bool = False
    """Every image is mirrored left to right with probability 1/2 each time that it is seen."""
    augment: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of each kind of EDM's geometric augmentation (0.12 for CIFAR-10), which mirrors
    half of the images as well; 0 is none. See sims_core.training.augmentation."""
    grid_kimg: Annotated[float, Field(ge=0)] = 0.0
    """Every so many kimg a grid of the averaged model's samples is drawn; 0 draws none."""

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps_of(self.kimg)

    def steps_of(self, kimg: float) -> int:
        """`kimg` in optimiser steps, rounded up to whole batches, at least one."""
        return max(1, -(-round(kimg * 1000) // self.batch_size))


def fine_tuning(
    base: TrainingConfig, net: Net, *, kimg: float, batch_size: int, learning_rate: float
) -> TrainingConfig:
    """A base's recipe with a fine-tune's length, batch and rate.

    Constant rate after no ramp: within a budget this short a ramp or decay would only shrink the
    budget. The EMA's half-life is a tenth of the budget, so that the weights it started from have
    all but left it (2^-10) when the budget is spent. An imported network that cannot be told of
    augmentation is not augmented for.

    Args:
        base: the base's recipe.
        net: the network that is trained.
    """
    told = getattr(net, "is_told_of_augmentation", False)
    return base.model_copy(
        update={
            "kimg": kimg,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "ramp_kimg": 0.0,
            "decay": "constant",
            "ema_halflife_kimg": kimg / 10,
            "augment": base.augment if told else 0.0,
        }
    )


def check_recipe(training: TrainingConfig, net: Net, name: str) -> None:
    """Raises BadInput if the recipe cannot train the network of imported model `name` anew."""
    if training.augment and not getattr(net, "is_told_of_augmentation", False):
        raise BadInput(
            f"later generations are trained by the recipe of `training`, and the network of {name} "
            f"cannot be told of its augmentation ({training.augment:g}): set training.augment=0, "
            "or base.later=fine_tune"
        )


class TrainStageConfig(Frozen):
    model: ModelConfig
    training: TrainingConfig
    seed: int
    snapshots_kimg: tuple[float, ...] = ()
    """Also keep the model at these lengths: each is what a training of that length ends in."""

    @model_validator(mode="after")
    def _snapshots_on_the_way(self) -> TrainStageConfig:
        steps = [self.training.steps_of(kimg) for kimg in self.snapshots_kimg]
        if steps != sorted(set(steps)) or (steps and steps[-1] >= self.training.num_steps):
            raise ValueError(
                f"snapshots_kimg {self.snapshots_kimg} must be growing, a batch apart or more, and "
                f"below kimg {self.training.kimg}"
            )
        if steps and self.training.decay != "constant":
            raise ValueError(
                "snapshots_kimg need decay=constant: a rate that knows the end differs"
            )
        return self


class SnapshotConfig(Frozen):
    """Which of a training's snapshots, by the images that it had seen."""

    nimg: int = Field(ge=1)
