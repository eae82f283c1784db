"""Training rate of the `digits` network, alone and two at once, by how long OpenMP threads spin.

    python tests/benchmarks/bench_openmp_wait.py

Why `GOMP_SPINCOUNT` is set in infra/environment.py: each row is img/s of one process alone,
then the mean of two processes side by side, two threads each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

SECONDS = 6.0
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def rate() -> float:
    """img/s of the digits preset's base training on random images, two threads."""
    import torch

    from flows.presets import find_preset
    from sims_core.training.trainer import Training

    torch.set_num_threads(2)
    experiment = find_preset("sims-loop/digits").experiment
    data = torch.randn(512, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    training = Training(experiment.model, experiment.training, data, seed=0)
    for _ in range(5):
        training.advance()
    before, started = training.nimg, time.monotonic()
    while time.monotonic() - started < SECONDS:
        training.advance()
    return (training.nimg - before) / (time.monotonic() - started)


def measure(environment: dict[str, str], processes: int) -> float:
    """Mean rate of so many processes at once."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "child"],
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    return sum(float(child.communicate()[0]) for child in children) / processes


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        print(rate())
    else:
        print(f"{'variant':<26}{'alone':>8}{'two at once':>14}  img/s each")
        for name, environment in VARIANTS.items():
            alone, beside = measure(environment, 1), measure(environment, 2)
            print(f"{name:<26}{alone:>8.0f}{beside:>14.0f}")
