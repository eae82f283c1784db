"""A run is planned once in a process, and a flow's parameters are known without Prefect."""

from __future__ import annotations

import inspect

import pytest

from flows import planned
from flows.parameters import check_parameters, checked, make_plan, parameter_model
from flows.planned import PlannedRun, plan_once
from flows.presets import find_preset, load_presets
from flows.registry import load_flow, load_signature
from sims_core.store.store import Store

FLOWS = sorted({preset.flow for preset in load_presets().values()})
PRESET = find_preset("sims-loop/digits")


@pytest.fixture
def plans(monkeypatch):
    """The flows that plans are made for, in order."""
    made = []

    def counted(flow, parameters, store):
        made.append(flow)
        return make_plan(flow, parameters, store)

    monkeypatch.setattr(planned, "make_plan", counted)
    monkeypatch.setattr(planned, "_plans", {})
    return made


def parameters(**given):
    return check_parameters(load_signature("sims-loop"), PRESET, given)


@pytest.mark.parametrize("name", FLOWS)
def test_prefects_flow_has_the_declared_parameters(name):
    flow, signature = load_flow(name), load_signature(name)
    declared = inspect.signature(signature, eval_str=True)
    assert inspect.signature(flow.fn, eval_str=True) == declared
    assert flow.fn.__doc__ == signature.__doc__
    properties = flow.parameters.properties
    assert list(properties) == list(declared.parameters)
    schema = parameter_model(signature).model_json_schema()["properties"]
    for field, shown in properties.items():
        wanted = {k: v for k, v in schema[field].items() if k not in ("title", "$ref")}
        assert wanted.items() <= shown.items(), field


@pytest.mark.parametrize("name", FLOWS)
def test_what_prefect_hands_over_is_what_was_checked(name):
    """Enumerations and the like, as they come from a validated signature."""
    signature = load_signature(name)
    preset = next(preset for preset in load_presets().values() if preset.flow == name)
    asked = check_parameters(signature, preset, {})
    handed = signature(**dict(parameter_model(signature).model_validate(asked)))
    assert checked(signature, handed) == asked


def test_the_same_run_is_planned_once(plans, tmp_path):
    store = Store.open(tmp_path)
    first = PlannedRun.of("sims-loop", parameters(), store)
    again = PlannedRun.of("sims-loop", parameters(run_name="other"), Store(tmp_path))
    assert again.plan is first.plan
    assert plans == ["sims-loop"]


def test_what_a_plan_depends_on_makes_it_anew(plans, tmp_path, monkeypatch):
    store = Store.open(tmp_path)
    first = plan_once("sims-loop", parameters(), store)
    other = plan_once("sims-loop", parameters(seeds=[1]), store)
    assert {s.ref for s in other} != {s.ref for s in first}
    assert plan_once("sims-loop", parameters(), store) == first
    (tmp_path / "datasets" / "mine.json").write_text("{}")
    assert plan_once("sims-loop", parameters(), store) == first
    monkeypatch.setenv("SIMS_SAMPLING_BATCH_SIZE", "7")
    assert plan_once("sims-loop", parameters(), store) == first
    assert len(plans) == 5


def test_a_run_is_called_what_it_was_told_to_be(tmp_path):
    store = Store.open(tmp_path)
    assert PlannedRun.of("sims-loop", parameters(run_name="mine"), store).name == "mine"
    unnamed = PlannedRun.of("sims-loop", parameters(), store)
    assert unnamed.name.startswith("digits-")
    report = unnamed.ended(unnamed.plan, [])
    assert report.run_name == unnamed.name
    assert "run_name" not in report.parameters
    assert report.title == PRESET.description
