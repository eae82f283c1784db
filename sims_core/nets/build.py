"""Raw networks F built from configuration, initialised from a generator, stored as safetensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from sims_core.common.errors import BadInput
from sims_core.diffusion.ddpm import VPDenoiser
from sims_core.diffusion.denoiser import EDMDenoiser, NetDenoiser
from sims_core.nets.config import ImageNet, ModelConfig, Net
from sims_core.nets.mlp import ReplicatedLinear
from sims_core.nets.preconditioning import IDDPMPreconditioned, precondition
from sims_core.nets.preconditioning_config import IDDPMPreconditioning


def build_net(config: Net) -> nn.Module:
    """The network with torch's own random weights: call `initialise` for reproducible ones.

    Raises:
        BadInput: it is a model without a network.
    """
    if not hasattr(config, "BUILT_BY"):
        raise BadInput(f"{config.kind} is not a network")
    net: nn.Module = resolve_name(config.BUILT_BY)(config)
    return net


def image_net(config: ModelConfig) -> ImageNet:
    """The network of a model of images.

    Raises:
        BadInput: it is one of points.
    """
    if not isinstance(config.net, ImageNet):
        raise BadInput(f"images need a U-Net, the model is {config.net.kind!r}")
    return config.net


def make_denoiser(net: nn.Module, config: ModelConfig) -> NetDenoiser:
    """The preconditioning that the configuration says, round `net`."""
    if config.conditioned is not None:
        return precondition(net, config.conditioned, config.sigma_data)
    if config.schedule is None:
        return EDMDenoiser(net, config.sigma_data)
    return VPDenoiser(net, config.sigma_data, config.schedule)


def round_to_known(config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """What takes noise levels to the nearest that the model knows: iDDPM's knows a few, all others
    know every one."""
    known = config.conditioned
    if not isinstance(known, IDDPMPreconditioning):
        return lambda sigma: sigma
    return IDDPMPreconditioned(nn.Identity(), config.sigma_data, known).round_sigma


def _initialise_replicates(layer: ReplicatedLinear, generators: Sequence[torch.Generator]) -> None:
    """torch's default for each replicate's layer: uniform within 1 / sqrt(fan in)."""
    bound = 1 / math.sqrt(layer.weight.shape[1])
    for replicate, generator in enumerate(generators):
        layer.weight[replicate].uniform_(-bound, bound, generator=generator)
        layer.bias[replicate].uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def initialise(net: nn.Module, *generators: torch.Generator) -> None:
    """PyTorch's default initialisation drawn from a generator instead of the global state.

    The last layer is set to zero, so that training starts at D(x; sigma) = c_skip x, as EDM's does.
    A network that has initial weights of its own draws those.

    Args:
        generators: one, or for a replicated network one a replicate: replicate r depends on
            generator r alone, however many there are.

    Raises:
        TypeError: a layer with parameters of its own that this function does not know.
    """
    generator = generators[0]
    own_way: Callable[[torch.Generator], None] | None = getattr(net, "initialise", None)
    if own_way is not None:
        own_way(generator)
        return
    last = getattr(net, "last_layer", None)
    for name, module in net.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, ReplicatedLinear):
            _initialise_replicates(module, generators)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
            module.reset_parameters()
        else:
            raise TypeError(f"no initialisation for {name}: {type(module).__name__}")
        if module is last:
            for parameter in own.values():
                nn.init.zeros_(parameter)
