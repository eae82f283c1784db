"""What flow "pollution" takes, and how that expands into its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from flows.parameters import (
    Arms,
    Methods,
    NoneTwice,
    Omegas,
    RunName,
    Seeds,
    Ws,
    choice,
    chosen_methods,
)
from flows.registry import preset_names
from sims_core.common.seeding import MOST_IMAGES
from sims_core.studies.experiment import Experiment
from sims_core.studies.pollution import PollutionPlan, plan_pollution

Sizes = Annotated[list[Annotated[int, Field(ge=0, le=MOST_IMAGES)]], Field(min_length=1), NoneTwice]


def pollution(
    preset: Annotated[str, choice(preset_names("pollution"))] = "digits",
    pollution_sizes: Sizes = [450, 900, 1797],  # noqa: B006 - Prefect reads it
    methods: Methods = ["standard", "sims"],  # noqa: B006
    omegas: Omegas = [1.0],  # noqa: B006
    ws: Ws = [1.0],  # noqa: B006
    seeds: Seeds = [0, 1, 2],  # noqa: B006
    arms: Arms = "here",
    run_name: RunName | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """Trains second-generation models on real data and on real data with polluting samples.

    Args:
        preset: Which experiment: data, networks, budgets, evaluation.
        pollution_sizes: How many samples of a first-generation model join the real data; the ideal
            scenario, none, is always measured.
        methods: Which methods to compare.
        omegas: Guidance strengths, a model of each guided method each; 0 is standard training.
        ws: Strengths of Neon's merge of weights, one model each.
        seeds: Each model is made once for each of them; data and evaluation are those of the first.
        arms: Where arms are computed: here, one after the other, or side by side by the workers of
            the pool sims-arms (docs/scale.md).
        run_name: Name of the folder under runs/; made from the parameters if not given.
        overrides: Rarely changed settings of the preset by dotted name, e.g. {"training.kimg": 50}.
    """
    return dict(locals())


def plan(experiment: Experiment, parameters: Mapping[str, Any]) -> PollutionPlan:
    """Every scenario, planned in full."""
    return plan_pollution(
        experiment,
        tuple(chosen_methods(experiment, parameters)),
        tuple(parameters["pollution_sizes"]),
        tuple(parameters["seeds"]),
    )
