"""What runs are called on Prefect's pages."""

from __future__ import annotations

import pytest

from flows.parameters import check_parameters
from flows.presets import find_preset
from flows.registry import load_signature
from flows.told_apart import MOST, run_title


def titled(full_name, **given):
    preset = find_preset(full_name)
    return run_title(preset.flow, check_parameters(load_signature(preset.flow), preset, given))


@pytest.mark.parametrize(
    ("preset", "given", "title"),
    [
        ("sims-loop/digits", {}, "digits seed=0"),
        ("sims-loop/digits", {"omegas": [1, 2], "seeds": [3]}, "digits omegas=1,2 seed=3"),
        ("sims-loop/digits", {"omegas": [1.0], "generations": 3}, "digits seed=0"),
        (
            "sims-loop/digits",
            {"overrides": {"training.kimg": 50}, "arms": "pool", "run_name": "mine"},
            "digits arms=pool run_name=mine seed=0 training.kimg=50",
        ),
        ("pollution/digits", {"methods": ["standard"]}, "digits methods=standard seeds=0,1,2"),
        ("self-improvement/digits", {"seeds": 4}, "digits seed=4"),
    ],
)
def test_a_run_is_called_after_its_preset_and_what_differs(preset, given, title):
    assert titled(preset, **given) == title


def test_of_a_long_name_the_overrides_are_cut():
    overrides = {f"training.field{n}": n for n in range(30)}
    title = titled("sims-loop/digits", seeds=[7], omegas=[0.5], overrides=overrides)
    assert title.startswith("digits omegas=0.5 seed=7 training.field0=0 ")
    assert (len(title), title[-3:]) == (MOST, "...")
