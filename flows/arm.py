"""How flows run their stages, and the sub-flow of one arm: flat tasks with their true edges."""

from __future__ import annotations

from collections.abc import Callable

from prefect import flow

from flows.planned import PlannedRun
from sims_core.reports.summary import shown_generations
from sims_core.settings import Settings
from sims_core.store.store import Store
from sims_core.studies.freshness import Recompute
from sims_core.studies.loop import ArmPlan, LoopPlan
from sims_core.studies.plan import Plan
from sims_core.studies.resolve import execution_of
from sims_core.studies.running import Observer, Outcome, Runner
from tasks.artifacts import show_generation, show_so_far
from tasks.logs import figures_in_this_log
from tasks.stages import TaskStep

MAX_TAGGED_GENERATIONS = 10
"""In a longer loop tags and UI artifacts would take longer than its stages. The tasks' names carry
t as well; and a few generations are shown."""


def task_runner(
    store: Store, plan: Plan, told: Observer, recompute: Recompute | None = None
) -> Runner:
    """Runs stages as tasks of the flow run that it is made in.

    Args:
        told: of each stage.
        recompute: of the run; None if it begins here.
    """
    settings = Settings.read()
    recompute = recompute or Recompute.of(settings.recompute)
    tagged = max((stage.t for stage in plan), default=0) <= MAX_TAGGED_GENERATIONS
    execution = execution_of(plan.experiment, settings.execution())
    step = TaskStep(store, settings, tagged, recompute)
    return Runner(store, execution, told, step, recompute)


def run_arm(
    store: Store, run: PlannedRun, plan: LoopPlan, arm: ArmPlan, runner: Runner
) -> list[Outcome]:
    """All generations of one arm as a sub-flow run with the arm's name and the run's.

    Each generation (of many: a few) leaves its samples in Prefect's UI. The flow is made here,
    round the arm's plan: as a parameter a plan of a hundred generations would be too large.

    Args:
        runner: of the run.
    """

    @flow(
        name="arm",
        flow_run_name="{name} of {run_name}",
        validate_parameters=False,
        persist_result=False,
    )
    def sub_flow(name: str, generations: int, run_name: str) -> list[Outcome]:
        """All generations of one arm."""
        show = shows_generations(store, run, plan, arm)
        own = task_runner(store, plan, runner.observer, runner.recompute)
        return own.run(name, arm.stages, show)

    with figures_in_this_log():
        return sub_flow(arm.name, plan.generations, run.name)


def shows_generations(
    store: Store, run: PlannedRun, plan: LoopPlan, arm: ArmPlan
) -> Callable[[int], None]:
    """What shows a generation of an arm in Prefect's UI, called with t once it is made."""
    shown = shown_generations(plan.generations, MAX_TAGGED_GENERATIONS)

    def show(t: int) -> None:
        if t in shown:
            show_generation(store, plan.experiment, arm, run.name, t, plan.generations)
            show_so_far(store, plan, run.name)

    return show
