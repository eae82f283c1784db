"""What other code made is taken and said, and computed anew where it is asked for."""

from __future__ import annotations

import json
import logging

import pytest

from sims_core.common.errors import BadInput
from sims_core.data.config import GaussianData
from sims_core.engine import run
from sims_core.engine.execution import Execution
from sims_core.engine.source import made_by
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.store.artifacts import MANIFEST_FILE, Manifest
from sims_core.studies import freshness
from sims_core.studies.experiment import Experiment
from sims_core.studies.freshness import Recompute, notices
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.running import Runner
from sims_core.training import points

EXPERIMENT = Experiment(
    data=GaussianData(num_points=50, replicates=2),
    model=ModelConfig(net=ExactGaussianConfig()),
    point_evaluation=PointEvaluationConfig(num_points=50, empirical_points=10, bootstrap=100),
)
ARMS = (Arm(method=Standard(), loop=LoopKind.fresh_data, pollution_size=20),)
BY_OTHER_CODE = "train: cached, made by other code: raise its version, or pass `recompute` train"


@pytest.fixture
def plan():
    return plan_loop(EXPERIMENT, ARMS, generations=2, seed=0)


@pytest.fixture
def run_plan(store, plan):
    """Runs the plan; says the stages that were computed, and what was said."""

    def run(caplog, names=""):
        caplog.clear()
        caplog.set_level(logging.INFO)
        _, outcomes = Runner(store, Execution(), recompute=Recompute.of(names)).run_plan(plan)
        said = [r.getMessage() for r in caplog.records if r.name == "sims_core.studies"]
        return [each.stage.request.stage for each in outcomes if not each.cached], said

    return run


@pytest.fixture
def changed(monkeypatch):
    """Lets the source of stage `train` be another one, and what it computes, if that is wanted."""

    def change(fit=points.fit_gaussian):
        real = run.source_digest
        other = lambda entry: "ab" * 32 if "train_model" in entry else real(entry)  # noqa: E731
        for module in (run, freshness):
            monkeypatch.setattr(module, "source_digest", other)
            monkeypatch.setattr(module, "code_digest", lambda: "cd" * 32)
        monkeypatch.setattr(points, "fit_gaussian", fit)

    return change


def shifted(data, config, initial, shares=None):
    fitted = points.GaussianModel(*points.moments(data))
    return points.GaussianModel(fitted.mean + 1, fitted.covariance)


def test_what_other_code_made_is_taken_and_said_once_a_stage(run_plan, changed, caplog):
    assert run_plan(caplog)[0]
    assert run_plan(caplog) == ([], [])
    changed()
    assert run_plan(caplog) == ([], [BY_OTHER_CODE])


def test_recomputed_by_the_other_code_nothing_is_said_any_more(run_plan, changed, caplog, store):
    run_plan(caplog)
    before = {ref: store.manifest(ref).content for ref in store.artifacts()}
    changed()
    computed, said = run_plan(caplog, "train")
    assert (computed, said) == (["train", "train"], [])  # the same bytes: nothing follows
    assert run_plan(caplog) == ([], [])
    assert {ref: store.manifest(ref).content for ref in store.artifacts()} == before


def test_what_is_made_of_other_bytes_follows(run_plan, changed, caplog, store, plan):
    run_plan(caplog)
    changed(shifted)
    computed, said = run_plan(caplog, "train")
    assert said == []
    follow = ["train", "generate_points", "evaluate_points"]
    assert sorted(computed) == sorted([*follow, *follow, "mix"])  # of the second generation
    assert run_plan(caplog) == ([], [])
    for stage in plan:  # every artifact was made of what is there
        origin = store.record(stage.ref).origin
        assert origin == store.manifest(stage.ref).origin
        now = {name: store.manifest(ref).content for name, ref in stage.request.inputs.items()}
        assert origin.inputs == now


def test_a_run_that_ends_early_leaves_nothing_unsaid(run_plan, changed, caplog, monkeypatch):
    """What would have followed is taken by the next run, which says so, and made if asked for."""
    run_plan(caplog)
    changed(shifted)
    real = run._compute

    def stops(store, stage, *rest):
        if stage.name == "generate_points":
            raise KeyboardInterrupt
        real(store, stage, *rest)

    monkeypatch.setattr(run, "_compute", stops)
    with pytest.raises(KeyboardInterrupt):
        run_plan(caplog, "train")
    monkeypatch.setattr(run, "_compute", real)
    _, said = run_plan(caplog)
    told = (
        "generate_points: cached, made of inputs that were computed again since: pass `recompute`"
    )
    assert f"{told} generate_points" in said
    computed, said = run_plan(caplog, "train")
    assert computed.count("generate_points") == 2
    assert said == []
    assert run_plan(caplog) == ([], [])


def test_an_unknown_stage_is_one_clear_error():
    with pytest.raises(
        BadInput, match=r"no stage 'trian' to compute again; stages: prepare, .*tra"
    ):
        Recompute.of("train,trian")
    assert Recompute.of("train, generate ,").stages == {"train", "generate"}


def test_manifests_say_which_code_made_them(run_plan, caplog, store, plan):
    run_plan(caplog)
    for stage in plan:
        origin = store.manifest(stage.ref).origin
        assert {"version": origin.version, "commit": origin.commit} == made_by()
        assert len(origin.source) == 64
    assert made_by()["version"][0].isdigit()


def test_older_manifests_and_records_are_read_and_nothing_is_said(
    run_plan, changed, caplog, store, plan
):
    run_plan(caplog)
    for stage in plan:
        path = store.path(stage.ref) / MANIFEST_FILE
        fields = json.loads(path.read_text())
        for name in ("origin", "checksum"):
            del fields[name]
        path.write_text(json.dumps(Manifest.of(fields).json_fields()))
        assert "origin" not in json.loads(path.read_text())
        record = json.loads(store.record_path(stage.ref).read_text())
        old = {name: record[name] for name in ("computed_by", "finished", "seconds")}
        store.record_path(stage.ref).write_text(json.dumps(old))
    changed()
    assert notices(store, (stage.request for stage in plan)) == []
    assert run_plan(caplog) == ([], [])
    assert all(store.manifest(stage.ref).origin is None for stage in plan)
    computed, _ = run_plan(caplog, "train")  # what they were made of is not known: they follow
    assert set(computed) == {"mix", "train", "generate_points", "evaluate_points"}
