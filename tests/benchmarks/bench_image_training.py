"""Training of a small U-Net against the recipe of diffusers' own training example.

    python tests/benchmarks/bench_image_training.py [--device cuda --net small --compile inductor]

The plain loop is what diffusers' unconditional training example does: a DataLoader over the images
with random flips, noise from torch's generator, accelerate's prepare, accumulate and backward,
AdamW, gradient clipping, a learning-rate schedule and EMAModel; with EDM's loss round the same
UNet2DModel in the place of DDPM's, so that both do the same arithmetic. Ours draws batches that any
restart repeats, keeps weights with channels last and steps a fused optimiser. Same network, batch,
images; images a second, the best of rounds taken in turn, since whatever else runs only slows, as
one JSON line. Exits 1 below a ratio of 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader, TensorDataset

from sims_core.engine.execution import Execution
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.nets.unet import unet_arguments
from sims_core.training.config import TrainingConfig
from sims_core.training.trainer import Training

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
            dropout=0.1,
        ),
        512,
    ),
}
SIGMA_DATA = 0.5


def plain_steps(
    net: UNetConfig, images: torch.Tensor, batch: int, device: str, precision: str
) -> Callable[[int], None]:
    """Runs steps of the example's loop."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    model = UNet2DModel(**unet_arguments(net))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), eps=1e-8)
    loader: Any = DataLoader(TensorDataset(images), batch_size=batch, shuffle=True, drop_last=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 500, 10_000)
    ema = EMAModel(model.parameters(), use_ema_warmup=True)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    ema.to(accelerator.device)
    batches: Any = iter(())

    def run(steps: int) -> None:
        nonlocal batches
        for _ in range(steps):
            if (found := next(batches, None)) is None:
                batches = iter(loader)
                found = next(batches)
            clean = found[0].float() / 127.5 - 1
            if torch.rand(()) < 0.5:
                clean = clean.flip(-1)
            sigma = (torch.randn(len(clean), 1, 1, 1, device=clean.device) * 1.2 - 1.2).exp()
            noisy = clean + sigma * torch.randn_like(clean)
            total = sigma**2 + SIGMA_DATA**2
            with accelerator.accumulate(model):
                raw = model(noisy / total.sqrt(), sigma.flatten().log() / 4 * 250).sample
                denoised = SIGMA_DATA**2 / total * noisy + sigma * SIGMA_DATA / total.sqrt() * raw
                weight = total / (sigma * SIGMA_DATA) ** 2
                loss = (weight * (denoised - clean) ** 2).mean()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            ema.step(model.parameters())
            loss.detach().item()  # the example logs it

    return run


def our_steps(
    net: UNetConfig, images: torch.Tensor, batch: int, execution: Execution, precision: str
) -> Callable[[int], None]:
    config = TrainingConfig(
        kimg=1000,
        batch_size=batch,
        x_flip=True,
        precision="bf16" if precision == "bf16" else "fp32",
    )
    training = Training(ModelConfig(net=net), config, images, 0, execution=execution)

    def run(steps: int) -> None:
        for _ in range(steps):
            training.advance()

    return run


def speed(run: Callable[[int], None], steps: int, batch: int, device: str) -> float:
    """Images a second: of the process's time on a CPU, which others may use as well."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    run(steps)
    if device != "cpu":
        torch.cuda.synchronize()
    return steps * batch / (clock() - started)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--net", default="tiny", choices=NETS)
    parser.add_argument("--precision", default="no", choices=["no", "bf16"])
    parser.add_argument("--compile", choices=["inductor"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net, batch = NETS[options.net]
    shape = (2048, net.channels, net.image_size, net.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8)
    execution = Execution(device=options.device, compile=options.compile)
    plain = plain_steps(net, images, batch, options.device, options.precision)
    ours = our_steps(net, images, batch, execution, options.precision)
    for run in (plain, ours):
        run(3)  # warm up, compile
    pairs = [
        [speed(run, options.steps, batch, options.device) for run in (plain, ours)]
        for _ in range(options.rounds)
    ]
    plain_speed, our_speed = (max(side) for side in zip(*pairs, strict=True))
    ratio = our_speed / plain_speed
    result = {"net": options.net, "batch": batch, "device": options.device}
    speeds = {"plain_img_s": round(plain_speed, 1), "ours_img_s": round(our_speed, 1)}
    print(json.dumps({**result, **speeds, "ratio": round(ratio, 3)}))
    return 0 if ratio >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
