"""Batched training of 16 replicates against the same 16 one after another by plain PyTorch.

    python tests/benchmarks/bench_replicates.py

The recipe of the preset gaussian2d-quick: the same network, batch size, steps, optimiser, schedule
and EMA on the same data, one process, one thread (these matrices are too small for a second one).
The plain loop is what one writes for a single model: nn.Sequential, the EDM loss on fresh noise,
fused Adam. The median of three rounds, as one JSON line; exits 1 below 8.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from flows.presets import find_preset
from sims_core.nets.config import MLPConfig
from sims_core.studies.planner import Planner
from sims_core.training.points import ReplicatedTraining
from sims_core.training.trainer import learning_rate_factor

TARGET = 8.0
EXPERIMENT = find_preset("sims-loop/gaussian2d-quick").experiment
RECIPE = EXPERIMENT.training
DATA = EXPERIMENT.data.model_copy(update={"replicates": 16})
MODEL = Planner(EXPERIMENT.model_copy(update={"data": DATA}), seed=0).model
NET = MODEL.net
assert isinstance(NET, MLPConfig)
REPLICATES = NET.replicates


def plain_net() -> nn.Sequential:
    widths = [NET.dim + 1, *[NET.hidden_features] * NET.hidden_layers]
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], NET.dim))


def train_plain(points: Tensor, seed: int) -> float:
    """One model on points [N, d]; returns the last loss."""
    net, own = plain_net(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=RECIPE.learning_rate, fused=True)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, RECIPE))
    decay = 0.5 ** (RECIPE.batch_size / (RECIPE.ema_halflife_kimg * 1000))
    ema = EMAModel(net.parameters(), decay=decay, foreach=True)
    data_variance = MODEL.sigma_data**2
    loss = torch.zeros(())
    for _ in range(RECIPE.num_steps):
        clean = points[torch.randint(len(points), (RECIPE.batch_size,), generator=own)]
        normal = torch.randn(RECIPE.batch_size, 1, generator=own)
        sigma = (RECIPE.P_mean + RECIPE.P_std * normal).exp()
        noisy = clean + sigma * torch.randn(clean.shape, generator=own)
        total = sigma**2 + data_variance
        raw = net(torch.cat([noisy / total.sqrt(), sigma.log() / 4], dim=1))
        denoised = data_variance / total * noisy + sigma * MODEL.sigma_data / total.sqrt() * raw
        weight = total / (sigma * MODEL.sigma_data) ** 2
        loss = (weight * (denoised - clean) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        ema.step(net.parameters())
    return float(loss.detach())


def train_batched(points: Tensor) -> float:
    training = ReplicatedTraining(MODEL, RECIPE, points, seed=0)
    loss = torch.zeros(())
    for _ in range(RECIPE.num_steps):
        loss = training.advance()
    return float(loss)


def main() -> int:
    torch.set_num_threads(1)
    points = 1.4 * torch.randn(REPLICATES, 500, 2, generator=torch.Generator().manual_seed(0))
    train_batched(points)  # warm up
    train_plain(points[0], 0)
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        train_batched(points)
        batched = time.perf_counter() - started
        started = time.perf_counter()
        for r in range(REPLICATES):
            train_plain(points[r], r)
        plain = time.perf_counter() - started
        rounds.append((plain / batched, batched, plain))
    ratio, batched, plain = sorted(rounds)[1]
    result = {
        "replicates": REPLICATES,
        "steps": RECIPE.num_steps,
        "batch": RECIPE.batch_size,
        "batched_s": round(batched, 3),
    }
    print(json.dumps({**result, "plain_s": round(plain, 3), "ratio": round(ratio, 2)}))
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
