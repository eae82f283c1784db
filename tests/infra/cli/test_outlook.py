"""How long a run still takes, as the terminal says it."""

from __future__ import annotations

import pytest

from infra.cli import outlook as module
from infra.cli.outlook import Outlook
from sims_core.store.store import Store


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_it_is_known_once_a_network_is_trained_and_never_below_the_stages(
    clock, tiny_plan, tmp_path
):
    plan = tiny_plan()
    outlook = Outlook(Store(tmp_path), plan, "cpu")
    assert outlook.seconds_left is None
    assert outlook.text == ""
    setup, standard = plan.groups[0][1], plan.groups[1]
    for stage in setup:
        outlook.started("", stage.label)
        outlook.finished(cached=False, seconds=1.0)
    assert outlook.seconds_left is None, "nothing of the network is known"
    arm, stages = standard
    outlook.started(arm, stages[0].label)
    outlook.finished(cached=False, seconds=0.1)
    outlook.started(arm, stages[1].label)
    outlook.advanced(100, 1000)
    clock[0] += 10
    outlook.advanced(200, 1000)
    left = outlook.seconds_left
    assert left is not None
    assert left > 80, "the stage alone takes 80 s more"
    clock[0] += 80
    outlook.advanced(1000, 1000)
    rest = outlook.seconds_left
    assert rest == pytest.approx(left - 80)
    outlook.finished(cached=False, seconds=100.0)
    assert outlook.seconds_left == pytest.approx(rest)
    assert outlook.text.startswith("about ")


def test_when_all_has_run_nothing_is_left(clock, tiny_plan, tmp_path):
    plan = tiny_plan()
    outlook = Outlook(Store(tmp_path), plan, "cpu")
    for arm, stages in plan.groups:
        for stage in stages:
            outlook.started(arm, stage.label)
            outlook.finished(cached=False, seconds=2.0)
    assert outlook.seconds_left == 0
    assert outlook.text == ""


def test_what_the_store_has_takes_no_time(tiny_run, tiny_plan):
    store = Store(tiny_run.store)
    assert Outlook(store, tiny_plan(), "cpu").seconds_left == 0
    more = Outlook(store, tiny_plan(generations="3"), "cpu").seconds_left
    assert more is not None
    assert more > 0, "of these networks the store knows how long they take"
