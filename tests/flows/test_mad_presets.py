"""The presets of MAD's loops: each kind of loop on each set of images."""

import pytest

from flows.parameters import check_parameters, make_plan
from flows.presets import find_preset, load_presets
from flows.sims_loop import sims_loop
from sims_core.store.store import Store
from sims_core.studies.loop import LoopKind

MAD = [preset for name, preset in load_presets().items() if "/mad-" in name]


def test_there_is_each_loop_on_each_set():
    found = {(p.parameters["loop"], p.experiment.data.source) for p in MAD}
    assert found == {(loop, source) for loop in LoopKind for source in ("digits", "mnist")}


@pytest.mark.parametrize("preset", MAD, ids=lambda preset: preset.name)
def test_what_is_known_of_the_paper(preset):
    """10 % of labels dropped, k = 5, lambda 1 and 1/2, six generations or more."""
    experiment, parameters = preset.experiment, preset.parameters
    assert experiment.model.net.num_classes == 10
    assert experiment.model.net.label_dropout == 0.1
    assert experiment.evaluation.prc_neighborhood == 5
    assert parameters["class_guidances"] == [0.0, 1.0]
    assert parameters["generations"] >= 6
    fresh = experiment.data.fresh_images is not None
    assert fresh == (parameters["loop"] is LoopKind.fresh_data)
    if experiment.data.source == "mnist":
        assert parameters["pollution_sizes"] == [2000 if fresh else 60_000]


def test_class_guidances_are_arms(tmp_path):
    preset = find_preset("sims-loop/mad-digits-fresh")
    given = {"methods": ["standard", "sims"], "class_guidances": [1, 0], "seeds": [0]}
    plan = make_plan(
        "sims-loop", check_parameters(sims_loop.fn, preset, given), Store(tmp_path / "none")
    )
    assert [arm.arm.name for arm in plan.arms] == [
        "standard |D_s|=250 lambda=0.5",
        "sims omega=1 |D_s|=250 lambda=0.5",
        "standard |D_s|=250",
        "sims omega=1 |D_s|=250",
    ]


def test_without_any_it_is_the_sampler_s(tmp_path):
    preset = find_preset("sims-loop/mad-digits-synthetic")
    given = {"class_guidances": [], "overrides": {"sampler.class_guidance": 3}, "seeds": 0}
    plan = make_plan(
        "sims-loop", check_parameters(sims_loop.fn, preset, given), Store(tmp_path / "none")
    )
    assert [arm.arm.name for arm in plan.arms] == ["standard |D_s|=1797 lambda=0.25"]
