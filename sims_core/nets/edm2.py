"""EDM2's magnitude-preserving network (arXiv 2312.02696, config G; equations of its appendix B).

Parameters have the names that EDM2's checkpoints give them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sims_core.nets.dropout import seed_dropouts
from sims_core.nets.edm_config import EDM2Config
from sims_core.nets.layers import (
    AugmentLabels,
    Resample,
    Told,
    attend,
    class_rows,
    split_heads,
)
from sims_core.nets.unet_layout import BlockPlan

EPS = 1e-4
"""Added to a root mean square before it is divided by."""
SILU_MAGNITUDE = 0.596
"""Root mean square of SiLU of a standard normal (Eq. 81)."""


def normalise(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x divided by its root mean square over `dim`."""
    # The norm is accumulated in float32 where activations are half precision.
    kind = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=kind)
    rms = norm * math.sqrt(norm.numel() / x.numel())
    return x / (EPS + rms).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU that keeps the magnitude of a standard normal (Eq. 81)."""
    return F.silu(x) / SILU_MAGNITUDE


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a and b with weights 1 - t and t, of the magnitude of each (Eq. 88)."""
    return torch.lerp(a, b, t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_concat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of a and b, contributing as 1 - t and t to the magnitude (Eq. 103)."""
    first, second = a.shape[1], b.shape[1]
    scale = math.sqrt((first + second) / ((1 - t) ** 2 + t**2))
    a = a * (scale * (1 - t) / math.sqrt(first))
    return torch.cat([a, b * (scale * t / math.sqrt(second))], dim=1)


class MPFourier(nn.Module):
    """Cosines of c_noise at random frequencies and phases that are drawn once, of unit variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.freqs: Tensor
        self.phases: Tensor
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def draw(self, generator: torch.Generator) -> None:
        """Frequencies and phases from a generator."""
        self.freqs.normal_(0, 2 * math.pi, generator=generator)
        self.phases.uniform_(0, 2 * math.pi, generator=generator)

    def forward(self, c_noise: Tensor) -> Tensor:
        """c_noise [N] to [N, channels]."""
        phases = c_noise[:, None] * self.freqs.to(c_noise) + self.phases.to(c_noise)
        return phases.cos() * math.sqrt(2)


class MPWeights(nn.Module):
    """A linear layer (kernel 0) or convolution without bias that keeps the magnitude of its input.

    Every output's weights count with unit magnitude (Eq. 66). In training the stored ones are set
    to it too, before they are used (forced weight normalisation, Algorithm 1), so that optimiser
    steps turn them by an angle that does not shrink as training goes on.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        taps = (kernel, kernel) if kernel else ()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *taps))

    @property
    def fan_in(self) -> int:
        """Inputs of each output."""
        return self.weight[0].numel()

    @torch.no_grad()
    def force_norm(self) -> None:
        """Sets the stored weights of every output to unit magnitude."""
        self.weight.copy_(normalise(self.weight, tuple(range(1, self.weight.dim()))))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """x [N, inputs] or [N, inputs, H, W], times `gain`."""
        if self.training:
            self.force_norm()
        weight = normalise(self.weight, tuple(range(1, self.weight.dim())))
        weight = (weight * (gain / math.sqrt(self.fan_in))).to(x.dtype)
        if weight.dim() == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class MPBlock(nn.Module):
    """EDM2's residual block, with cosine self-attention after it where planned.

    Args:
        in_encoder: the encoder normalises its pixels and projects them before the branch; the
            decoder projects the shortcut alone.
    """

    def __init__(self, plan: BlockPlan, config: EDM2Config, in_encoder: bool) -> None:
        super().__init__()
        inputs, outputs = plan.in_channels, plan.out_channels
        self.config, self.heads, self.in_encoder = config, plan.heads, in_encoder
        self.resample = Resample(plan.resample, config.resample_filter)
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPWeights(outputs if in_encoder else inputs, outputs, 3)
        self.emb_linear = MPWeights(config.embedding, outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_res1 = MPWeights(outputs, outputs, 3)
        self.conv_skip = MPWeights(inputs, outputs, 1) if inputs != outputs else None
        if plan.heads:
            self.attn_qkv = MPWeights(outputs, 3 * outputs, 1)
            self.attn_proj = MPWeights(outputs, outputs, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """x [N, in_channels, H, W] and embedded [N, embedding] to [N, out_channels, H', W']."""
        config = self.config
        x = self.resample(x)
        if self.in_encoder:
            x = normalise(self._projected(x), 1)
        branch = self.conv_res0(mp_silu(x))
        scale = self.emb_linear(embedded, self.emb_gain) + 1
        branch = mp_silu(branch * scale[:, :, None, None].to(branch.dtype))
        branch = self.conv_res1(self.dropout(branch))
        if not self.in_encoder:
            x = self._projected(x)
        x = mp_sum(x, branch, config.res_balance)
        if self.heads:
            x = mp_sum(x, self._attended(x), config.attn_balance)
        return x if config.clip_act is None else x.clamp(-config.clip_act, config.clip_act)

    def _projected(self, x: Tensor) -> Tensor:
        return x if self.conv_skip is None else self.conv_skip(x)

    def _attended(self, x: Tensor) -> Tensor:
        parts = normalise(split_heads(self.attn_qkv(x), self.heads), 2)
        q, k, v = parts.unbind(3)
        result: Tensor = self.attn_proj(attend(q, k, v).reshape(x.shape))
        return result


class EDM2UNet(Told):
    """F(x [N, channels, H, W], c_noise [N], labels) -> [N, channels, H, W].

    labels are class indices [N], rows [N, num_classes] or None. The network carries u(sigma) along,
    the logarithm of the loss's scale at a noise level (`log_variance`), which only training needs.
    """

    def __init__(self, config: EDM2Config) -> None:
        super().__init__()
        self.config = config
        layout = self.layout = config.layout
        embedding = config.embedding
        self.emb_fourier = MPFourier(config.noise_channels)
        self.emb_noise = MPWeights(config.noise_channels, embedding)
        if config.num_classes:
            self.emb_label = MPWeights(config.num_classes, embedding)
        self.stem = f"{config.image_size}x{config.image_size}_conv"
        self.enc = nn.ModuleDict(
            {self.stem: MPWeights(config.channels + 1, layout.stem_channels, 3)}
        )
        self.enc.update({plan.name: MPBlock(plan, config, True) for plan in layout.encoder})
        self.dec = nn.ModuleDict(
            {plan.name: MPBlock(plan, config, False) for plan in layout.decoder}
        )
        self.out_conv = MPWeights(config.widths[0], config.channels, 3)
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.logvar_fourier = MPFourier(config.logvar_channels)
        self.logvar_linear = MPWeights(config.logvar_channels, 1)
        self.dropout = seed_dropouts(self)
        self.told = AugmentLabels()  # of none: nothing in the network looks at them

    def embed(self, c_noise: Tensor, labels: Tensor | None, x: Tensor) -> Tensor:
        """What every block is told: [N, embedding]."""
        config = self.config
        embedded: Tensor = self.emb_noise(self.emb_fourier(c_noise))
        rows = class_rows(labels, config.num_classes, x)
        if config.num_classes:
            told = self.emb_label(rows * math.sqrt(config.num_classes))
            embedded = mp_sum(embedded, told, config.label_balance)
        return mp_silu(embedded)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        layout, embedded = self.layout, self.embed(c_noise, labels, x)
        # A channel of ones stands for the biases that the layers do not have.
        x = self.enc[self.stem](torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for plan in layout.encoder:
            x = self.enc[plan.name](x, embedded)
            skips.append(x)
        for plan in layout.decoder:
            if plan.joins:
                x = mp_concat(x, skips.pop(), self.config.concat_balance)
            x = self.dec[plan.name](x, embedded)
        result: Tensor = self.out_conv(x, self.out_gain)
        return result

    def log_variance(self, c_noise: Tensor) -> Tensor:
        """u(sigma) at c_noise [N]: [N]."""
        result: Tensor = self.logvar_linear(self.logvar_fourier(c_noise))
        return result.squeeze(1)

    def force_norms(self) -> None:
        """Sets all stored weights to unit magnitude, as every pass in training does."""
        for module in self.modules():
            if isinstance(module, MPWeights):
                module.force_norm()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """EDM2's initial weights: standard normal; gains zero."""
        for module in self.modules():
            if isinstance(module, MPFourier):
                module.draw(generator)
            elif isinstance(module, MPWeights):
                nn.init.normal_(module.weight, generator=generator)
            elif isinstance(module, MPBlock):
                nn.init.zeros_(module.emb_gain)
        nn.init.zeros_(self.out_gain)
