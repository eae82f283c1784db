"""What does SIMS_CPU_ISA=avx2 cost, and do CPUs with and without AVX-512 agree by it?

    python tests/benchmarks/bench_cpu_isa.py [--kimg 3] [--repeats 3] [--also COMMAND ...]

Trains the digits' network in fresh processes: as it is, pinned, and (with --also, a command that
runs a program on another CPU, such as `qemu-x86_64 -cpu Haswell`) pinned and not there. Prints one
JSON line with seconds, their ratio and the digests of what was trained and sampled; exits 1 if two
that are pinned differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

TRAIN = """
import json, sys, tempfile, time
from sims_core.catalog import run_stage
from sims_core.data.config import DigitsData
from sims_core.data.stages import PREPARE
from sims_core.diffusion.config import SamplerConfig
from sims_core.engine.execution import Execution
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.stages import GENERATE
from sims_core.store.store import Store
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN
with tempfile.TemporaryDirectory() as root:
    store, execution = Store.open(root), Execution(threads=1)
    data = run_stage(store, PREPARE.request(DigitsData()), execution)
    net = UNetConfig(num_classes=10, attention_levels=(1,))
    config = TrainStageConfig(
        model=ModelConfig(net=net), training=TrainingConfig(kimg=float(sys.argv[1])), seed=0
    )
    request = TRAIN.request(config, data=data)
    started = time.process_time()
    base = run_stage(store, request, execution)
    seconds = time.process_time() - started
    sample = GenerateConfig(sampler=SamplerConfig(), count=64, first_seed=0)
    images = run_stage(store, GENERATE.request(sample, base=base), execution)
    found = {"seconds": seconds, "isa": store.manifest(base).execution["instructions"]}
    print(json.dumps({**found, "model": store.content(base), "images": store.content(images)}))
"""


def train(kimg: float, pin: bool, command: list[str]) -> dict[str, str | float]:
    """What one process found."""
    environment = {name: value for name, value in os.environ.items() if name != "SIMS_CPU_ISA"}
    if pin:
        environment["SIMS_CPU_ISA"] = "avx2"
    words = [*command, sys.executable, "-c", TRAIN, str(kimg)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {done.stderr}")
    found: dict[str, str | float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kimg", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--also", nargs=argparse.REMAINDER, default=[])
    asked = parser.parse_args()
    pairs = [[train(asked.kimg, pin, []) for pin in (False, True)] for _ in range(asked.repeats)]
    as_is, pinned = pairs[0]
    found = {"as_is": as_is, "pinned": pinned}
    found["cost"] = statistics.median(float(b["seconds"]) / float(a["seconds"]) for a, b in pairs)
    if asked.also:
        found |= {"there": train(asked.kimg, False, asked.also)}
        found |= {"pinned_there": train(asked.kimg, True, asked.also)}
    print(json.dumps(found))
    alike = [pair[1] for pair in pairs] + ([found["pinned_there"]] if asked.also else [])
    return 0 if len({(str(each["model"]), str(each["images"])) for each in alike}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
