"""Flow "self-improvement": Algorithm 1 over budgets x omegas; does SIMS improve *this* model?"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters import checked
from flows.planned import PlannedRun
from flows.pool import ran_stages
from flows.registry import takes
from flows.signatures.self_improvement import self_improvement as signature
from flows.told_apart import title_of_this_run
from sims_core.reports.summary import RunSummary
from sims_core.settings import open_store
from tasks.artifacts import show_report
from tasks.attempts import tell_apart
from tasks.pool import cancel_arms
from tasks.report import report_run


@flow(
    name="self-improvement",
    flow_run_name=title_of_this_run,
    persist_result=False,
    on_running=[tell_apart],
    on_cancellation=[cancel_arms],
)
@takes(signature)
def self_improvement(parameters: dict[str, Any]) -> RunSummary:
    """Plans the run of these flat parameters, runs its phases as flat tasks, and reports."""
    store = open_store()
    run = PlannedRun.of("self-improvement", checked(signature, parameters), store)
    with ran_stages(store, run) as (whole, outcomes):
        summary = report_run(store, run.ended(whole, outcomes))
        show_report(store, summary, whole)
    return summary
