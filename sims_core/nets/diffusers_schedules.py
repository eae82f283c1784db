"""What noise a diffusers network was trained with, from the scheduler that lies beside it.

A scheduler is for sampling, and only a part of its configuration is about the training: which noise
there was at which timestep, and what the network predicts. That part is the same for every
scheduler that was made for DDPM's networks; its steps and solvers are not used.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.diffusion.config import NoiseSchedule
from sims_core.nets.diffusers_files import read_json
from sims_core.nets.preconditioning_config import EDMPreconditioning

SCHEDULER_FILE = "scheduler_config.json"

DDPM_SCHEDULERS = (
    *("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler"),
    *("DDIMInverseScheduler", "PNDMScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"),
    *("LMSDiscreteScheduler", "SASolverScheduler"),
)
"""Those that share DDPM's discrete betas."""
EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
"""Those for networks of EDM's preconditioning, which see ln(sigma) / 4."""
CLIPS = ("clip_sample", "thresholding")
"""What schedulers do to the predicted image. A denoiser that clips has no score."""
OTHER_NOISE = {"use_flow_sigmas": False, "timestep_type": "discrete"}
"""Settings that make a scheduler one of other noise, and the values at which they do not."""


@dataclass(frozen=True)
class TrainingNoise:
    """One of the two is what the network was trained with."""

    schedule: NoiseSchedule | None
    preconditioning: EDMPreconditioning | None
    said: tuple[str, ...]
    """What is left out of the scheduler's configuration."""


def read_training_noise(folder: Path) -> TrainingNoise:
    """The training noise of the network in a folder that diffusers saved.

    Raises:
        BadInput: there is no scheduler, or one of other noise than DDPM's or EDM's.
    """
    places = (folder / "scheduler" / SCHEDULER_FILE, folder / SCHEDULER_FILE)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise BadInput(
            f"{folder} has neither scheduler/{SCHEDULER_FILE} nor {SCHEDULER_FILE}: they say what "
            "the network predicts at which noise"
        )
    found = read_json(path, finite=False)
    if (kind := found.get("_class_name")) not in (*DDPM_SCHEDULERS, *EDM_SCHEDULERS):
        raise BadInput(
            f"{path}: scheduler {kind} is none whose training noise is known here: "
            f"{', '.join((*DDPM_SCHEDULERS, *EDM_SCHEDULERS))}"
        )
    config = {**_defaults(kind), **found}
    for name, usual in OTHER_NOISE.items():
        if (value := config.get(name, usual)) != usual:
            raise BadInput(f"{path}: {name} {value} means other noise than DDPM's: only {usual}")
    try:
        if kind in EDM_SCHEDULERS:
            return TrainingNoise(None, _edm(config), _about(kind, config))
        fields = {key: value for key, value in config.items() if key in NoiseSchedule.model_fields}
        if isinstance(betas := fields.get("trained_betas"), list):
            fields["num_train_timesteps"] = len(betas)
        return TrainingNoise(NoiseSchedule.model_validate(fields), None, _about(kind, config))
    except ValidationError as error:
        raise BadInput(f"{path}: {one_line(error)}") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None


def _defaults(kind: str) -> dict[str, Any]:
    """The values of what a file leaves out; schedulers have different ones."""
    parameters = inspect.signature(getattr(diffusers, kind).__init__).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _edm(config: dict[str, Any]) -> EDMPreconditioning:
    predicted = config["prediction_type"]
    if predicted not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type: want epsilon or v_prediction, got {predicted!r}")
    return EDMPreconditioning(sigma_data=config["sigma_data"], negated=predicted == "v_prediction")


def _about(kind: str, config: dict[str, Any]) -> tuple[str, ...]:
    """What a user should know of the part that is not used."""
    if kind in EDM_SCHEDULERS:
        noise = f"EDM's, sigma_data {config['sigma_data']:g}"
    elif config.get("trained_betas") is not None:
        noise = f"{len(config['trained_betas'])} trained betas"
    else:
        noise = (
            f"betas {config['beta_schedule']} from {config['beta_start']:g} to "
            f"{config['beta_end']:g} over {config['num_train_timesteps']} timesteps"
        )
    said = [f"{kind}: the training noise is taken from it ({noise}), its sampling steps are not"]
    said += [
        f"{name} of the scheduler is ignored: the predicted image is not clipped"
        for name in CLIPS
        if config.get(name)
    ]
    return tuple(said)
