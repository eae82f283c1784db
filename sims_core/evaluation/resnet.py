"""The CIFAR ResNets of He et al. 2016 (section 4.2): 6n + 2 layers, option-A shortcuts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of each channel, for pixels in [0, 1], that the stored weights expect."""


class Block(nn.Module):
    """Two convolutions beside a shortcut without parameters.

    Where the block halves the resolution the shortcut takes every second pixel and pads the new
    channels with zeros, half of them on each side (option A).
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (after - before) // 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        shortcut = x
        if self.stride > 1:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(residual.add_(shortcut), inplace=True)


def _layer(before: int, after: int, blocks: int) -> nn.Sequential:
    stride = 1 if before == after else 2
    rest = (Block(after, after, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(before, after, stride), *rest)


class CifarResNet(nn.Module):
    """Input: uint8 or float [N, 3, H, W] in 0..255, any H and W (trained on 32 x 32)."""

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _layer(16, 16, blocks)
        self.layer2 = _layer(16, 32, blocks)
        self.layer3 = _layer(32, 64, blocks)
        self.linear = nn.Linear(64, num_classes)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    mean: Tensor
    std: Tensor

    def features(self, x: Tensor) -> Tensor:
        """[N, 64], float32: the mean over the image of the last convolution's channels."""
        x = (x / 255 - self.mean) / self.std
        x = self.layer1(F.relu(self.bn1(self.conv1(x)), inplace=True))
        features: Tensor = self.layer3(self.layer2(x)).mean((2, 3))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x))
        return logits
