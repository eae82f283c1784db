"""The sub-flow of one arm: its generations' stages as flat tasks with their true edges."""

from __future__ import annotations

from prefect import State, flow

from infra.storage import open_store
from sims_core.config import Experiment
from sims_core.loop import Arm, PlannedStage, plan_arm
from sims_core.store import ArtifactRef
from sims_core.summary import Outcome
from tasks.stages import run_task

MAX_TAGGED_GENERATIONS = 10
"""In a longer loop tags would take longer than its stages; the tasks' names carry t as well."""


def run_stages(stages: tuple[PlannedStage, ...], arm: str = "") -> list[Outcome]:
    """Runs the stages in order as tasks of the current flow run.

    A task is given the states of those tasks of this flow run that make its inputs: that is where
    Prefect's graph has its edges from, also from one generation to the next.
    """
    store = open_store()
    tagged = max((stage.t for stage in stages), default=0) <= MAX_TAGGED_GENERATIONS
    states: dict[ArtifactRef, State[ArtifactRef]] = {}
    outcomes = []
    for stage in stages:
        upstream = [states[ref] for ref in stage.request.inputs.values() if ref in states]
        states[stage.ref], outcome = run_task(store, stage, upstream, arm, tagged)
        outcomes.append(outcome)
    return outcomes


@flow(name="arm", flow_run_name="{name}", validate_parameters=False, persist_result=False)
def run_arm(
    name: str, arm: Arm, experiment: Experiment, generations: int, seed: int
) -> list[Outcome]:
    """All generations of one arm.

    Args:
        name: What the arm is, as shown in the UI.
        arm: Its method, loop and pollution size.
        experiment: The preset's science. The plan is made from it again here, since a plan of a
            hundred generations would be too large for a flow's parameter.
        generations: How many.
        seed: Of the run.
    """
    return run_stages(plan_arm(experiment, arm, generations, seed).stages, name)
