"""The parts of a plan: each can be computed by itself, and together they are the plan."""

from __future__ import annotations

import pytest

from infra.cli.runs import check_run
from sims_core.common import roles
from sims_core.studies.side_by_side import parts_of


@pytest.fixture(params=["sims-loop", "self-improvement", "pollution", "distribution-shift"])
def plan(request):
    return check_run(f"{request.param}/digits", []).plan


def test_each_part_is_whole_by_itself_and_together_they_are_the_plan(plan):
    made_by_plan = {stage.ref for stage in plan}
    parts = parts_of(plan)
    assert {stage.ref for part in parts for stage in part.stages} == made_by_plan
    assert len({part.name for part in parts}) == len(parts) > 1
    assert len({part.digest for part in parts}) == len(parts)
    for part in parts:
        made = set()
        for stage in part.stages:
            needed = made_by_plan.intersection(stage.request.inputs.values())
            assert needed <= made, (part.name, stage.label)
            made.add(stage.ref)


def test_what_arms_share_is_in_each_that_needs_it():
    plan = check_run("sims-loop/digits", ["omegas=1,2", "scan_omegas=0.5"]).plan
    parts = {part.name: part for part in parts_of(plan)}
    assert list(parts) == [
        "standard |D_s|=1797",
        "sims omega=1 |D_s|=1797",
        "sims omega=2 |D_s|=1797",
        "first generation, sims omega=0.5 |D_s|=1797",
    ]
    base = plan.arms[0].artifacts(1)[roles.TRAIN_BASE]
    for part in parts.values():
        assert base in {stage.ref for stage in part.stages}
        assert plan.setup == part.needed


def test_what_no_part_needs_is_a_part_of_its_own():
    plan = check_run("sims-loop/digits", ["generations=1"]).plan

    class Fewer:
        parts = plan.parts[:1]

        def __iter__(self):
            return iter(plan)

    first, rest = parts_of(Fewer())
    assert first.own == plan.arms[0].stages
    assert {stage.ref for stage in rest.own} == {stage.ref for stage in plan} - {
        stage.ref for stage in first.stages
    }
