"""Runs a flow in this process against Prefect's embedded API, or says what it would do."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.presets import Preset, find_preset
from infra.cli.arguments import parse_parameters
from sims_core.catalog import run_stage
from sims_core.reports.summary import Outcome, RunSummary
from sims_core.settings import Settings, writable_store
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import Plan, PlannedStage

if TYPE_CHECKING:
    from infra.cli.progress import RunProgress


@dataclass(frozen=True)
class CheckedRun:
    """A run whose every parameter is valid, planned to the last stage."""

    preset: Preset
    parameters: dict[str, Any]
    plan: Plan


def check_run(full_name: str, texts: list[str]) -> CheckedRun:
    """Checks preset, parameters, settings and store before any work starts.

    Raises:
        BadInput: naming what was wrong and what would be valid.
    """
    preset = find_preset(full_name)
    from flows.parameters import check_parameters, make_plan, parameter_model
    from flows.registry import load_flow

    function = load_flow(preset.flow).fn
    given = parse_parameters(texts, parameter_model(function))
    parameters = check_parameters(function, preset, given)
    plan = make_plan(preset.flow, parameters, Store(_store_root()))
    return CheckedRun(preset, parameters, plan)


def _store_root() -> Path:
    return Settings.read().store.expanduser().absolute()


def dry_run_lines(run: CheckedRun, as_json: bool) -> str:
    """Every stage of the plan and whether the store holds it; writes nothing."""
    store = Store(_store_root())
    seen: set[ArtifactRef] = set()
    rows, plan = [], run.plan
    if all(store.is_whole(stage.ref) for stage in plan):
        plan = plan.completed(store)
    for arm, stages in plan.groups:
        for stage in stages:
            cached = stage.ref in seen or store.is_whole(stage.ref)
            seen.add(stage.ref)
            rows.append(
                {"arm": arm, "stage": stage.label, "cached": cached, "artifact": stage.ref.location}
            )
    computed = sum(not row["cached"] for row in rows)
    totals = {"computed": computed, "cached": len(rows) - computed}
    if undecided := plan.undecided:
        totals["undecided"] = undecided
    if as_json:
        return json.dumps({"store": str(store.root), "stages": totals, "plan": rows})
    lines = [
        f"{'cached ' if row['cached'] else 'compute'}  {row['arm'] or 'all arms'}: {row['stage']}"
        for row in rows
    ]
    if undecided:
        lines.append(f"then {undecided} stages that depend on what these find")
    return "\n".join([*lines, f"would compute {computed} stages; {totals['cached']} are cached"])


def execute(run: CheckedRun) -> RunSummary:
    """Runs the flow here and returns its summary.

    Raises:
        BadInput: no Prefect server answers at PREFECT_API_URL, or the store cannot be written.
        SimsError: a stage failed; what was finished stays.
    """
    settings = Settings.read()
    settings.execution()
    from infra.server.prefect_api import check_prefect_api, ensure_prefect_api, run_watched

    check_prefect_api()
    writable_store()
    from flows.registry import load_flow
    from infra.cli.progress import run_progress
    from tasks.progress import observe

    progress = run_progress(len(list(run.plan)) + run.plan.undecided)
    observe(progress)
    with shown(progress):
        ensure_prefect_api()
        summary: RunSummary = run_watched(load_flow(run.preset.flow), run.parameters)
        return summary


def run_groups(
    store: Store, groups: Sequence[tuple[str, Sequence[PlannedStage]]], progress: RunProgress
) -> list[Outcome]:
    """Runs stages one after the other in this process, without Prefect.

    Args:
        groups: stages in an order in which they can run, each group with its arm's name.
    """
    execution, outcomes = Settings.read().execution(), []
    for arm, stage in ((arm, stage) for arm, stages in groups for stage in stages):
        progress.started(arm, stage.label)
        marker, advanced = uuid.uuid4().hex, partial(progress.advanced, stage.label)
        run_stage(store, stage.request, execution, computed_by=marker, progress=advanced)
        record = store.record(stage.ref)
        cached = record is None or record.computed_by != marker
        seconds = record.seconds if record else 0.0
        progress.finished(arm, stage.label, cached, seconds)
        outcomes.append(Outcome(arm, stage, cached, seconds))
    return outcomes


def execute_directly(run: CheckedRun) -> RunSummary:
    """The same stages in the same order without Prefect, for a machine that only computes.

    Raises:
        SimsError: a stage failed; what was finished stays.
    """
    from flows.parameters import default_run_name
    from infra.cli.progress import PlainProgress
    from tasks.report import write_run

    store = Store.open(Settings.read().store)
    progress = PlainProgress(len(list(run.plan)) + run.plan.undecided)
    with shown(progress):
        outcomes = run_groups(store, run.plan.groups, progress)
        plan = run.plan.completed(store)
        outcomes += run_groups(store, plan.groups[len(run.plan.groups) :], progress)
    parameters = {key: value for key, value in run.parameters.items() if key != "run_name"}
    name = run.parameters["run_name"] or default_run_name(run.preset.flow, parameters)
    title = run.preset.description
    return write_run.fn(run.preset.flow, name, title, parameters, plan, outcomes)


@contextmanager
def shown(progress: RunProgress) -> Iterator[None]:
    """What the stages say (resumed at ..., waiting for ..., damaged ...) goes to standard error.

    Begins when the bars are up: they stand in for sys.stderr so that lines go above them. They are
    put away at the end.
    """
    messages = logging.StreamHandler(sys.stderr)
    messages.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("sims_core")
    logger.addHandler(messages)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(messages)
        progress.close()
