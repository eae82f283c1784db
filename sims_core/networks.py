"""Raw networks F built from configuration, initialised from a generator, stored as safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sims_core.augmentation import AUGMENT_LABELS
from sims_core.config import (
    IMAGE_NETS,
    DiffusersUNetConfig,
    ExactGaussianConfig,
    ImageNet,
    MLPConfig,
    ModelConfig,
    NetConfig,
    UNetConfig,
)
from sims_core.denoiser import EDMDenoiser, NetDenoiser, per_sample
from sims_core.digest import canonical_json
from sims_core.dropout import seed_dropouts
from sims_core.errors import BadInput
from sims_core.vp import VPDenoiser

NET_FOLDER = "net"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # the name that diffusers reads
MODEL_FILE = "model.json"


class ReplicatedLinear(nn.Module):
    """R linear layers at once: x [R, N, in] to [R, N, out]."""

    def __init__(self, replicates: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(replicates, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(replicates, out_features))
        for parameter in (self.weight, self.bias):  # torch's default, as nn.Linear's
            nn.init.uniform_(parameter, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class MLP(nn.Module):
    """R SiLU perceptrons on (x, c_noise), one a replicate.

    x is [R, N, dim], or [N, dim] if R = 1; c_noise is of x's leading shape ([R] or [R, N]).
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        widths = [config.dim + 1, *[config.hidden_features] * config.hidden_layers]
        self.hidden = nn.ModuleList(
            ReplicatedLinear(config.replicates, before, after)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.out = ReplicatedLinear(config.replicates, widths[-1], config.dim)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        level = per_sample(c_noise, x).expand(*x.shape[:-1], 1)
        features = torch.cat([x, level], dim=-1)
        features = features if x.dim() == 3 else features[None]
        for layer in self.hidden:
            features = F.silu(layer(features), inplace=not torch.is_grad_enabled())
        result: Tensor = self.out(features)
        return result if x.dim() == 3 else result[0]


def unet_arguments(config: UNetConfig) -> dict[str, Any]:
    """Arguments of `UNet2DModel` for one of our networks."""
    levels = range(len(config.block_out_channels))
    attends = ["Attn" if level in config.attention_levels else "" for level in levels]
    return {
        "sample_size": config.image_size,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "block_out_channels": config.block_out_channels,
        "layers_per_block": config.layers_per_block,
        "down_block_types": tuple(f"{prefix}DownBlock2D" for prefix in attends),
        "up_block_types": tuple(f"{prefix}UpBlock2D" for prefix in reversed(attends)),
        "add_attention": bool(config.attention_levels),
        "attention_head_dim": config.attention_head_dim,
        "norm_num_groups": config.norm_num_groups,
        "num_class_embeds": config.num_classes or None,
        "dropout": config.dropout,
    }


class AugmentLabels:
    """What a network is told of how the images of the batch at hand were augmented."""

    def __init__(self) -> None:
        self.labels: Tensor | None = None
        """[N, AUGMENT_LABELS]; to be set before each forward pass in training."""


class ToldEmbedding(TimestepEmbedding):
    """The embedding of c_noise, and in training of augmentation labels, as EDM adds them.

    Without a bias: labels of zero, which is how the network is sampled, add nothing, so that
    `UNet2DModel` needs to know nothing of them.
    """

    def __init__(self, embedding: TimestepEmbedding, told: AugmentLabels) -> None:
        first: nn.Linear = embedding.linear_1
        super().__init__(first.in_features, first.out_features, cond_proj_dim=AUGMENT_LABELS)
        self.told = told

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        embedded: Tensor = super().forward(sample, self.told.labels if self.training else None)
        return embedded


class UNet(nn.Module):
    """diffusers' U-Net behind F's signature; c_noise goes through its positional embedding.

    An imported one takes its own timesteps in the place of c_noise.
    """

    def __init__(self, config: ImageNet) -> None:
        super().__init__()
        if isinstance(config, DiffusersUNetConfig):
            arguments, self.noise_scale = config.config, 1.0
        else:
            arguments, self.noise_scale = unet_arguments(config), C_NOISE_SCALE
        # diffusers' class is untyped once its mixins come in.
        unet: Any = UNet2DModel(**arguments)  # type: ignore[no-untyped-call]
        self.unet = unet
        self.dropout = seed_dropouts(self)
        self.told = AugmentLabels()
        if config.augment_labels:
            unet.time_embedding = ToldEmbedding(unet.time_embedding, self.told)
        # oneDNN's convolutions run up to 1.6 times faster on small CPUs with channels last.
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> UNet:
        """As every module's, but diffusers' residual blocks do not learn of it.

        All that they do in training is to copy their input out of the channels-last format, for 8 %
        of a step's time on a CPU; the values are the same. Dropouts are modules of their own.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                module.training = False
        return self

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        result: Tensor = self.unet(x, c_noise * self.noise_scale, labels).sample
        return result


C_NOISE_SCALE = 250.0
"""The embedding's frequencies are made for timesteps 0..1000; c_noise spans about -2..1."""


def build_net(config: NetConfig) -> nn.Module:
    """The network with torch's own random weights: call `initialise` for reproducible ones."""
    if isinstance(config, MLPConfig):
        return MLP(config)
    if isinstance(config, ExactGaussianConfig):
        raise BadInput(f"{config.kind} is not a network")
    return UNet(config)


def image_net(config: ModelConfig) -> ImageNet:
    """The network of a model of images.

    Raises:
        BadInput: it is one of points.
    """
    if not isinstance(config.net, IMAGE_NETS):
        raise BadInput(f"images need a U-Net, the model is {config.net.kind!r}")
    return config.net


def make_denoiser(net: nn.Module, config: ModelConfig) -> NetDenoiser:
    """The preconditioning that the configuration says, round `net`."""
    if config.schedule is None:
        return EDMDenoiser(net, config.sigma_data)
    return VPDenoiser(net, config.sigma_data, config.schedule)


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

    Args:
        generators: one, or for a replicated network one a replicate: replicate r depends on
            generator r alone, however many there are.

    Raises:
        TypeError: a layer with parameters of its own that this function does not know.
    """
    generator = generators[0]
    last = net.unet.conv_out if isinstance(net, UNet) else getattr(net, "out", None)
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


def stored_module(net: nn.Module) -> nn.Module:
    """What is written to disk: diffusers' own network without our wrapper."""
    module: nn.Module = net.unet if isinstance(net, UNet) else net
    return module


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies `weights` into `module`.

    Raises:
        BadInput: they are of another architecture; names the first difference.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            raise BadInput(f"{source}: weights of another architecture: {name} is missing")
        if weights[name].shape != tensor.shape:
            raise BadInput(
                f"{source}: weights of another architecture: {name} is of shape "
                f"{list(weights[name].shape)}, the network's is {list(tensor.shape)}"
            )
    if extra := [name for name in weights if name not in wanted]:
        raise BadInput(f"{source}: weights of another architecture: no {extra[0]} in the network")
    module.load_state_dict(weights)


def save_model(denoiser: NetDenoiser, config: ModelConfig, folder: Path) -> None:
    """Writes model.json and net/, which `UNet2DModel.from_pretrained` opens if it is a U-Net."""
    net_folder = folder / NET_FOLDER
    net_folder.mkdir()
    (folder / MODEL_FILE).write_text(canonical_json(config.model_dump(mode="json")))
    if isinstance(denoiser.net, UNet):
        denoiser.net.unet.save_config(net_folder)
    stored = stored_module(denoiser.net)
    weights = {name: tensor.contiguous() for name, tensor in stored.state_dict().items()}
    save_file(weights, net_folder / WEIGHTS_FILE)


def read_model_config(folder: Path) -> ModelConfig:
    """Of what `save_model` wrote."""
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
