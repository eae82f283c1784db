"""Flow "sims-loop": t generations of standard training and of SIMS in a self-consuming loop."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.arm import run_arm, run_stages
from flows.parameters import (
    Generations,
    Methods,
    Omegas,
    PollutionSizes,
    RunName,
    ScanBudgets,
    ScanOmegas,
    Seed,
    choice,
    default_run_name,
    make_experiment,
    make_loop_plan,
)
from flows.presets import find_preset
from flows.registry import preset_names
from sims_core.reports.summary import RunSummary
from sims_core.settings import open_store
from sims_core.studies.loop import Accumulation, LoopKind
from tasks.artifacts import show_report
from tasks.crashes import crash_arms
from tasks.report import write_run


@flow(
    name="sims-loop",
    flow_run_name="{preset}: {generations} generations",
    persist_result=False,
    on_running=[crash_arms],
    on_crashed=[crash_arms],
)
def sims_loop(
    preset: Annotated[str, choice(preset_names("sims-loop"))] = "digits",
    generations: Generations = 3,
    methods: Methods = ["standard", "sims"],  # noqa: B006 - Prefect reads it
    omegas: Omegas = [1.0],  # noqa: B006
    loop: LoopKind = LoopKind.synthetic_augmentation,
    accumulation: Accumulation = Accumulation.replace_,
    pollution_sizes: PollutionSizes = [1797],  # noqa: B006
    scan_omegas: ScanOmegas = [],  # noqa: B006
    scan_budgets: ScanBudgets = [],  # noqa: B006
    seed: Seed = 0,
    run_name: RunName | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> RunSummary:
    """Runs the loop for every method and pollution size, evaluates each generation and reports.

    Args:
        preset: Which experiment: data, networks, budgets, evaluation.
        generations: How many generations; t = 1 is trained on real data only.
        methods: Which methods to compare.
        omegas: Guidance strengths, one SIMS arm each; 0 is standard training.
        loop: What each generation after the first is trained on.
        pollution_sizes: How many images of the generation before enter the training set.
        accumulation: Whether synthetic data replace, join or share a budget with earlier ones.
        scan_omegas: Guidance strengths of a scan of the first generation (self-improvement).
        scan_budgets: Auxiliary budgets of that scan, in million images; none is the preset's.
        seed: Every random number of the run derives from it.
        run_name: Name of the folder under runs/; made from the parameters if not given.
        overrides: Rarely changed settings of the preset by dotted name, e.g. {"training.kimg": 50}.
    """
    parameters = {
        "preset": preset,
        "generations": generations,
        "methods": methods,
        "omegas": omegas,
        "loop": str(loop),
        "accumulation": str(accumulation),
        "pollution_sizes": pollution_sizes,
        "scan_omegas": scan_omegas,
        "scan_budgets": scan_budgets,
        "seed": seed,
        "overrides": overrides,
    }
    experiment = make_experiment(sims_loop.name, parameters, open_store())
    plan = make_loop_plan(experiment, parameters)
    name = run_name or default_run_name(sims_loop.name, parameters)
    outcomes = run_stages(plan.setup)
    # A sub-flow's heartbeat thread costs 0.9 s to join; the run's own heartbeat goes on.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for planned in plan.arms:
            outcomes += run_arm(
                planned.arm.name, planned.arm, plan.experiment, generations, seed, name
            )
    outcomes += run_stages(plan.scan_stages, "first generation")
    title = find_preset(f"{sims_loop.name}/{preset}").description
    summary: RunSummary = write_run(sims_loop.name, name, title, parameters, plan, outcomes)
    show_report(summary)
    return summary
