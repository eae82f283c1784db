"""The folder of a run that a flow makes, whoever started it: a worker, or `sims run`."""

from __future__ import annotations

import logging
import shutil

from flows import pool
from flows.planned import PlannedRun
from sims_core.engine.execution import Execution
from sims_core.reports import unfinished
from sims_core.store.store import Store
from sims_core.studies.running import Runner, Silent


def test_a_flow_keeps_the_folder_of_its_run_while_it_goes_on(
    run_here, tiny_run, tmp_path, monkeypatch, caplog
):
    """No observer is given: as under a worker."""
    store = tmp_path / "store"
    shutil.copytree(tiny_run.store, store, symlinks=True, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.setattr(unfinished, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(unfinished, "SHARE_OF_TIME", 1e9)
    with caplog.at_level(logging.INFO, logger="sims_core.reports"):
        summary = run_here(store)
    said = [text for text in caplog.messages if text.startswith("so far (")]
    assert [text.split()[2] for text in said] == ["(9", "(15", "(24", "(33"]
    assert all(text.endswith(f"runs/{summary.run}/report/index.html") for text in said)


class Told(Silent):
    def __init__(self):
        self.stages = []

    def finished(self, arm, label, cached, seconds):
        self.stages.append((arm, label, cached))


def test_a_run_that_waits_for_the_pool_tells_what_its_arms_have_made(
    tiny_store, tiny_plan, monkeypatch, tmp_path
):
    store, plan = Store.open(tiny_store), tiny_plan()
    standard, sims = plan.arms
    missing = [s for s in sims.stages if s.ref not in {each.ref for each in standard.stages}]
    assert {stage.t for stage in missing} == {1, 2}
    for stage in missing:
        shutil.move(store.path(stage.ref), tmp_path / stage.ref.digest)
    before, told = [], Told()

    def compute(jobs, ended, meanwhile):
        (job,) = jobs
        meanwhile()
        before.extend(told.stages)
        for stage in missing:
            if stage.t == 1:
                shutil.move(tmp_path / stage.ref.digest, store.path(stage.ref))
        meanwhile()
        for stage in missing:
            if stage.t == 2:
                shutil.move(tmp_path / stage.ref.digest, store.path(stage.ref))
        assert [t for _, t in marks()] == [1] * marks().count((sims.name, 1))
        ended(job)

    def marks():
        """Arm and generation of what was told since the first look."""
        return [(arm, int(label[2:4])) for arm, label, _ in told.stages[len(before) :]]

    monkeypatch.setattr(pool, "compute_in_pool", compute)
    run = PlannedRun("sims-loop", {"run_name": "waits", "seeds": [0]}, plan)
    runner = Runner(store, Execution(), told)
    outcomes = pool.Pool(store, run, runner)(plan, plan.groups)
    assert {arm for arm, _, _ in before} == {"", standard.name, sims.name}
    assert all(cached for _, _, cached in before)
    assert {t for _, t in marks()} == {1, 2}
    shown = [(each.arm, each.stage.label) for each in outcomes]
    assert sorted((arm, label) for arm, label, _ in told.stages) == sorted(shown)
    computed = {(arm, label) for arm, label, cached in told.stages if not cached}
    assert computed == {(sims.name, stage.label) for stage in missing}
    assert computed == {(o.arm, o.stage.label) for o in outcomes if not o.cached}
