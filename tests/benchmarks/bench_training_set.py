"""Memory and start of a training on many images: decoded once and mapped, or decoded each time.

    python tests/benchmarks/bench_training_set.py [--count 200000] [--draws 200] [--before]

Puts COUNT images of 64 x 64 x 3 into a store of its own, and starts trainings of a small U-Net in
fresh processes, each of which takes three steps and draws many batches of 256. Peak memory is the
kernel's (VmHWM, mapped pages included), beyond that of the same training on 512 images. One JSON
line a training: first start, second start, and with --before one that decodes into memory, as
every start did before there were mapped sets. Exits 1 above 200 MB, or if losses differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

import numpy as np

from sims_core.catalog import run_stage
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.grid import encode_png
from sims_core.data.image_set import (
    IMAGES_PER_SHARD,
    Shard,
    ShardWriter,
    index_shards,
    shard_name,
)
from sims_core.data.stages import MIX
from sims_core.engine.execution import Execution
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store

LIMIT_MB = 200
SHAPE = (3, 64, 64)

TRAIN = """
import json, sys, time
from pathlib import Path
started = time.monotonic()
import torch
from sims_core.data import mixing
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.store.store import Store
from sims_core.training.batches import draw_batch
from sims_core.training.config import TrainingConfig
from sims_core.training.trainer import Training

root, mix, draws, how = sys.argv[1:]
if how == "memory":
    mixing.IN_MEMORY_BYTES = 1 << 60
torch.set_num_threads(1)
imported = time.monotonic()
images, _ = mixing.load_training_set(Store.open(root), Path(mix), 2)
loaded = time.monotonic()
net = UNetConfig(image_size=64, channels=3, block_out_channels=(8, 16), norm_num_groups=4)
training = Training(ModelConfig(net=net), TrainingConfig(kimg=1, batch_size=16), images, 0)
losses = [float(training.advance()) for _ in range(3)]
config = TrainingConfig(kimg=1000, batch_size=256)
for step in range(int(draws)):
    draw_batch(images, None, config, 0, step)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
print(json.dumps({
    "start_s": round(loaded - imported, 2),
    "peak_mb": int(peak.split()[1]) // 1024,
    "losses": losses,
}))
"""


def put_set(store: Store, count: int) -> ArtifactRef:
    """An artifact of images; each shard has the same pictures."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (IMAGES_PER_SHARD, 3, 8, 8))
    images = coarse.repeat(8, 2).repeat(8, 3) + random.integers(-9, 9, (IMAGES_PER_SHARD, *SHAPE))
    pngs = [encode_png(image) for image in images.clip(0, 255).astype(np.uint8)]
    request = StageRequest(stage="prepare", version=1, kind="images", config={"count": count})
    folder = store.progress_path(request.ref)
    folder.mkdir()
    shards = []
    for number, start in enumerate(range(0, count, IMAGES_PER_SHARD)):
        writer = ShardWriter(folder / shard_name(number), start)
        for png in pngs[: count - start]:
            writer.add("png", png, None, None)
        writer.close()
        shards.append(Shard(file=shard_name(number), count=writer.count))
    index_shards(folder, SHAPE, shards, Counter())
    return store.commit(request, folder, execution={}, libraries={}, details={})


def train(store: Store, images: ArtifactRef, draws: int, how: str = "mapped") -> dict[str, Any]:
    config = MixConfig(parts=(MixPart(input="a", synthetic=False),))
    mix = store.path(run_stage(store, MIX.request(config, a=images), Execution()))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(store.root), str(mix), str(draws), how],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--before", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        network = train(store, put_set(store, 512), options.draws)["peak_mb"]
        images = put_set(store, options.count)
        found = {}
        names = ["first start", "second start", *(["before"] if options.before else [])]
        for name in names:
            how = "memory" if name == "before" else "mapped"
            found[name] = train(store, images, options.draws, how)
            beyond = found[name]["peak_mb"] - network
            row = {"training": name, "count": options.count, "beyond_network_mb": beyond}
            print(json.dumps({**row, **found[name]}), flush=True)
    equal = all(each["losses"] == found["first start"]["losses"] for each in found.values())
    large = found["second start"]["peak_mb"] - network > LIMIT_MB
    return int(large or not equal)


if __name__ == "__main__":
    raise SystemExit(main())
