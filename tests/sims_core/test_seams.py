"""What is added as one file: a method, a kind of data. Nothing else is touched, or patched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from sims_core import catalog
from sims_core.catalog import run_stage
from sims_core.common import purposes, roles
from sims_core.common.frozen import Frozen
from sims_core.data.config import DATA, Data
from sims_core.data.points import read_points, write_points
from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.noise import generator
from sims_core.engine.execution import Execution
from sims_core.engine.stage import Stage, StageContext
from sims_core.evaluation.figures import write_metrics
from sims_core.methods.base import METHODS, Method, Sampled, Steps
from sims_core.methods.standard import Standard
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.reports.base import PagePart, RunDetails, report_of
from sims_core.reports.page import render_report
from sims_core.reports.summary import RunSummary, count_stages
from sims_core.sampling.config import GeneratePointsConfig
from sims_core.sampling.stages import GENERATE_POINTS
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, LoopPlan, plan_loop
from sims_core.studies.planner import Kind, Planner, Setup
from sims_core.studies.running import Outcome
from sims_core.training.config import TrainingConfig

# -- a method -------------------------------------------------------------------------------------


class TwoFits(Method):
    """The mean of nothing: a second model of the same data, from another seed, pushed away from."""

    kind: Literal["two_fits"] = "two_fits"
    omega: float = 0.5

    @property
    def label(self) -> str:
        return f"two fits omega={self.omega:g}"

    @property
    def strength(self) -> float:
        return self.omega

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        second = steps.train("train second", "second fit", steps.training, {"data": data})
        return Sampled(base, second, self.omega)


@pytest.fixture
def toy_method() -> Iterator[None]:
    METHODS.add("two_fits")(TwoFits)
    yield
    METHODS.remove("two_fits")


# -- a kind of data -------------------------------------------------------------------------------


class MixtureData(Data):
    """Points on a line from two Gaussians of deviation 0.3 at -1 and 1."""

    KIND: ClassVar[str] = f"{__name__}:MIXTURE"

    source: Literal["mixture"] = "mixture"
    num_points: int = 400


class DrawConfig(Frozen):
    count: int
    seed: int


class Distance(Frozen):
    pass


def draw_mixture(context: StageContext[DrawConfig]) -> dict[str, Any]:
    own = generator(context.config.seed, "mixture")
    side = torch.randint(2, (context.config.count,), generator=own) * 2.0 - 1
    points = side + 0.3 * torch.randn(context.config.count, generator=own)
    write_points(context.directory, points[None, :, None])
    return {"count": context.config.count}


def measure_mixture(context: StageContext[Distance]) -> dict[str, Any]:
    generated, real = (read_points(context.open(name)).flatten() for name in ("generated", "real"))
    found = {"w1": float(wasserstein_distance(generated, real)), "n_generated": len(generated)}
    write_metrics(context.directory, found)
    return found


DRAW = Stage("draw_mixture", 1, "points", DrawConfig, f"{__name__}:draw_mixture")
MEASURE = Stage("measure_mixture", 1, "metrics", Distance, f"{__name__}:measure_mixture")


class Mixture(Kind):
    REPORT: ClassVar[str] = f"{__name__}:MIXTURE_REPORT"

    def check(self, experiment: Experiment) -> None:
        if getattr(experiment.model.net, "dim", None) != 1:
            raise ValueError("model.net must be a perceptron of dim 1")

    def setup(self, planner: Planner) -> Setup:
        count = planner.experiment.data.num_points
        real, held_out = (
            DRAW.request(DrawConfig(count=count, seed=planner.stage_seed(purpose)))
            for purpose in (purposes.DATA, purposes.REFERENCE)
        )
        data = planner.add(roles.PREPARE_DATA, real)
        return Setup(data, {"real": planner.add(roles.REFERENCE, held_out)})

    def draw(
        self, planner: Planner, role: str, count: int, first_seed: int, sampled: Sampled
    ) -> ArtifactRef:
        guidance, sampler = dict(planner.guidance(sampled)), planner.experiment.sampler
        config = GeneratePointsConfig(**guidance, sampler=sampler, count=count, seed=first_seed)
        return planner.add(role, GENERATE_POINTS.request(config, **sampled.inputs))

    def generation(
        self, planner: Planner, setup: Setup, sampled: Sampled, at_least: int
    ) -> ArtifactRef:
        count = max(at_least, planner.experiment.data.num_points)
        seed = planner.stage_seed(purposes.GENERATE)
        generated = self.draw(planner, roles.GENERATE, count, seed, sampled)
        request = MEASURE.request(Distance(), generated=generated, **setup.references)
        planner.add(roles.EVALUATE, request)
        return generated


class MixtureReport:
    figure = "w1"
    unit = "point"

    def describe_data(self, experiment: Experiment) -> str:
        return "a mixture on a line"

    def describe_evaluation(self, experiment: Experiment, counts: str) -> str:
        return "W1 to a held-out sample"

    def finish_arms(self, store, plan, arms):
        return arms

    def scan_ratios(self, store, plan):
        return [None] * len(plan.scan)

    def page(self, store, summary, plan, folder) -> PagePart:
        return PagePart()

    def samples(self, store, experiment, artifacts):
        return None


MIXTURE, MIXTURE_REPORT = Mixture(), MixtureReport()


@pytest.fixture
def toy_kind() -> Iterator[None]:
    DATA.add("mixture")(MixtureData)
    for stage in (DRAW, MEASURE):
        catalog.add_stage(stage)
    yield
    DATA.remove("mixture")
    for stage in (DRAW, MEASURE):
        del catalog.STAGES[stage.name]


# -- the way of every run -------------------------------------------------------------------------

LINE = {
    "data": {"source": "mixture"},
    "model": ModelConfig(net=MLPConfig(dim=1, hidden_features=16, hidden_layers=2)),
    "training": TrainingConfig(kimg=40, batch_size=100, learning_rate=5e-3),
    "sampler": SamplerConfig(num_steps=8),
}


def _arms(*methods: Method) -> tuple[Arm, ...]:
    loop = LoopKind.synthetic_augmentation
    return tuple(Arm(method=method, loop=loop, pollution_size=48) for method in methods)


def _run(plan: LoopPlan, root: Path) -> tuple[Store, RunSummary, str]:
    store, outcomes = Store.open(root), []
    for stage in plan:
        cached = store.is_whole(stage.ref)
        run_stage(store, stage.request, Execution(threads=1))
        outcomes.append(Outcome("", stage, cached, 0.0))
    summary = RunSummary(
        **{"run": "seam", "flow": "sims-loop", "preset": "toy", "store": str(root), "report": ""},
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )
    details = RunDetails("Seams", {"seed": 0}, plan, outcomes)
    return store, summary, render_report(store, summary, details)


def test_a_method_is_one_class(toy_method, tiny_experiment, tmp_path):
    read = Experiment.model_validate(
        {**tiny_experiment.model_dump(), "methods": {"two_fits": {"kind": "two_fits", "omega": 1}}}
    )
    assert read.template("two_fits") == TwoFits(omega=1)
    plan = plan_loop(tiny_experiment, _arms(Standard(), TwoFits()), generations=2, seed=3)
    store, summary, page = _run(plan, tmp_path / "store")
    own = [stage.role for stage in plan.arms[1].stages if stage.t == 1]
    assert own[:3] == ["mix", "train base", "train second"]
    base, second = (plan.arms[1].artifacts(1)[role] for role in ("train base", "train second"))
    assert base == plan.arms[0].artifacts(1)["train base"], "shared with the standard arm"
    weights = [next(store.path(ref).rglob("*.safetensors")).read_bytes() for ref in (base, second)]
    assert weights[0] != weights[1], "its own purpose gives it another seed"
    generated = store.manifest(plan.arms[1].artifacts(1)["generate"])
    assert generated.details["nfe"] == 2 * tiny_experiment.sampler.nfe
    printed = json.loads(summary.model_dump_json(exclude_defaults=True))
    assert [arm["name"] for arm in printed["arms"]] == [
        "standard |D_s|=48",
        "two fits omega=0.5 |D_s|=48",
    ]
    standard, guided = (arm["cost"] for arm in printed["arms"])
    assert guided["evaluations"] == 2 * standard["evaluations"]
    assert guided["extra_training_percent"] == pytest.approx(100), "as much again"
    fid = [arm["generations"][0]["metrics"]["fid"] for arm in printed["arms"]]
    assert fid[0] != fid[1]
    assert f"{fid[1]:.3f}" in page


def test_a_kind_of_data_is_one_file(toy_kind, tmp_path):
    experiment = Experiment.model_validate(LINE)
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    plan = plan_loop(experiment, _arms(Standard(), experiment.sims), generations=2, seed=3)
    store, summary, page = _run(plan, tmp_path / "store")
    printed = json.loads(summary.model_dump_json(exclude_defaults=True))
    assert printed["figure"] == "w1"
    w1 = [arm["generations"][0]["metrics"]["w1"] for arm in printed["arms"]]
    assert 0 < w1[0] < 0.3, "a model of the mixture, not of one of its components"
    assert f"{w1[1]:.4g}" in page
    assert "a mixture on a line" in page
    points = read_points(store.path(plan.arms[0].artifacts(1)["generate"])).flatten().numpy()
    assert np.mean(points < 0) == pytest.approx(0.5, abs=0.1)


def test_a_kind_checks_its_experiments(toy_kind):
    with pytest.raises(ValueError, match=r"model\.net must be a perceptron of dim 1"):
        Experiment.model_validate({**LINE, "model": ModelConfig(net=MLPConfig(dim=2))})


def test_what_is_not_there_is_named_with_what_is():
    with pytest.raises(ValueError, match="no data set of source 'mixture'; there are: digits"):
        Experiment.model_validate({"data": {"source": "mixture"}})
    with pytest.raises(ValueError, match=r"no method of kind 'two_fits'; there are: .*sims"):
        Experiment.model_validate({"methods": {"x": {"kind": "two_fits"}}})


def test_a_name_is_given_once(toy_method):
    with pytest.raises(ValueError, match="method 'two_fits' is there already"):
        METHODS.add("two_fits")(TwoFits)
    other = Stage("train", 1, "model", Distance, "nowhere:nothing")
    with pytest.raises(ValueError, match="there is a stage train already"):
        catalog.add_stage(other)
