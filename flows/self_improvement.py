"""Flow "self-improvement": Algorithm 1 over budgets x omegas; does SIMS improve *this* model?"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow

from flows.arm import States, run_stages
from flows.parameters import (
    Budgets,
    Finalists,
    ImageCount,
    Omegas,
    RunName,
    Seed,
    choice,
    default_run_name,
    make_experiment,
    make_study_plan,
)
from flows.presets import find_preset
from flows.registry import preset_names
from sims_core.reports.summary import RunSummary
from sims_core.settings import open_store
from tasks.artifacts import show_report
from tasks.report import write_run


@flow(name="self-improvement", flow_run_name="{preset}", persist_result=False)
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
) -> RunSummary:
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
    parameters = {
        "preset": preset,
        "omegas": omegas,
        "budgets": budgets,
        "n_s": n_s,
        "select_images": select_images,
        "final_images": final_images,
        "finalists": finalists,
        "seed": seed,
        "overrides": overrides,
    }
    name = run_name or default_run_name(self_improvement.name, parameters)
    store = open_store()
    plan = make_study_plan(make_experiment(self_improvement.name, parameters, store), parameters)
    states: States = {}
    outcomes = []
    for phase, stages in plan.groups:
        outcomes += run_stages(stages, phase, states=states)
    whole = plan.completed(store)
    for phase, stages in whole.groups[len(plan.groups) :]:
        outcomes += run_stages(stages, phase, states=states)
    title = find_preset(f"{self_improvement.name}/{preset}").description
    summary: RunSummary = write_run(self_improvement.name, name, title, parameters, whole, outcomes)
    show_report(summary)
    return summary
