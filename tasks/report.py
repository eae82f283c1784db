"""The report of a run as a task: shown in Prefect's UI, never cached, since it is a view."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from sims_core.reports.run_folder import RunToReport, write_run
from sims_core.reports.summary import RunSummary
from sims_core.store.store import Store


def report_run(store: Store, run: RunToReport) -> RunSummary:
    """Writes runs/<run name>/ in a task of the current flow run."""

    @task(
        name="report",
        task_run_name=f"report {run.run_name}",
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def report() -> RunSummary:
        return write_run(store, run)

    return report()
