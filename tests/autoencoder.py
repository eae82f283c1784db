"""A tiny random autoencoder, as diffusers saves one."""

from __future__ import annotations

from pathlib import Path


def save(folder: Path) -> None:
    """Writes an AutoencoderKL for grey images, 2 pixels a latent, to `folder`/vae."""
    import torch
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = AutoencoderKL(
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=2,
            sample_size=8,
        )
        # So that a draw from the posterior is far from its mean.
        torch.nn.init.normal_(autoencoder.quant_conv.weight, std=0.7)
    autoencoder.save_pretrained(folder / "vae")
