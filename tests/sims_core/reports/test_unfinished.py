"""The folder of a run that goes on."""

from __future__ import annotations

import json
import shutil

import pytest

from sims_core.reports import unfinished
from sims_core.reports.following import Following
from sims_core.reports.loop import LOOP
from sims_core.reports.past_runs import PastRun
from sims_core.reports.run_folder import RunToReport, problems_of_run, write_run
from sims_core.reports.unfinished import FolderKeeper, followed, has_ended
from sims_core.store.store import Store
from sims_core.studies.running import Outcome, Silent


def made_through(plan, *ends):
    """The artifacts of so many generations of each arm, and of the setup."""
    found = {stage.ref for stage in plan.setup}
    for arm, end in zip(plan.arms, ends, strict=True):
        found |= {stage.ref for stage in arm.stages if stage.t <= end}
    return found


def shape(plan):
    return plan and {arm.name: arm.generations for arm in plan.arms}


def test_a_loop_is_shown_as_far_as_each_of_its_arms_is(tiny_plan):
    plan = tiny_plan(generations="3")
    standard, sims = (arm.name for arm in plan.arms)
    assert LOOP.so_far(plan, made_through(plan, 0, 0)) is None
    assert shape(LOOP.so_far(plan, made_through(plan, 2, 0))) == {standard: 2}
    assert shape(LOOP.so_far(plan, made_through(plan, 3, 1))) == {standard: 3, sims: 1}
    assert LOOP.so_far(plan, made_through(plan, 3, 1)).generations == 3
    assert shape(LOOP.so_far(plan, made_through(plan, 3, 3))) == {standard: 3, sims: 3}
    almost = made_through(plan, 3, 2) - {plan.arms[1].stages[-10].ref}
    assert plan.arms[1].stages[-10].t == 2
    assert shape(LOOP.so_far(plan, almost)) == {standard: 3, sims: 1}


def test_a_further_seed_is_shown_once_all_of_its_arms_have_begun(tiny_plan):
    plan = tiny_plan(seeds="0,1")
    names = [arm.name for arm in plan.arms]
    first = LOOP.so_far(plan, made_through(plan, 2, 2, 1, 0))
    assert shape(first) == {name.removesuffix(" seed=0"): 2 for name in names[:2]}
    assert first.seeds == (0,)
    both = LOOP.so_far(plan, made_through(plan, 2, 2, 2, 1))
    assert shape(both) == dict(zip(names, (2, 2, 2, 1), strict=True))
    assert both.seeds == (0, 1)


@pytest.fixture
def kept(tiny_run, tmp_path, monkeypatch):
    """Tells a keeper of the tiny run's stages, whose artifacts are all there."""
    monkeypatch.setattr(unfinished, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(unfinished, "SHARE_OF_TIME", 1e9)
    shutil.copytree(tiny_run.store.root, tmp_path / "store", symlinks=True)
    store, plan = Store.open(tmp_path / "store"), tiny_run.plan
    parameters = {"preset": "digits", "seeds": [0]}
    run = RunToReport("sims-loop", "on-its-way", "Digits", parameters, plan, ())
    keeper = Following(Silent(), store, plan, [FolderKeeper(store, run)])
    told = [(arm, stage) for arm, stages in plan.groups for stage in stages]

    def tell(until):
        for arm, stage in told:
            keeper.finished(arm, stage.label, cached=False, seconds=1.0)
            if (arm, stage.label) == until:
                return

    return store, run, tell


def test_links_from_the_first_stage_on_and_a_page_after_each_generation(kept):
    store, run, tell = kept
    folder, standard = run.folder(store), run.plan.arms[0]
    tell((standard.name, "t=01 train base"))
    assert (folder / "arms" / standard.slug / "t=01" / "train_base" / "net").is_dir()
    assert PastRun(folder).state == "unfinished"
    assert not has_ended(folder)
    assert problems_of_run(folder) == [], "it goes on, nothing of it is lost"
    tell((standard.name, "t=01 evaluate"))
    page = (folder / "report" / "index.html").read_text()
    assert "<h1>Unfinished (" in page
    assert (folder / "arms" / standard.slug / "t=01" / "evaluate" / "metrics.json").is_file()
    assert [row["t"] for row in PastRun(folder).rows] == [1]
    assert PastRun(folder).state == "unfinished"
    assert problems_of_run(folder) == []


def test_the_end_of_the_run_replaces_it_and_a_later_run_leaves_that(kept):
    store, run, tell = kept
    folder, sims = run.folder(store), run.plan.arms[1]
    tell((sims.name, "t=01 evaluate"))
    assert json.loads((folder / "run.json").read_text())["unfinished"].endswith(" stages")
    shown = [(row["arm"], row["t"]) for row in PastRun(folder).rows]
    standard = run.plan.arms[0]
    assert shown == [(standard.name, 1), (standard.name, 2), (sims.name, 1)], "none is taken away"
    page = (folder / "report" / "index.html").read_text()
    assert page.count(f">{standard.name}, t = 1, 2<") == 1, "a strip of that arm alone"
    assert f"{sims.name}, t = 1" not in page
    outcomes = [
        Outcome(arm, stage, False, 1.0) for arm, stages in run.plan.groups for stage in stages
    ]
    ended = RunToReport(run.flow, run.run_name, run.title, run.parameters, run.plan, outcomes)
    write_run(store, ended)
    assert has_ended(folder)
    assert PastRun(folder).state == "finished"
    page = (folder / "report" / "index.html").read_bytes()
    again = followed(Silent(), store, run)
    for arm, stages in run.plan.groups:
        for stage in stages:
            again.finished(arm, stage.label, cached=False, seconds=1.0)
    assert (folder / "report" / "index.html").read_bytes() == page


def test_trouble_with_the_folder_does_not_end_the_run(kept, caplog):
    store, run, tell = kept
    run.folder(store).parent.mkdir(exist_ok=True)
    run.folder(store).write_text("in the way")
    tell((run.plan.arms[0].name, "t=01 evaluate"))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "runs/on-its-way is not kept up to date any more"
    ]
