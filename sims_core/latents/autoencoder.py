"""A diffusers `AutoencoderKL`, which turns images into latents and back, as an artifact.

Weights are read from safetensors only: nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from sims_core.common.digest import canonical_json
from sims_core.common.errors import BadInput
from sims_core.data.config import AutoencoderConfig, Contents
from sims_core.data.image_set import Scaling
from sims_core.engine.stage import StageContext
from sims_core.nets.diffusers_files import (
    check_depth,
    find_weights,
    own_arguments,
    read_json,
    read_weights,
    weights_sha256,
)
from sims_core.nets.files import WEIGHTS_FILE
from sims_core.nets.foreign import built_without_numbers, check_weights
from sims_core.nets.saved import load_weights

CONFIG_FILE = "autoencoder.json"


LATENT_STD = 0.5
"""Deviation of standardised latents: EDM's sigma_data, for which its noise levels are made."""


def _network_folder(folder: Path) -> Path:
    for candidate in (folder / "vae", folder):
        if (candidate / "config.json").exists():
            return candidate
    raise BadInput(
        f"{folder} has neither vae/config.json nor config.json: give a folder that diffusers saved "
        "an AutoencoderKL or a pipeline with one in"
    )


def find_autoencoder(folder: Path) -> AutoencoderConfig:
    """What lies in `folder` or, if it is a pipeline's, in its `vae`.

    Raises:
        BadInput: nothing of that kind, or one that does not give back the channels that it takes.
    """
    folder = _network_folder(folder)
    path = folder / "config.json"
    found = read_json(path)
    if (name := found.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
        raise BadInput(f"{path} describes a {name}: only AutoencoderKL can be imported")
    config = own_arguments(found, AutoencoderKL, path)
    check_depth(config, path)
    make: Any = AutoencoderKL  # diffusers' class is untyped
    network: Any = built_without_numbers(lambda: make(**config), path)
    whole = dict(network.config)
    if whole["in_channels"] != whole["out_channels"]:
        raise BadInput(
            f"{path}: out_channels {whole['out_channels']} are not in_channels "
            f"{whole['in_channels']}"
        )
    files = find_weights(folder)
    check_weights(network, files)
    return AutoencoderConfig(
        config=config,
        in_channels=whole["in_channels"],
        latent_channels=whole["latent_channels"],
        downsampling=2 ** (len(whole["block_out_channels"]) - 1),
        weights_sha256=weights_sha256(files),
    )


def check_images_fit(autoencoder: AutoencoderConfig, contents: Contents) -> None:
    """Raises BadInput if the autoencoder is for other images."""
    if contents.channels != autoencoder.in_channels:
        raise BadInput(
            f"the autoencoder is for images of {autoencoder.in_channels} channels, these have "
            f"{contents.channels}: import them with `channels` {autoencoder.in_channels}"
        )
    factor = autoencoder.downsampling
    if contents.height % factor or contents.width % factor or contents.height != contents.width:
        raise BadInput(
            f"the autoencoder wants square images of a multiple of {factor} pixels, these have "
            f"{contents.height} x {contents.width}: import them with `size` N"
        )


def images_of_raw_latents(
    autoencoder: AutoencoderConfig, count: int, num_classes: int, shape: tuple[int, int, int]
) -> Contents:
    """What raw latents are of.

    Args:
        shape: twice the channels, height and width of the latents.

    Raises:
        BadInput: the autoencoder has others.
    """
    channels, height, width = shape
    if channels != 2 * autoencoder.latent_channels or height != width:
        raise BadInput(
            f"the autoencoder has square latents of {autoencoder.latent_channels} channels, these "
            f"are means and deviations of {channels // 2} channels, {height} x {width}"
        )
    side = height * autoencoder.downsampling
    return Contents(
        count=count,
        channels=autoencoder.in_channels,
        height=side,
        width=side,
        num_classes=num_classes,
    )


def import_autoencoder(context: StageContext[AutoencoderConfig]) -> dict[str, Any]:
    """Stage `import_autoencoder`: no inputs; reads what `execution.files.imported` names.

    Raises:
        BadInput: it is gone or another one, or its weights are of another architecture.
    """
    config, folder = context.config, context.execution.files.imported
    if folder is None:
        raise BadInput(
            "the autoencoder is no longer in the store: store it again by `sims data encode`"
        )
    if find_autoencoder(folder) != config:
        raise BadInput(f"{folder} changed while it was imported: run the command again")
    network: Any = AutoencoderKL(**config.config)  # type: ignore[no-untyped-call]
    files = find_weights(_network_folder(folder))
    load_weights(network, read_weights(files), str(files[0]))
    network.save_config(context.directory)
    save_file(network.state_dict(), context.directory / WEIGHTS_FILE)
    (context.directory / CONFIG_FILE).write_text(canonical_json(config.model_dump(mode="json")))
    return {"parameters": sum(parameter.numel() for parameter in network.parameters())}


def autoencoder_config(context: StageContext[Any]) -> AutoencoderConfig:
    """The configuration of the input `autoencoder`."""
    path = context.open("autoencoder") / CONFIG_FILE
    return AutoencoderConfig.model_validate_json(path.read_bytes())


def open_autoencoder(context: StageContext[Any]) -> Any:
    """The input `autoencoder` on the execution's device, in evaluation mode, without gradients.

    It is an `AutoencoderKL`; diffusers' class is untyped.
    """
    path = context.open("autoencoder") / WEIGHTS_FILE
    network: Any = AutoencoderKL(**autoencoder_config(context).config)  # type: ignore[no-untyped-call]
    load_weights(network, load_file(path), str(path))
    return network.to(context.execution.device).eval().requires_grad_(False)


def own_scaling(autoencoder: Any) -> Scaling:
    """How diffusers' pipelines scale the latents of an `AutoencoderKL`.

    By latents_mean and latents_std where its configuration has them, else by shift_factor; and by
    scaling_factor.
    """
    config = autoencoder.config
    channels = config.latent_channels
    shift = config.latents_mean or [config.shift_factor or 0.0] * channels
    std = config.latents_std or [1.0] * channels
    return Scaling(
        shift=tuple(map(float, shift)),
        scale=tuple(config.scaling_factor / deviation for deviation in std),
    )
