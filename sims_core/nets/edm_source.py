"""EDM's and EDM2's network pickles as models of this project, and what there is to say of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.nets.config import ModelConfig
from sims_core.nets.edm_notes import ObjectNote
from sims_core.nets.edm_pickles import NetworkPickle, read_network_pickle
from sims_core.nets.losses import default_loss

MOST_SAID = 500
"""Characters of one line about an object of the file."""


@dataclass(frozen=True)
class PickledModel:
    """A network pickle, read."""

    model: ModelConfig
    weights: dict[str, Tensor]
    """float32, under the names of the network here."""
    details: dict[str, Any]
    """What else the file holds, as JSON."""


def read_pickled_model(path: Path, sigma_data: float) -> PickledModel:
    """The averaged network of a pickle, its preconditioning and its loss; nothing in it is run.

    Args:
        sigma_data: of the training data, where the file has no such number (VP, VE, iDDPM).

    Raises:
        BadInput: it is no network pickle of EDM or EDM2; see `read_network_pickle`.
    """
    found = read_network_pickle(path)
    own = getattr(found.preconditioning, "sigma_data", sigma_data)
    try:
        model = ModelConfig(
            net=found.net,
            sigma_data=own,
            preconditioning=found.preconditioning,
            loss=found.loss or default_loss(found.preconditioning),
        )
    except ValidationError as error:
        raise BadInput(f"{path}: {one_line(error)}") from None
    return PickledModel(model, found.weights, _details(found))


def _details(found: NetworkPickle) -> dict[str, Any]:
    said = []
    if found.widened:
        said.append("weights are in half precision in the file: they were widened to float32")
    said += [*_about_loss(found), *_about_augmentation(found), *_about_encoder(found)]
    if found.dataset_kwargs is not None:
        said.append(_cut(f"dataset_kwargs: {_arguments(found.dataset_kwargs)}"))
    said.append("not used: dataset_kwargs, the encoder, and the source text, which is never run")
    scaling = found.latent_scaling
    return {
        "source": "network pickle",
        "widened": found.widened,
        "loss_in_file": found.loss is not None,
        "augment_pipe": _object(found.augment_pipe),
        "encoder": _object(found.encoder),
        "latent_scaling": scaling and {"scale": scaling.scale, "bias": scaling.bias},
        "dataset_kwargs": found.dataset_kwargs,
        "said": said,
    }


def _about_loss(found: NetworkPickle) -> list[str]:
    if found.loss is not None:
        return []
    kind = found.preconditioning.kind
    if found.loss_fn is None:
        return [f"the file has no loss_fn: fine-tunes use the one of the paper ({kind})"]
    return [
        f"loss_fn {found.loss_fn.class_name} is not known here: fine-tunes use the one of the "
        f"paper ({kind})"
    ]


def _about_augmentation(found: NetworkPickle) -> list[str]:
    if (pipe := found.augment_pipe) is None:
        return []
    p = pipe.attributes.get("p", pipe.arguments.get("p"))
    advice = "; the network is not told of it, so fine-tunes do without"
    if found.net.is_told_of_augmentation:
        advice = f"; set training.augment={p} to fine-tune with it" if p else ""
    return [_cut(f"augment_pipe: {pipe.class_name}({_arguments(pipe.arguments)}){advice}")]


def _about_encoder(found: NetworkPickle) -> list[str]:
    if (encoder := found.encoder) is None:
        return []
    if (scaling := found.latent_scaling) is None:
        return [f"encoder: {encoder.class_name}: the network sees images"]
    numbers = (
        f"{name} {', '.join(f'{number:.4g}' for number in values)}"
        for name, values in (("scale", scaling.scale), ("bias", scaling.bias))
    )
    return [f"encoder: {encoder.class_name}: the network sees latents, {'; '.join(numbers)}"]


def _object(note: ObjectNote | None) -> dict[str, Any] | None:
    if note is None:
        return None
    return {"class_name": note.class_name, "arguments": note.arguments}


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} ..."
