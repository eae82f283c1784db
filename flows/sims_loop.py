"""Flow "sims-loop": t generations of standard training and of SIMS in a self-consuming loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.arm import run_arm
from flows.parameters import checked
from flows.planned import PlannedRun
from flows.pool import ran_stages
from flows.registry import takes
from flows.signatures.sims_loop import sims_loop as signature
from flows.told_apart import title_of_this_run
from sims_core.reports.summary import RunSummary
from sims_core.settings import open_store
from sims_core.studies.loop import LoopPlan
from sims_core.studies.plan import PlannedStage
from sims_core.studies.running import Outcome, Runner
from tasks.artifacts import show_report
from tasks.attempts import tell_apart
from tasks.crashes import crash_arms
from tasks.pool import cancel_arms
from tasks.report import report_run


@flow(
    name="sims-loop",
    flow_run_name=title_of_this_run,
    persist_result=False,
    on_running=[crash_arms, tell_apart],
    on_crashed=[crash_arms],
    on_failure=[crash_arms],
    on_cancellation=[cancel_arms],
)
@takes(signature)
def sims_loop(parameters: dict[str, Any]) -> RunSummary:
    """Plans the run of these flat parameters, runs every arm as a sub-flow, and reports."""
    store = open_store()
    run = PlannedRun.of("sims-loop", checked(signature, parameters), store)
    plan = cast(LoopPlan, run.plan)  # what this flow's parameters are expanded into
    arms = {arm.name: arm for arm in plan.arms}

    def run_group(runner: Runner, name: str, stages: Sequence[PlannedStage]) -> list[Outcome]:
        if name in arms:
            return run_arm(store, run, plan, arms[name], runner)
        return runner.run(name, stages)

    # A sub-flow's heartbeat thread costs 0.9 s to join; the run's own heartbeat goes on.
    without_heartbeat = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with without_heartbeat, ran_stages(store, run, run_group) as (whole, outcomes):
        summary = report_run(store, run.ended(whole, outcomes))
        show_report(store, summary, whole)
    return summary
