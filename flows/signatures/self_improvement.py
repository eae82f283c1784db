"""What flow "self-improvement" takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from flows.parameters import (
    Arms,
    Budgets,
    Finalists,
    ImageCount,
    Methods,
    Omegas,
    Repeats,
    RunName,
    Seeds,
    Ws,
    choice,
    chosen_methods,
)
from flows.registry import preset_names
from sims_core.studies.candidates import Sweep
from sims_core.studies.experiment import Experiment
from sims_core.studies.self_improvement import StudyPlan, plan_study


def self_improvement(
    preset: Annotated[str, choice(preset_names("self-improvement"))] = "digits",
    methods: Methods = ["sims"],  # noqa: B006 - Prefect reads it
    omegas: Omegas = [0.5, 1.0, 2.0],  # noqa: B006
    ws: Ws = [0.5, 1.0, 2.0],  # noqa: B006
    budgets: Budgets = [0.0032, 0.0064, 0.0128],  # noqa: B006
    n_s: ImageCount = 4000,
    select_images: ImageCount = 640,
    final_images: ImageCount = 1797,
    finalists: Finalists = 2,
    final_repeats: Repeats = 1,
    seeds: Seeds = [0],  # noqa: B006
    arms: Arms = "here",
    run_name: RunName | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """Finds which method improves a model, at which strength and budget, and by how much.

    Args:
        preset: Which experiment: data, networks, evaluation.
        methods: Which methods to try; the base and the base fine-tuned on S are always measured.
        omegas: Guidance strengths to try; 0 is the base.
        ws: Strengths of Neon's merge of weights to try.
        budgets: Training lengths of the auxiliary to try, in million images.
        n_s: How many images of the base the auxiliary is fine-tuned on (the set S).
        select_images: Images behind each FID of the selection.
        final_images: Images behind each final FID, on seeds that the selection has not seen.
        finalists: How many of each method's best (strength, budget) are measured again on them.
        final_repeats: On how many disjoint sets of images each of these is measured.
        seeds: Every model is made once for each of them, and all random numbers derive from them;
            data and evaluation are those of the first.
        arms: Where arms are computed: here, one after the other, or side by side by the workers of
            the pool sims-arms (docs/scale.md).
        run_name: Name of the folder under runs/; made from the parameters if not given.
        overrides: Rarely changed settings of the preset by dotted name, e.g. {"training.kimg": 50}.
    """
    return dict(locals())


def plan(experiment: Experiment, parameters: Mapping[str, Any]) -> StudyPlan:
    """Methods x strengths x budgets, planned up to the selection."""
    sims = experiment.sims.model_copy(update={"n_s": parameters["n_s"]})
    experiment = experiment.model_copy(update={"sims": sims})
    names = ("n_s", "select_images", "final_images", "finalists", "final_repeats")
    sweep = Sweep(
        methods=tuple(chosen_methods(experiment, parameters)),
        budgets_mimg=tuple(parameters["budgets"]),
        **{name: parameters[name] for name in names},
    )
    seed, *further = parameters["seeds"]
    return plan_study(experiment, sweep, seed, tuple(further))
