"""Models as files: safetensors beside JSON, as diffusers reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sims_core.common.digest import canonical_json
from sims_core.common.errors import BadInput
from sims_core.diffusion.denoiser import NetDenoiser
from sims_core.nets.build import build_net, make_denoiser
from sims_core.nets.config import (
    ModelConfig,
)
from sims_core.nets.files import MODEL_FILE, NET_FOLDER, WEIGHTS_FILE


def stored_module(net: nn.Module) -> nn.Module:
    """What of a network is written to disk: its `stored` part, if it has one, else all of it."""
    module: nn.Module = getattr(net, "stored", net)
    return module


def check_shapes(
    wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], source: str
) -> None:
    """Raises BadInput unless weights have the names and shapes of a network's; names the first
    difference."""
    for name, shape in wanted.items():
        if name not in found:
            raise BadInput(f"{source}: weights of another architecture: {name} is missing")
        if tuple(found[name]) != tuple(shape):
            raise BadInput(
                f"{source}: weights of another architecture: {name} is of shape "
                f"{list(found[name])}, the network's is {list(shape)}"
            )
    if extra := [name for name in found if name not in wanted]:
        raise BadInput(f"{source}: weights of another architecture: no {extra[0]} in the network")


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies `weights` into `module`.

    Raises:
        BadInput: they are of another architecture; names the first difference.
    """
    shapes, found = (
        {name: tensor.shape for name, tensor in each.items()}
        for each in (module.state_dict(), weights)
    )
    check_shapes(shapes, found, source)
    module.load_state_dict(weights)


def save_model(denoiser: NetDenoiser, config: ModelConfig, folder: Path) -> None:
    """Writes model.json and net/, which `UNet2DModel.from_pretrained` opens if it is a U-Net."""
    net_folder = folder / NET_FOLDER
    net_folder.mkdir()
    (folder / MODEL_FILE).write_text(canonical_json(config.model_dump(mode="json")))
    write_config: Any = getattr(denoiser.net, "write_config", None)
    if write_config is not None:
        write_config(net_folder)
    stored = stored_module(denoiser.net)
    weights = {name: tensor.contiguous() for name, tensor in stored.state_dict().items()}
    save_file(weights, net_folder / WEIGHTS_FILE)


def read_model_config(folder: Path) -> ModelConfig:
    """The configuration in a folder that `save_model` wrote."""
    return ModelConfig.model_validate_json((folder / MODEL_FILE).read_bytes())


def load_model(folder: Path, device: str = "cpu") -> tuple[NetDenoiser, ModelConfig]:
    """Reads what `save_model` wrote, in evaluation mode, without gradients.

    Raises:
        BadInput: the weights are not those of the network in model.json.
    """
    config = read_model_config(folder)
    net = build_net(config.net)
    path = folder / NET_FOLDER / WEIGHTS_FILE
    load_weights(stored_module(net), load_file(path), str(path))
    denoiser = make_denoiser(net, config).to(device)
    return denoiser.eval().requires_grad_(False), config
