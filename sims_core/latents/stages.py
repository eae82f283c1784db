"""Stages between images and the latents of an autoencoder."""

from __future__ import annotations

from typing import Any

from sims_core.data.config import (
    RAW_LATENTS,
    AutoencoderConfig,
    EncodeConfig,
    Encoding,
    ImageData,
    ImportConfig,
    ImportedSet,
)
from sims_core.data.names import images_of
from sims_core.data.stages import data_request
from sims_core.engine.stage import Stage
from sims_core.latents.config import DecodeConfig
from sims_core.store.artifacts import ArtifactRef, StageRequest

IMPORT_AUTOENCODER = Stage(
    "import_autoencoder",
    1,
    "autoencoder",
    AutoencoderConfig,
    "sims_core.latents.autoencoder:import_autoencoder",
)
ENCODE = Stage(
    "encode", 1, "latents", EncodeConfig, "sims_core.latents.coding:encode", accelerated=True
)
DECODE = Stage(
    "decode", 1, "images", DecodeConfig, "sims_core.latents.coding:decode", accelerated=True
)

STAGES: tuple[Stage[Any], ...] = (IMPORT_AUTOENCODER, ENCODE, DECODE)


def encode_request(images: ArtifactRef, encoding: Encoding) -> StageRequest:
    """What turns the images into latents."""
    autoencoder = IMPORT_AUTOENCODER.request(encoding.autoencoder).ref
    return ENCODE.request(encoding.encode, images=images, autoencoder=autoencoder)


def modelled_by(dataset: ImportedSet) -> ArtifactRef:
    """The artifact that networks of a set are trained on: its images or their latents."""
    images = images_of(dataset)
    return images if dataset.encoding is None else encode_request(images, dataset.encoding).ref


def decode_request(data: ImageData) -> StageRequest:
    """What decodes the latents of encoded data: their images, as metrics see them."""
    decoder = decoder_of(data)
    return DECODE.request(DecodeConfig(), latents=decoder["encoded"], **decoder)


def has_images(data: ImageData) -> bool:
    """Whether the real images are there; of raw latents there are only decoded ones."""
    config = data.stage_config
    return not isinstance(config, ImportConfig) or config.layout != RAW_LATENTS


def decoder_of(data: ImageData) -> dict[str, ArtifactRef]:
    """What decodes latents of the data, as inputs of a stage; nothing for images."""
    if (encoding := data.encoding) is None:
        return {}
    autoencoder = IMPORT_AUTOENCODER.request(encoding.autoencoder).ref
    return {
        "autoencoder": autoencoder,
        "encoded": encode_request(data_request(data).ref, encoding).ref,
    }
