"""How long does an FID take through shards, against the path through PNG files?

    SIMS_DATA=... python tests/benchmarks/bench_fid.py [COUNT]

Ours: stages `features` and `evaluate` on a set in shards, against a reference whose features are in
the store. Theirs: the same images written as PNG files, then `torch_fidelity.calculate_metrics` for
the same figures, with its own cache of the reference. Extractor: the same ResNet-20, theirs as it
is, ours as stage `features` prepares it. One thread; each side warmed up, then timed, in a fresh
process, since how long torch's tensors take to come by depends on what the process did before.
Medians of five.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch_fidelity

import sims_core.evaluation.extractors  # noqa: F401 - tells torch-fidelity of its own
from sims_core.catalog import run_stage
from sims_core.data.image_set import Shard, index_shards, shard_name, stream_images, write_shard
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import (
    EvaluateConfig,
    EvaluationConfig,
    ExtractorConfig,
    FeaturesConfig,
)
from sims_core.evaluation.stages import EVALUATE, EXTRACTOR, FEATURES
from sims_core.evaluation.weights import pin_weights
from sims_core.settings import Settings
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store

WANTED = 1.5
ROUNDS = 5
METRICS = EvaluateConfig(kid_subsets=20, kid_subset_size=200, prc_neighborhood=3, seed=0)


def execution() -> Execution:
    return Execution(threads=1, files=Settings.read().files(), sampling_batch_size=64)


def put(store: Store, count: int, seed: int) -> ArtifactRef:
    """Noise as an images artifact: what the pixels are costs nothing here."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    request = images_request(seed)
    folder = store.progress_path(request.ref)
    folder.mkdir()
    write_shard(folder / shard_name(0), images, 0)
    index_shards(folder, (3, 32, 32), [Shard(file=shard_name(0), count=count)], Counter())
    return store.commit(request, folder, execution={}, libraries={}, details={})


def images_request(seed: int) -> StageRequest:
    return StageRequest(stage="prepare", version=1, kind="images", config={"bench": seed})


def as_files(folder: Path, shards: Path) -> str:
    """The PNG files of an artifact's shards."""
    folder.mkdir()
    for shard in sorted(shards.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    (folder / member.name).write_bytes(content.read())
    return str(folder)


class Both:
    """The two sides over one folder: generated images, real ones and the extractor."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, Store.open(root / "store")
        sha256 = pin_weights(
            EvaluationConfig(features="resnet20"), execution().files
        ).weights_sha256
        weights = ExtractorConfig(features="resnet20", sha256=str(sha256))
        self.extractor = EXTRACTOR.request(weights)
        self.generated, self.real = images_request(1).ref, images_request(2).ref

    def prepare(self, count: int) -> None:
        put(self.store, count, 1)
        put(self.store, count, 2)
        run_stage(self.store, self.extractor, execution())
        run_stage(self.store, self.features(self.real), execution())
        as_files(self.root / "real", self.store.path(self.real))

    def features(self, images: ArtifactRef) -> StageRequest:
        return FEATURES.request(FeaturesConfig(), images=images, extractor=self.extractor.ref)

    def shards(self) -> float:
        """Our FID of the generated images, of which the store then knows nothing any more."""
        features = self.features(self.generated)
        real = self.features(self.real).ref
        request = EVALUATE.request(METRICS, generated=features.ref, real=real)
        run_stage(self.store, features, execution())
        run_stage(self.store, request, execution())
        fid = float(self.store.manifest(request.ref).details["fid"])
        for ref in (request.ref, features.ref):
            shutil.rmtree(self.store.path(ref))
        return fid

    def files(self) -> float:
        """Theirs, from files that are written and removed."""
        folder = self.root / "generated"
        figures = torch_fidelity.calculate_metrics(
            input1=as_files(folder, self.store.path(self.generated)),
            input2=str(self.root / "real"),
            input2_cache_name="reference",
            cache_root=str(self.root / "cache"),
            fid=True,
            kid=True,
            prc=True,
            kid_subsets=METRICS.kid_subsets,
            kid_subset_size=METRICS.kid_subset_size,
            feature_extractor="sims-resnet20",
            feature_extractor_weights_path=str(self.store.path(self.extractor.ref)),
            cuda=False,
            save_cpu_ram=True,
            verbose=False,
        )
        shutil.rmtree(folder)
        return float(figures["frechet_inception_distance"])


def time_here(root: Path, side: str) -> None:
    """Prints the seconds and the FID of one side's second round in this process."""
    torch.set_num_threads(1)
    both = Both(root)
    work: Callable[[], float] = {"files": both.files, "shards": both.shards}[side]
    work()
    started = time.monotonic()
    fid = work()
    print(json.dumps([time.monotonic() - started, fid]))


def main() -> None:
    if len(sys.argv) > 2:
        time_here(Path(sys.argv[1]), sys.argv[2])
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if not Settings.read().data:
        print("skipped: SIMS_DATA names no folder with the ResNet's weights")
        return
    took: dict[str, list[float]] = {"files": [], "shards": []}
    fids: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="sims-bench-") as name:
        both = Both(Path(name))
        both.prepare(count)
        for _ in range(ROUNDS):
            for side, seconds in took.items():
                command = [sys.executable, __file__, name, side]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found, fids[side] = json.loads(output)
                seconds.append(found)
        started = time.monotonic()
        read = sum(1 for _ in stream_images(both.store.path(both.generated), 0, count))
        reading = time.monotonic() - started
    if abs(fids["shards"] - fids["files"]) > 1e-3 * fids["files"]:
        sys.exit(f"error: FID {fids['shards']} through shards, {fids['files']} through files")
    files, shards = (statistics.median(took[side]) for side in ("files", "shards"))
    ratio = files / shards
    print(
        f"{count} images, FID {fids['shards']:.4f} both ways; reading {read} of shards: "
        f"{reading:.2f} s"
    )
    print(f"PNG files {files:.2f} s, shards {shards:.2f} s: ratio {ratio:.2f}")
    print(f"{'at least' if ratio >= WANTED else 'BELOW'} the wanted {WANTED:g}")


if __name__ == "__main__":
    main()
