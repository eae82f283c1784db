"""Shared fixtures: a store, small image sets, and one tiny loop that is run once a session."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from sims_core.data.config import DigitsData
from sims_core.data.grid import GRID_FILE, GRID_IMAGES, image_grid
from sims_core.data.image_set import Shard, index_shards, shard_name, write_shard
from sims_core.diffusion.config import SamplerConfig
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, LoopPlan, plan_loop
from sims_core.studies.running import Outcome, Runner
from sims_core.training.config import TrainingConfig

torch.set_num_threads(1)
# Derandomised: a failure here is a failure everywhere; no deadline on a shared machine.
settings.register_profile("sims", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("sims")

TINY_NET = UNetConfig(block_out_channels=(8, 16), norm_num_groups=4)

TINY = Experiment(
    data=DigitsData(num_images=256),
    model=ModelConfig(net=TINY_NET),
    training=TrainingConfig(kimg=2.0, batch_size=32, learning_rate=4e-3),
    sims=Sims(n_s=32, budget_mimg=0.000256, batch_size=32),
    sampler=SamplerConfig(num_steps=4),
    evaluation=EvaluationConfig(
        num_images=64,  # of 16 features
        classifier=ClassifierConfig(channels=(8, 16), num_features=16, kimg=4.0, batch_size=32),
        kid_subsets=20,
        kid_subset_size=16,
        num_preview=16,
    ),
)
TINY_ARMS = (
    Arm(method=Standard(), loop=LoopKind.fully_synthetic, pollution_size=48),
    Arm(method=TINY.sims, loop=LoopKind.fully_synthetic, pollution_size=48),
)


@dataclass(frozen=True)
class TinyRun:
    """A finished run. Tests read it; one that changes files works on a copy."""

    store: Store
    plan: LoopPlan
    outcomes: tuple[Outcome, ...]

    def request(self, arm: int, t: int, role: str) -> StageRequest:
        (stage,) = [s for s in self.plan.arms[arm].stages if (s.t, s.role) == (t, role)]
        return stage.request

    def folder(self, arm: int, t: int, role: str) -> Path:
        return self.store.open_artifact(self.request(arm, t, role).ref)


@pytest.fixture(scope="session")
def tiny_experiment() -> Experiment:
    return TINY


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    store = Store.open(tmp_path_factory.mktemp("tiny") / "store")
    plan = plan_loop(TINY, TINY_ARMS, generations=2, seed=7)
    plan, outcomes = Runner(store, Execution(threads=1)).run_plan(plan)
    return TinyRun(store, plan, tuple(outcomes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture(scope="session")
def random_images() -> Callable[..., np.ndarray]:
    def make(count: int, channels: int = 1, size: int = 8, seed: int = 0) -> np.ndarray:
        shape = (count, channels, size, size)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def put_images() -> Callable[..., ArtifactRef]:
    """Puts an images artifact straight into a store, as a stage would."""

    def put(
        store: Store,
        images: np.ndarray,
        labels: Sequence[int] | None = None,
        per_shard: int = 5,
        tag: str = "",
    ) -> ArtifactRef:
        content = json.dumps([images.tolist(), labels, per_shard, tag])
        request = StageRequest(stage="prepare", version=1, kind="images", config={"test": content})
        folder = store.progress_path(request.ref)
        folder.mkdir()
        shards = []
        for number, start in enumerate(range(0, len(images), per_shard)):
            part = slice(start, start + per_shard)
            name = shard_name(number)
            write_shard(folder / name, images[part], start, labels[part] if labels else None)
            shards.append(Shard(file=name, count=len(images[part])))
        (folder / GRID_FILE).write_bytes(image_grid(images[:GRID_IMAGES]))
        index_shards(folder, images.shape[1:], shards, Counter(labels or ()))
        return store.commit(request, folder, execution={}, libraries={}, details={})

    return put
