"""How long does an FID take through shards, against the path through PNG files?

    SIMS_DATA=... python tests/benchmarks/bench_fid.py [COUNT]

Ours: stages `features` and `evaluate` on a set in shards, against a reference whose features are in
the store. Theirs: the same images written as PNG files, then `torch_fidelity.calculate_metrics` for
the same figures, with its own cache of the reference. Extractor: the same ResNet-20, theirs as it
is, ours with its batch norms folded and channels last. One thread.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch_fidelity

from infra.settings import Settings
from sims_core.config import EvaluationConfig, Execution
from sims_core.shards import Shard, shard_name, stream_images, write_index, write_shard
from sims_core.stages import (
    EVALUATE,
    EXTRACTOR,
    FEATURES,
    EvaluateConfig,
    ExtractorConfig,
    FeaturesConfig,
    run_stage,
)
from sims_core.store import ArtifactRef, StageRequest, Store
from sims_core.weights import pin_weights

WANTED = 1.5
ROUNDS = 3
METRICS = EvaluateConfig(kid_subsets=20, kid_subset_size=200, prc_neighborhood=3, seed=0)


def put(store: Store, count: int, seed: int) -> ArtifactRef:
    """Noise as an images artifact: what the pixels are costs nothing here."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    request = StageRequest(stage="prepare", version=1, kind="images", config={"bench": seed})
    folder = store.progress_path(request.ref)
    folder.mkdir()
    write_shard(folder / shard_name(0), images, 0)
    write_index(folder, images, [Shard(file=shard_name(0), count=count)])
    return store.commit(request, folder, execution={}, libraries={}, details={})


def as_files(folder: Path, shards: Path) -> str:
    """The PNG files of an artifact's shards."""
    folder.mkdir()
    for shard in sorted(shards.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    (folder / member.name).write_bytes(content.read())
    return str(folder)


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and what came out."""
    started = time.monotonic()
    found = work()
    return time.monotonic() - started, found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    torch.set_num_threads(1)
    if not Settings.read().data:
        print("skipped: SIMS_DATA names no folder with the ResNet's weights")
        return
    execution = Execution(threads=1, files=Settings.read().files(), sampling_batch_size=64)
    evaluation = pin_weights(EvaluationConfig(features="resnet20"), execution.files)
    with tempfile.TemporaryDirectory(prefix="sims-bench-") as name:
        store = Store.open(Path(name) / "store")
        weights = ExtractorConfig(features="resnet20", sha256=str(evaluation.weights_sha256))
        extractor = run_stage(store, EXTRACTOR.request(weights), execution)
        generated, real = put(store, count, 1), put(store, count, 2)

        def features_of(images: ArtifactRef) -> StageRequest:
            return FEATURES.request(FeaturesConfig(), images=images, extractor=extractor)

        def theirs(folder: Path) -> float:
            figures = torch_fidelity.calculate_metrics(
                input1=as_files(folder, store.path(generated)),
                input2=reference,
                input2_cache_name="reference",
                cache_root=str(Path(name) / "cache"),
                fid=True,
                kid=True,
                prc=True,
                kid_subsets=METRICS.kid_subsets,
                kid_subset_size=METRICS.kid_subset_size,
                feature_extractor="sims-resnet20",
                feature_extractor_weights_path=str(store.path(extractor)),
                cuda=False,
                save_cpu_ram=True,
                verbose=False,
            )
            return float(figures["frechet_inception_distance"])

        reference, real_features = (
            as_files(Path(name) / "real", store.path(real)),
            run_stage(store, features_of(real), execution),
        )
        theirs(Path(name) / "warm")  # fills their cache of the reference
        request = EVALUATE.request(
            METRICS, generated=features_of(generated).ref, real=real_features
        )

        def ours() -> float:
            for ref in (request.ref, request.inputs["generated"]):
                shutil.rmtree(store.path(ref), ignore_errors=True)
            run_stage(store, features_of(generated), execution)
            run_stage(store, request, execution)
            return float(store.manifest(request.ref).details["fid"])

        files, shards = [], []
        for number in range(ROUNDS):
            took, expected = timed(lambda number=number: theirs(Path(name) / f"files-{number}"))
            files.append(took)
            took, fid = timed(ours)
            shards.append(took)
        through_files, through_shards = min(files), min(shards)
        started = time.monotonic()
        read = sum(1 for _ in stream_images(store.path(generated), 0, count))
        reading = time.monotonic() - started
    if abs(fid - expected) > 1e-3 * expected:
        sys.exit(f"error: FID {fid} through shards, {expected} through files")
    ratio = through_files / through_shards
    print(f"{count} images, FID {fid:.4f} both ways; reading {read} of shards: {reading:.2f} s")
    print(f"PNG files {through_files:.2f} s, shards {through_shards:.2f} s: ratio {ratio:.2f}")
    print(f"{'at least' if ratio >= WANTED else 'BELOW'} the wanted {WANTED:g}")


if __name__ == "__main__":
    main()
