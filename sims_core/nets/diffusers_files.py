"""diffusers' folders: their configuration, schedule and weights."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DModel
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.diffusion.config import NoiseSchedule
from sims_core.nets.config import DiffusersUNetConfig
from sims_core.nets.files import WEIGHTS_FILE

SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
"""Those that share DDPM's discrete betas."""


OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the parts of attention before 0.15, to what it calls them."""


def read_json(path: Path) -> dict[str, Any]:
    """Raises BadInput unless the file is a JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} must be a JSON object")
    return content


def own_arguments(found: Mapping[str, Any], network: type, path: Path) -> dict[str, Any]:
    """What a config.json says of a diffusers network, without the library's private entries.

    Raises:
        BadInput: the network has no such argument.
    """
    known = inspect.signature(network).parameters
    config = {key: value for key, value in found.items() if not key.startswith("_")}
    if unknown := [key for key in config if key not in known]:
        raise BadInput(f"{path}: {network.__name__} has no argument {unknown[0]!r}")
    return config


def _net_config(path: Path) -> DiffusersUNetConfig:
    found = read_json(path)
    if (name := found.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise BadInput(f"{path} describes a {name}: only UNet2DModel can be imported")
    known = inspect.signature(UNet2DModel.__init__).parameters
    config = own_arguments(found, UNet2DModel, path)
    channels, out = (config.get(key, known[key].default) for key in ("in_channels", "out_channels"))
    if channels != out:
        raise BadInput(f"{path}: out_channels {out} are not in_channels {channels}: a learned "
                       "variance cannot be imported")  # fmt: skip
    size = config.get("sample_size")
    sizes = {*size} if isinstance(size, list) else {size}
    if len(sizes) != 1 or not isinstance(size := sizes.pop(), int):
        raise BadInput(f"{path}: sample_size must be the size of square images, got {size}")
    for key, wanted in (("time_embedding_type", "positional"), ("class_embed_type", None)):
        if (value := config.get(key, known[key].default)) != wanted:
            raise BadInput(f"{path}: {key} must be {wanted or 'none'}, got {value!r}")
    return DiffusersUNetConfig(
        image_size=size,
        channels=channels,
        num_classes=config.get("num_class_embeds") or 0,
        config=config,
    )


def _schedule(folder: Path) -> NoiseSchedule:
    name = "scheduler_config.json"
    path = next((p for p in (folder / "scheduler" / name, folder / name) if p.exists()), None)
    if path is None:
        raise BadInput(f"{folder} has neither scheduler/{name} nor {name}: they say what the "
                       "network predicts at which noise")  # fmt: skip
    found = read_json(path)
    if (kind := found.get("_class_name")) not in SCHEDULERS:
        raise BadInput(f"{path}: scheduler {kind} is none of {', '.join(SCHEDULERS)}")
    if found.get("trained_betas") is not None:
        raise BadInput(f"{path}: trained_betas cannot be imported, only a beta_schedule")
    fields = {key: value for key, value in found.items() if key in NoiseSchedule.model_fields}
    try:
        return NoiseSchedule.model_validate(fields)
    except ValidationError as error:
        raise BadInput(f"{path}: {one_line(error)}") from None


def find_weights_file(folder: Path) -> Path:
    """The network's safetensors in a folder that diffusers wrote.

    Raises:
        BadInput: it has none, or a pickle.
    """
    path = folder / WEIGHTS_FILE
    if path.exists():
        return path
    others = [p.name for p in sorted(folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth")]
    if others:
        raise BadInput(
            f"{folder / others[0]} is a pickle, which could run any code: convert it where you "
            f"trust it, by from_pretrained({str(folder)!r}, use_safetensors=False)"
            ".save_pretrained(...) of its class in diffusers"
        )
    raise BadInput(f"{folder} has no {WEIGHTS_FILE}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict under the names that diffusers has for its parts now.

    Raises:
        BadInput: the file is cut or no safetensors, or a number is not finite.
    """
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is no whole safetensors file: {error}") from None
    if bad := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise BadInput(f"{path}: {bad[0]} is not finite: what was saved had diverged")
    return {_new_name(name): tensor for name, tensor in weights.items()}


def _new_name(name: str) -> str:
    if ".attentions." not in name:
        return name
    *path, part, kind = name.split(".")
    return ".".join([*path, OLD_NAMES.get(part, part), kind])
