"""What flow "distribution-shift" takes, and how that expands into its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from flows.parameters import Arms, ImageCount, NoneTwice, Omegas, RunName, Seeds, choice
from flows.registry import preset_names
from sims_core.studies.experiment import Experiment
from sims_core.studies.shift import Shift, ShiftPlan, plan_shift
from sims_core.studies.shift_kind import shift_kind
from sims_core.studies.shift_targets import make_targets

GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=40)]
Groups = dict[GroupName, Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]]
FiniteShare = Annotated[float, Field(allow_inf_nan=False)]
Targets = Annotated[
    list[FiniteShare | dict[GroupName, FiniteShare]], Field(min_length=1), NoneTwice
]
Exponents = Annotated[
    list[Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]],
    Field(min_length=1),
    NoneTwice,
]


def distribution_shift(
    preset: Annotated[str, choice(preset_names("distribution-shift"))] = "digits",
    groups: Groups = {},  # noqa: B006 - Prefect reads it
    targets: Targets = [0.5],  # noqa: B006
    omegas: Omegas = [1.0],  # noqa: B006
    exponents: Exponents = [1.0, 2.0],  # noqa: B006
    select_images: ImageCount = 1024,
    final_images: ImageCount = 1797,
    seeds: Seeds = [0, 1, 2],  # noqa: B006
    arms: Arms = "here",
    run_name: RunName | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """Moves the mix of classes that a model makes to chosen targets, beside plain baselines.

    Args:
        preset: Which experiment: data, networks, budgets, evaluation.
        groups: Classes of each group by its name; every class must be in one. Empty: each class is
            a group, called by its number.
        targets: Mixes to reach: the share of every group by its name, or of two groups the share of
            the first alone.
        omegas: Guidance strengths to choose from.
        exponents: How strongly the auxiliary's data may be skewed, to choose from: 1 is the formula
            for classes that are well apart.
        select_images: Images that each choice is made on, judged by the first classifier.
        final_images: Images of other seeds that are reported, judged by the second one.
        seeds: Each model is made once for each of them; data, classifiers and evaluation are those
            of the first.
        arms: Where arms are computed: here, one after the other, or side by side by the workers of
            the pool sims-arms (docs/scale.md).
        run_name: Name of the folder under runs/; made from the parameters if not given.
        overrides: Rarely changed settings of the preset by dotted name, e.g. {"training.kimg": 50}.
    """
    return dict(locals())


def plan(experiment: Experiment, parameters: Mapping[str, Any]) -> ShiftPlan:
    """Everything up to the selection, planned in full."""
    classes = shift_kind(experiment).num_classes(experiment)
    shift = Shift(
        targets=make_targets(parameters["groups"], parameters["targets"], classes),
        omegas=tuple(parameters["omegas"]),
        exponents=tuple(parameters["exponents"]),
        select_images=parameters["select_images"],
        final_images=parameters["final_images"],
    )
    return plan_shift(experiment, shift, tuple(parameters["seeds"]))
