"""Writes what people look at: runs/<run name>/ with report, metrics, summary and links."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from sims_core.common.digest import digest_of
from sims_core.common.files import explain_disk_errors
from sims_core.reports.base import report_of
from sims_core.reports.summary import Outcome, RunSummary, count_stages
from sims_core.settings import open_store
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import Plan


def _link_artifacts(store: Store, folder: Path, run_folder: Path, plan: Plan) -> None:
    """The plan's links into the store, relative and valid from `run_folder`."""
    for relative, ref in plan.links:
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(store.path(ref), (run_folder / relative).parent)
        (folder / relative).symlink_to(target)


def _findings(store: Store, plan: Plan) -> dict[str, Any]:
    """What a summary says of the science."""
    return report_of(plan).findings(store, plan)


def _publish(store: Store, folder: Path, run_folder: Path) -> None:
    """Puts `folder` in the place of `run_folder`, one run at a time: two may share a name."""
    with store.lock(ArtifactRef(kind="run", digest=digest_of(run_folder.name))):
        store.swap_in(folder, run_folder)


@task(name="report", task_run_name="report {run_name}", cache_policy=NO_CACHE, persist_result=False)
def write_run(
    flow: str,
    run_name: str,
    title: str,
    parameters: Mapping[str, Any],
    plan: Plan,
    outcomes: Sequence[Outcome],
) -> RunSummary:
    """Makes runs/<run name>/ anew and returns the run's summary. Never cached: it is a view."""
    from sims_core.reports.base import RunDetails
    from sims_core.reports.page import metric_rows, render_report, write_metrics

    store = open_store()
    run_folder = store.root / "runs" / run_name
    summary = RunSummary(
        run=run_name,
        flow=flow,
        preset=str(parameters["preset"]),
        store=str(store.root),
        report=str(run_folder / "report" / "index.html"),
        stages=count_stages(outcomes),
        **_findings(store, plan),
    )
    folder = store.root / "progress" / f"run-{uuid.uuid4().hex}"
    try:
        with explain_disk_errors(store.root):
            (folder / "report").mkdir(parents=True)
            details = RunDetails(title, parameters, plan, outcomes)
            page = render_report(store, summary, details, folder / "report")
            (folder / "report" / "index.html").write_text(page)
            write_metrics(folder / "metrics.parquet", metric_rows(store, summary, plan))
            content = summary.model_dump_json(indent=2, exclude_defaults=True)
            (folder / "run.json").write_text(content)
            _link_artifacts(store, folder, run_folder, plan)
            _publish(store, folder, run_folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return summary
