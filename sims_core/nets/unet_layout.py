"""The U-Net that EDM's and EDM2's networks share, as a plan: which blocks, how wide, what joins.

The plan is made without torch, so that a configuration can be checked, and its parameters counted,
before anything is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Resampling = Literal["keep", "down", "up"]


@dataclass(frozen=True)
class BlockPlan:
    """One residual block."""

    name: str
    """As checkpoints name it within the encoder or the decoder: 16x16_block0."""
    level: int
    """Level of resolution: 0 is the finest."""
    in_channels: int
    """Channels that come in, those of the skip connection among them if there is one."""
    out_channels: int
    heads: int = 0
    """Heads of self-attention; 0 is none."""
    resample: Resampling = "keep"
    joins: bool = False
    """The newest output of the encoder that is not used yet is concatenated to the input."""


@dataclass(frozen=True)
class UNetLayout:
    """Blocks in the order in which they are evaluated."""

    resolutions: tuple[int, ...]
    """Height and width at each level, in pixels."""
    stem_channels: int
    """What the first convolution gives."""
    encoder: tuple[BlockPlan, ...]
    decoder: tuple[BlockPlan, ...]

    @property
    def blocks(self) -> tuple[BlockPlan, ...]:
        return self.encoder + self.decoder

    def decoder_at(self, level: int) -> list[BlockPlan]:
        """The blocks of one level of the decoder."""
        return [block for block in self.decoder if block.level == level]


@dataclass(frozen=True)
class LayoutRules:
    """What differs between the families."""

    stem_channels: int
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    heads: Callable[[int], int]
    """Attention heads of a block that attends, from its channels."""
    every_decoder_block_attends: bool
    """At the resolutions with attention; else only the last block of each."""


def plan_unet(image_size: int, widths: Sequence[int], rules: LayoutRules) -> UNetLayout:
    """The blocks of a U-Net.

    Each level has `num_blocks` blocks in the encoder and one more in the decoder, each of which
    takes one output of the encoder. The coarsest level has two blocks between them, the first with
    attention. Resolutions are halved and doubled by residual blocks of their own.

    Args:
        image_size: side of the square images; a multiple of 2 to the number of levels less one.
        widths: channels at each level, the finest first.
    """
    resolutions = tuple(image_size >> level for level in range(len(widths)))
    encoder, skips = _plan_encoder(resolutions, widths, rules)
    decoder = _plan_decoder(resolutions, widths, rules, skips)
    return UNetLayout(resolutions, rules.stem_channels, tuple(encoder), tuple(decoder))


def _plan_encoder(
    resolutions: Sequence[int], widths: Sequence[int], rules: LayoutRules
) -> tuple[list[BlockPlan], list[int]]:
    """The encoder's blocks, and the channels of each of its outputs."""
    blocks: list[BlockPlan] = []
    channels = rules.stem_channels
    for level, (size, width) in enumerate(zip(resolutions, widths, strict=True)):
        if level > 0:
            name = f"{size}x{size}_down"
            blocks.append(BlockPlan(name, level, channels, channels, resample="down"))
        heads = rules.heads(width) if size in rules.attn_resolutions else 0
        for index in range(rules.num_blocks):
            name = f"{size}x{size}_block{index}"
            blocks.append(BlockPlan(name, level, channels, width, heads))
            channels = width
    return blocks, [rules.stem_channels, *(block.out_channels for block in blocks)]


def _plan_decoder(
    resolutions: Sequence[int], widths: Sequence[int], rules: LayoutRules, skips: list[int]
) -> list[BlockPlan]:
    """The decoder's blocks, coarsest level first. Takes its skip connections from `skips`."""
    blocks: list[BlockPlan] = []
    channels = widths[-1]
    for level in reversed(range(len(widths))):
        size, width = resolutions[level], widths[level]
        if level == len(widths) - 1:
            heads = rules.heads(channels)
            blocks.append(BlockPlan(f"{size}x{size}_in0", level, channels, channels, heads))
            blocks.append(BlockPlan(f"{size}x{size}_in1", level, channels, channels))
        else:
            name = f"{size}x{size}_up"
            blocks.append(BlockPlan(name, level, channels, channels, resample="up"))
        for index in range(rules.num_blocks + 1):
            attends = size in rules.attn_resolutions and (
                rules.every_decoder_block_attends or index == rules.num_blocks
            )
            heads = rules.heads(width) if attends else 0
            name = f"{size}x{size}_block{index}"
            joined = channels + skips.pop()
            blocks.append(BlockPlan(name, level, joined, width, heads, joins=True))
            channels = width
    return blocks


def group_count(channels: int) -> int:
    """Groups of a group normalisation in EDM's networks: of four channels each, at most 32."""
    return min(32, channels // 4)


def linear_parameters(inputs: int, outputs: int, bias: bool = True) -> int:
    """Parameters of a linear layer, or of a convolution with `inputs` = channels times taps."""
    return outputs * (inputs + bias)


def residual_parameters(
    block: BlockPlan, embedding: int, adaptive_scale: bool, projects_resampled: bool
) -> int:
    """Parameters of one residual block of DDPM++, NCSN++ or ADM (`nets.layers.ResidualBlock`)."""
    inputs, outputs = block.in_channels, block.out_channels
    total = 2 * inputs + linear_parameters(9 * inputs, outputs)
    total += linear_parameters(embedding, outputs * (2 if adaptive_scale else 1))
    total += 2 * outputs + linear_parameters(9 * outputs, outputs)
    if inputs != outputs or (block.resample != "keep" and projects_resampled):
        total += linear_parameters(inputs, outputs)
    if block.heads:
        total += 2 * outputs + linear_parameters(outputs, 3 * outputs)
        total += linear_parameters(outputs, outputs)
    return total
