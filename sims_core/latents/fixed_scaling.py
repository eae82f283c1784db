"""Latents scaled by fixed numbers, as EDM2's networks were trained (arXiv 2312.02696)."""

from __future__ import annotations

from sims_core.common.errors import BadInput
from sims_core.data.config import AutoencoderConfig, EncodeConfig
from sims_core.nets.names import MODELS
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.store.store import Store

RAW_MEAN = (5.81, 3.25, 0.12, -2.15)
"""Of the latents of Stable Diffusion's autoencoder over ImageNet-512, by channel."""
RAW_STD = (4.17, 4.62, 3.71, 3.28)
FINAL_STD = 0.5
"""The deviation that networks see; the mean is 0."""


def edm2_scaling(seed: int = 0) -> EncodeConfig:
    """EDM2's: from the raw mean and deviation to mean 0 and deviation 0.5."""
    scale = tuple(FINAL_STD / std for std in RAW_STD)
    return EncodeConfig(scaling="fixed", shift=RAW_MEAN, scale=scale, seed=seed)


def scaling_of(store: Store, model: str, seed: int = 0) -> EncodeConfig:
    """The scaling that the file of an imported model says: (latents - shift) * scale.

    Raises:
        BadInput: there is no such model, or its file says nothing of latents.
    """
    ref = IMPORT_MODEL.request(MODELS.find(store, model)).ref
    details = store.manifest(ref).details if store.path(ref).exists() else {}
    found = details.get("file", {}).get("latent_scaling")
    if found is None:
        raise BadInput(
            f"`scaling_of` {model}: its file has no encoder that scales latents; say how by "
            "`scaling`"
        )
    pairs = list(zip(found["scale"], found["bias"], strict=True))
    return EncodeConfig(
        scaling="fixed",
        shift=tuple(-bias / scale for scale, bias in pairs),
        scale=tuple(scale for scale, _ in pairs),
        seed=seed,
    )


def check_channels(config: EncodeConfig, autoencoder: AutoencoderConfig) -> None:
    """Raises BadInput if the scaling is for latents of other channels."""
    if config.scale and len(config.scale) != autoencoder.latent_channels:
        raise BadInput(
            f"the scaling is for latents of {len(config.scale)} channels, the autoencoder's have "
            f"{autoencoder.latent_channels}"
        )
