"""What flow "self-improvement" takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from flows.parameters import Budgets, Finalists, ImageCount, Omegas, RunName, Seed, choice
from flows.registry import preset_names
from sims_core.studies.experiment import Experiment
from sims_core.studies.self_improvement import StudyPlan, Sweep, plan_study


def self_improvement(
    preset: Annotated[str, choice(preset_names("self-improvement"))] = "digits",
    omegas: Omegas = [0.5, 1.0, 2.0],  # noqa: B006 - Prefect reads it
    budgets: Budgets = [0.0032, 0.0064, 0.0128],  # noqa: B006
    n_s: ImageCount = 4000,
    select_images: ImageCount = 640,
    final_images: ImageCount = 1797,
    finalists: Finalists = 2,
    seed: Seed = 0,
    run_name: RunName | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """Finds the omega and the budget at which SIMS improves a model, and by how much.

    Args:
        preset: Which experiment: data, networks, evaluation.
        omegas: Guidance strengths to try; 0 is the base, which is measured in any case.
        budgets: Training lengths of the auxiliary to try, in million images.
        n_s: How many images of the base the auxiliary is fine-tuned on (the set S).
        select_images: Images behind each FID of the selection.
        final_images: Images behind each final FID, on seeds that the selection has not seen.
        finalists: How many of the best (omega, budget) are measured again on them.
        seed: Every random number of the run derives from it.
        run_name: Name of the folder under runs/; made from the parameters if not given.
        overrides: Rarely changed settings of the preset by dotted name, e.g. {"training.kimg": 50}.
    """
    return dict(locals())


def plan(experiment: Experiment, parameters: Mapping[str, Any]) -> StudyPlan:
    """Omegas x budgets, planned up to the selection."""
    sweep = Sweep(
        omegas=tuple(parameters["omegas"]),
        budgets_mimg=tuple(parameters["budgets"]),
        **{name: parameters[name] for name in ("n_s", "select_images", "final_images")},
        finalists=parameters["finalists"],
    )
    return plan_study(experiment, sweep, parameters["seed"])
