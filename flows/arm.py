"""The sub-flow of one arm: its generations' stages as flat tasks with their true edges."""

from __future__ import annotations

from collections.abc import Callable

from prefect import State, flow

from sims_core.reports.summary import Outcome, shown_generations
from sims_core.settings import open_store
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, plan_arm
from sims_core.studies.plan import PlannedStage
from tasks.artifacts import show_generation
from tasks.stages import run_task

MAX_TAGGED_GENERATIONS = 10
"""In a longer loop tags and UI artifacts would take longer than its stages. The tasks' names carry
t as well; and a few generations are shown."""


States = dict[ArtifactRef, State[ArtifactRef]]


def run_stages(
    stages: tuple[PlannedStage, ...],
    arm: str = "",
    after_generation: Callable[[int], None] = lambda t: None,
    states: States | None = None,
) -> list[Outcome]:
    """Runs the stages in order as tasks of the current flow run.

    A task is given the states of those tasks of this flow run that make its inputs: that is where
    Prefect's graph has its edges from, also from one generation to the next.

    Args:
        arm: Where they belong.
        after_generation: Called with t after the last stage of each generation.
        states: Of the flow run's earlier tasks; those of the new ones are added.
    """
    store = open_store()
    last = {stage.t: stage for stage in stages}
    tagged = max((stage.t for stage in stages), default=0) <= MAX_TAGGED_GENERATIONS
    states = {} if states is None else states
    outcomes = []
    for stage in stages:
        upstream = [states[ref] for ref in stage.request.inputs.values() if ref in states]
        states[stage.ref], outcome = run_task(store, stage, upstream, arm, tagged)
        outcomes.append(outcome)
        if stage is last[stage.t]:
            after_generation(stage.t)
    return outcomes


@flow(name="arm", flow_run_name="{name}", validate_parameters=False, persist_result=False)
def run_arm(
    name: str, arm: Arm, experiment: Experiment, generations: int, seed: int, run_name: str
) -> list[Outcome]:
    """All generations of one arm; each (of many: a few) leaves its samples in Prefect's UI.

    Args:
        name: What the arm is, as shown in the UI.
        arm: Its method, loop and pollution size.
        experiment: The preset's science. The plan is made from it again here, since a plan of a
            hundred generations would be too large for a flow's parameter.
        generations: How many.
        seed: Of the run.
        run_name: Of the run: what its artifacts in the UI are called.
    """
    plan = plan_arm(experiment, arm, generations, seed)
    store, shown = open_store(), shown_generations(generations, MAX_TAGGED_GENERATIONS)

    def show(t: int) -> None:
        if t in shown:
            show_generation(store, experiment, plan, run_name, t, generations)

    return run_stages(plan.stages, name, show)
