"""Other people's models into the store: diffusers folders, network pickles, and our own artifacts.

Weights are read from safetensors, or from network pickles of EDM and EDM2 by a reader that runs
nothing: nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.common.hostile import reason
from sims_core.engine.stage import StageContext
from sims_core.nets.build import build_net, image_net, make_denoiser
from sims_core.nets.config import DiffusersUNetConfig, ImageNet, ImportedModel, ModelConfig
from sims_core.nets.diffusers_files import (
    check_depth,
    find_weights,
    read_json,
    read_net_config,
    read_weights,
    stored_tensors,
    weights_sha256,
)
from sims_core.nets.diffusers_schedules import read_training_noise
from sims_core.nets.edm_source import read_pickled_model
from sims_core.nets.files import MODEL_FILE, NET_FOLDER
from sims_core.nets.foreign import built_without_numbers, check_weights
from sims_core.nets.hub import fetch_model, is_hub_id
from sims_core.nets.saved import (
    load_weights,
    save_model,
    stored_module,
)


@dataclass(frozen=True)
class ModelSource:
    """A model found on disk, its description checked, its weights not read yet."""

    model: ModelConfig
    weights: tuple[Path, ...]
    """One file, or all its parts."""
    state: dict[str, Tensor] | None = None
    """The weights, where they had to be read to find out what the model is."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else there is to say of the file."""

    def read(self) -> dict[str, Tensor]:
        """The network's weights."""
        return read_weights(self.weights) if self.state is None else self.state

    @property
    def imported(self) -> ImportedModel:
        return ImportedModel(model=self.model, weights_sha256=weights_sha256(self.weights))


def find_on_hub(source: str, revision: str | None) -> tuple[Path, dict[str, Any]]:
    """Where a model lies that is named by a path or, if there is none, by its id on the Hub.

    Returns:
        The path; and `hub`, the id and the commit, if it came from there.

    Raises:
        BadInput: it cannot be had from the Hub; or a revision of something else.
    """
    if is_hub_id(source):
        found = fetch_model(source, revision or "main")
        return found.folder, {"hub": {"id": found.id, "commit": found.commit}}
    if revision is not None:
        raise BadInput(f"`revision` is of an id on the Hub (OWNER/NAME), {source} is none")
    return Path(source).expanduser().absolute(), {}


def find_model_source(
    folder: Path, sigma_data: float = 0.5, num_classes: int | None = None
) -> ModelSource:
    """What lies in `folder`: a diffusers pipeline or network, or one of our model artifacts.

    Args:
        folder: may also be a file, which then must be a network pickle of EDM or EDM2.
        sigma_data: standard deviation of the data that the network was trained on, where what is
            found does not say it.
        num_classes: classes to use of a diffusers network that does not say how many it has, or
            that has more embeddings than classes.

    Raises:
        BadInput: nothing of that kind, or one that cannot be wrapped exactly; says why.
    """
    if _is_file(folder):
        found = read_pickled_model(folder, sigma_data)
        return ModelSource(found.model, (folder,), found.weights, found.details)
    if not folder.is_dir():
        raise BadInput(
            f"{folder} is no folder and no regular file: give a folder with a diffusers "
            "UNet2DModel, or a network pickle (.pkl) of EDM or EDM2"
        )
    if (folder / MODEL_FILE).exists():
        return _find_ours(folder)
    net_folder = next((f for f in (folder / "unet", folder) if (f / "config.json").exists()), None)
    if net_folder is None:
        raise BadInput(
            f"{folder} has neither unet/config.json, config.json nor {MODEL_FILE}: give a folder "
            "that diffusers saved with save_pretrained, or a model artifact of a store"
        )
    return _find_diffusers(folder, net_folder, sigma_data, num_classes)


def _find_diffusers(
    folder: Path, net_folder: Path, sigma_data: float, num_classes: int | None
) -> ModelSource:
    """A network in `net_folder` with its scheduler in `folder` or below."""
    net = read_net_config(net_folder / "config.json", num_classes)
    noise = read_training_noise(folder)
    own = noise.preconditioning.sigma_data if noise.preconditioning else sigma_data
    model = ModelConfig(
        net=net,
        sigma_data=own,
        schedule=noise.schedule,
        preconditioning=noise.preconditioning,
    )
    weights = find_weights(net_folder)
    _check(model, net_folder / "config.json", weights)
    said = [*noise.said]
    if half := {tensor.precision for tensor in stored_tensors(weights).values()} - {"F32"}:
        said.append(f"weights are {' and '.join(sorted(half))}: they were widened to float32")
    if net.learns_variance:
        said.append(
            f"the network predicts a variance, too: of its {2 * net.channels} channels the first "
            f"{net.channels} are used, the mean"
        )
    return ModelSource(model, weights, details={"source": "diffusers", "said": said})


def _is_file(path: Path) -> bool:
    """Whether it is a regular file: pipes and devices are none, reading them may never end.

    Raises:
        BadInput: that cannot be found out.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def _find_ours(folder: Path) -> ModelSource:
    path = folder / MODEL_FILE
    content = read_json(path)
    try:
        model = ModelConfig.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{path}: {one_line(error)}") from None
    if not isinstance(model.net, ImageNet):
        raise BadInput(f"{path}: a {model.net.kind} network is no model of images")
    if isinstance(model.net, DiffusersUNetConfig):
        check_depth(model.net.config, path)
    weights = find_weights(folder / NET_FOLDER)
    _check(model, path, weights)
    return ModelSource(model, weights)


def _check(model: ModelConfig, described: Path, weights: Sequence[Path]) -> None:
    """Before anything is allocated: the network can be built, the weights' headers have its shapes,
    and it takes images of its size.

    Raises:
        BadInput: one of these does not hold.
    """
    net = built_without_numbers(lambda: build_net(model.net).eval(), described)
    check_weights(net, weights)
    size, channels = image_net(model).image_size, image_net(model).channels
    try:
        with torch.device("meta"), torch.no_grad():
            labels = torch.zeros(1, dtype=torch.long) if image_net(model).num_classes else None
            made = net(torch.zeros(1, channels, size, size), torch.zeros(1), labels)
    except Exception as error:  # other people's code on values that nobody checked
        raise BadInput(f"{described}: the network cannot be run: {reason(error)}") from None
    if made.shape[2:] != (size, size):
        raise BadInput(f"{described}: of {size} x {size} it makes {tuple(made.shape[2:])}")


def import_model(context: StageContext[ImportedModel]) -> dict[str, Any]:
    """Stage `import_model`: no inputs; reads what `execution.files.imported` names.

    Raises:
        BadInput: it is gone or another model, or its weights are of another architecture.
    """
    config, folder = context.config, context.execution.files.imported
    if folder is None:
        raise BadInput(
            "an imported model is no longer in the store: import it again by `sims model import`"
        )
    classes = getattr(config.model.net, "num_classes", None)
    source = find_model_source(folder, config.model.sigma_data, classes)
    if source.imported != config:
        raise BadInput(f"{folder} changed while it was imported: run the command again")
    net = build_net(config.model.net)
    load_weights(stored_module(net), source.read(), str(source.weights[0]))
    save_model(make_denoiser(net, config.model), config.model, context.directory)
    count = sum(parameter.numel() for parameter in net.parameters())
    return {"parameters": count, **({"file": source.details} if source.details else {})}
