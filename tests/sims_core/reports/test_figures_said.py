"""The figures in the log of a run, as they are measured."""

from __future__ import annotations

import json
import logging

import pytest

from sims_core.reports.figures_said import FiguresSaid
from sims_core.reports.following import Following
from sims_core.studies.running import Silent


@pytest.fixture
def said(caplog):
    """The lines that a run of this plan logs, whose artifacts are all in the store."""

    def say(store, plan, groups=None):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="sims_core.figures"):
            told = Following(Silent(), store, plan, [FiguresSaid(store)], groups)
            for arm, stages in groups or plan.completed(store).groups:
                for stage in stages:
                    told.finished(arm, stage.label, cached=False, seconds=1.0)
        return list(caplog.messages)

    return say


def test_each_generation_of_each_arm_is_one_line_with_its_figures(tiny_run, said):
    lines = said(tiny_run.store, tiny_run.plan)
    expected = []
    for number, arm in enumerate(tiny_run.plan.arms):
        for t in (1, 2):
            folder = tiny_run.folder(number, t, "evaluate")
            found = json.loads((folder / "metrics.json").read_text())
            figures = ", ".join(
                f"{name} {found[key]:.4g}"
                for key, name in {
                    "fid": "fid",
                    "kid": "kid",
                    "precision": "precision (k = 3)",
                    "recall": "recall (k = 3)",
                }.items()
            )
            expected.append(f"{arm.name}, t = {t} of 2: {figures}")
    assert lines == expected


def test_a_worker_says_those_of_its_arm(tiny_run, said):
    arm = tiny_run.plan.arms[1]
    part = (arm.name, (*tiny_run.plan.setup, *arm.stages))
    lines = said(tiny_run.store, tiny_run.plan, [part])
    assert [line.split(":")[0] for line in lines] == [f"{arm.name}, t = {t} of 2" for t in (1, 2)]
