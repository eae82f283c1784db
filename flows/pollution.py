"""Flow "pollution": what do polluting samples in the training set do to each method? (Fig. 5)"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters import checked
from flows.planned import PlannedRun
from flows.pool import ran_stages
from flows.registry import takes
from flows.signatures.pollution import pollution as signature
from flows.told_apart import title_of_this_run
from sims_core.reports.summary import RunSummary
from sims_core.settings import open_store
from tasks.artifacts import show_report
from tasks.attempts import tell_apart
from tasks.pool import cancel_arms
from tasks.report import report_run


@flow(
    name="pollution",
    flow_run_name=title_of_this_run,
    persist_result=False,
    on_running=[tell_apart],
    on_cancellation=[cancel_arms],
)
@takes(signature)
def pollution(parameters: dict[str, Any]) -> RunSummary:
    """Plans the run of these flat parameters, runs its models as flat tasks, and reports."""
    store = open_store()
    run = PlannedRun.of("pollution", checked(signature, parameters), store)
    with ran_stages(store, run) as (whole, outcomes):
        summary = report_run(store, run.ended(whole, outcomes))
        show_report(store, summary, whole)
    return summary
