"""Builds EDM's and EDM2's networks from their configuration."""

from __future__ import annotations

import contextlib

import torch

from sims_core.nets.adm import ADM
from sims_core.nets.edm2 import EDM2UNet
from sims_core.nets.edm_config import ADMConfig, EDMNet, SongUNetConfig
from sims_core.nets.song import SongUNet

EDMNetwork = SongUNet | ADM | EDM2UNet


def build_edm_network(config: EDMNet, device: str | None = None) -> EDMNetwork:
    """The network with random weights: call its `initialise` for reproducible ones.

    Args:
        device: where it is built; "meta" gives shapes without memory.
    """
    with torch.device(device) if device else contextlib.nullcontext():
        if isinstance(config, SongUNetConfig):
            return SongUNet(config)
        if isinstance(config, ADMConfig):
            return ADM(config)
        return EDM2UNet(config)
