"""Guided sampling against a plain Heun loop with two diffusers U-Nets.

    python tests/benchmarks/bench_guided_sampling.py [--device cuda --net small --compile inductor]

The plain loop is what one writes: two UNet2DModels of the same weights as ours, EDM's
preconditioning and Algorithm 1 in a function. Same networks, noise, steps and batch; the images are
compared. Images a second, the best of rounds taken in turn, since whatever else runs only slows, as
one JSON line. Exits 1 below a ratio of 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DModel
from torch import Tensor

from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.denoiser import NetDenoiser
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.sampler import karras_sigmas, make_sampler
from sims_core.nets.build import build_net, initialise, make_denoiser
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.nets.saved import stored_module
from sims_core.nets.unet import unet_arguments

NETS = {
    "tiny": (UNetConfig(block_out_channels=(32, 64)), 64),
    "small": (
        UNetConfig(
            image_size=32,
            channels=3,
            block_out_channels=(96, 192, 192),
            layers_per_block=2,
            attention_levels=(1,),
            attention_head_dim=64,
            norm_num_groups=32,
        ),
        256,
    ),
}
OMEGA, SIGMA_DATA = 1.0, 0.5


def our_model(net: UNetConfig, seed: int, device: str) -> NetDenoiser:
    """Random weights, in the last layer too, which `initialise` sets to zero."""
    made = build_net(net)
    own = torch.Generator().manual_seed(seed)
    initialise(made, own)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=own))
    denoiser = make_denoiser(made, ModelConfig(net=net, sigma_data=SIGMA_DATA))
    return denoiser.to(device).eval().requires_grad_(False)


def same_in_diffusers(model: NetDenoiser, net: UNetConfig) -> UNet2DModel:
    made = UNet2DModel(**unet_arguments(net))
    made.load_state_dict(stored_module(model.net).state_dict())
    return made.to(next(model.parameters()).device).eval()


def plain_loop(base: UNet2DModel, auxiliary: UNet2DModel, noise: Tensor, steps: int) -> Tensor:
    def denoise(net: UNet2DModel, x: Tensor, sigma: Tensor) -> Tensor:
        total = sigma**2 + SIGMA_DATA**2
        level = (sigma.log() / 4 * 250).expand(len(x))
        raw = net(x / total.sqrt(), level).sample
        return SIGMA_DATA**2 / total * x + sigma * SIGMA_DATA / total.sqrt() * raw

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(base, x, sigma)
        guided = denoised + OMEGA * (denoised - denoise(auxiliary, x, sigma))
        return (x - guided) / sigma

    sigmas = karras_sigmas(steps).to(noise)
    x = noise * sigmas[0]
    with torch.no_grad():
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            d = slope(x, sigma)
            moved = x + (following - sigma) * d
            if following > 0:
                moved = x + (following - sigma) * (d + slope(moved, following)) / 2
            x = moved
    return x


def speed(run: Callable[[], Tensor], count: int, device: str) -> float:
    """Images a second: of the process's time on a CPU, which others may use as well."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return count / (clock() - started)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--net", default="tiny", choices=NETS)
    parser.add_argument("--compile", choices=["inductor"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net, count = NETS[options.net]
    models = [our_model(net, seed, options.device) for seed in (1, 2)]
    theirs = [same_in_diffusers(model, net) for model in models]
    if options.compile:
        for model in models:
            model.net.compile(backend=options.compile)
    sample = make_sampler(SamplerConfig(num_steps=options.steps))
    guided = negative_guidance(models[0], models[1], OMEGA)
    shape = (count, net.channels, net.image_size, net.image_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(options.device)

    def ours() -> Tensor:
        return sample(guided, noise)

    def plain() -> Tensor:
        return plain_loop(theirs[0], theirs[1], noise, options.steps)

    difference = (ours() - plain()).abs().max() / plain().abs().max()
    pairs = [
        [speed(run, count, options.device) for run in (plain, ours)] for _ in range(options.rounds)
    ]
    plain_speed, our_speed = (max(side) for side in zip(*pairs, strict=True))
    ratio = our_speed / plain_speed
    result = {"net": options.net, "images": count, "device": options.device}
    speeds = {"plain_img_s": round(plain_speed, 1), "ours_img_s": round(our_speed, 1)}
    same = {"largest_relative_difference": float(f"{float(difference):.1e}")}
    print(json.dumps({**result, **speeds, **same, "ratio": round(ratio, 3)}))
    return 0 if ratio >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
