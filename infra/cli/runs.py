"""Runs a preset in this process, with Prefect or without, or says what it would do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flows.parameters import check_parameters, parameter_model
from flows.planned import PlannedRun
from flows.presets import Preset, find_preset
from flows.registry import load_flow, load_signature
from infra.cli.arguments import parse_parameters
from infra.cli.shell import worded
from infra.server.named import names_a_server
from sims_core.common.errors import BadInput
from sims_core.reports.run_folder import write_run
from sims_core.reports.summary import RunSummary
from sims_core.settings import Settings, with_bucket, writable_store
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.studies.absent_files import absent_files
from sims_core.studies.freshness import Recompute, notices
from sims_core.studies.plan import Plan
from sims_core.studies.resolve import execution_of
from sims_core.studies.running import Runner


@dataclass(frozen=True)
class CheckedRun:
    """A run whose every parameter is valid, planned to the last stage."""

    preset: Preset
    parameters: dict[str, Any]
    plan: Plan

    @property
    def planned(self) -> PlannedRun:
        return PlannedRun(self.preset.flow, self.parameters, self.plan)

    @property
    def stages(self) -> int:
        """How many there are, those included that earlier ones decide on."""
        return sum(len(stages) for _, stages in self.plan.groups) + self.plan.undecided


def check_run(full_name: str, texts: list[str]) -> CheckedRun:
    """Checks preset, parameters, settings and store before any work starts.

    Raises:
        BadInput: naming what was wrong and what would be valid.
    """
    preset = find_preset(full_name)
    signature = load_signature(preset.flow)
    Recompute.of(Settings.read().recompute)
    given = parse_parameters(texts, parameter_model(signature))
    parameters = check_parameters(signature, preset, given)
    store = Store(Settings.read().store.expanduser().absolute())
    return CheckedRun(preset, parameters, PlannedRun.of(preset.flow, parameters, store).plan)


def dry_run_lines(run: CheckedRun, as_json: bool) -> str:
    """Every stage of the plan and whether the store holds it; writes nothing."""
    settings = Settings.read()
    store = with_bucket(Store(settings.store.expanduser().absolute()))
    recompute = Recompute.of(settings.recompute)
    seen: set[ArtifactRef] = set()
    rows, to_compute, plan = [], list[StageRequest](), run.plan
    if all(store.is_whole(stage.ref) for stage in plan):
        plan = plan.completed(store)
    notes = [worded(line) for line in notices(store, (stage.request for stage in plan))]
    for arm, stages in plan.groups:
        for stage in stages:
            cached = stage.ref in seen or recompute.takes(store, stage.request)
            seen.add(stage.ref)
            to_compute += [] if cached else [stage.request]
            rows.append(
                {"arm": arm, "stage": stage.label, "cached": cached, "artifact": stage.ref.location}
            )
    absent = absent_files(to_compute, settings.files())
    computed = len(to_compute)
    totals = {"computed": computed, "cached": len(rows) - computed}
    if undecided := plan.undecided:
        totals["undecided"] = undecided
    if as_json:
        told = {name: said for name, said in (("notes", notes), ("absent", absent)) if said}
        return json.dumps({"store": str(store.root), "stages": totals, "plan": rows, **told})
    lines = [
        f"{'cached ' if row['cached'] else 'compute'}  {row['arm'] or 'all arms'}: {row['stage']}"
        for row in rows
    ]
    if undecided:
        lines.append(f"then {undecided} stages that depend on what these find")
    return "\n".join(
        [*lines, *notes, *absent, f"would compute {computed} stages; {totals['cached']} are cached"]
    )


def _looked_at(store: Store, plan: Plan) -> Iterator[bool]:
    """Whether each stage is taken from the store, those included that earlier ones decide on.

    Looking may read every byte of an artifact: it is done when the next value is asked for.
    """
    missing, recompute = 0, Recompute.of(Settings.read().recompute)
    for stage in plan:
        taken = recompute.takes(store, stage.request)
        missing += not taken
        yield taken
    if not missing:
        for _, stages in plan.completed(store).groups[len(plan.groups) :]:
            yield from (recompute.takes(store, stage.request) for stage in stages)


def execute(run: CheckedRun) -> RunSummary:
    """Runs the flow here and returns its summary.

    Where the store has everything and no Prefect server is named, that is not worth one: the
    embedded API takes 15 s to start and to stop. It is started as soon as one stage is missing,
    while the rest of the plan is looked at.

    Raises:
        BadInput: no Prefect server answers at PREFECT_API_URL, no worker computes arms that are to
            be computed in the pool, or the store cannot be written.
        SimsError: a stage failed; what was finished stays.
    """
    Settings.read().execution()
    in_pool = run.parameters["arms"] == "pool"
    if names_a_server() or in_pool:
        from infra.server.prefect_api import check_prefect_api

        check_prefect_api()
        if in_pool:
            from tasks.pool import require_pool

            require_pool()
        writable_store()
        _start_api()
        return _execute_flow(run)
    store = writable_store()
    looked_at = _looked_at(store, run.plan)
    if all(looked_at):
        return _execute_here(store, run)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(_start_api)
        for _ in looked_at:
            pass
        started.result()
    return _execute_flow(run)


def _start_api() -> None:
    """Importing what that takes is a good part of the time."""
    from infra.server.prefect_api import ensure_prefect_api

    ensure_prefect_api()


def _execute_flow(run: CheckedRun) -> RunSummary:
    """Runs the flow against the Prefect API that is there."""
    from infra.cli.progress import run_progress, shown
    from infra.server.prefect_api import run_watched
    from tasks.progress import observe

    flow = load_flow(run.preset.flow)
    progress = run_progress(run.stages)
    observe(progress)
    with shown(progress):
        summary: RunSummary = run_watched(flow, run.parameters)
        return summary


def execute_directly(run: CheckedRun) -> RunSummary:
    """The same stages in the same order without Prefect, for a machine that only computes.

    Raises:
        BadInput: arms are to be computed by the workers of a Prefect server.
        SimsError: a stage failed; what was finished stays.
    """
    if run.parameters["arms"] == "pool":
        raise BadInput("arms=pool wants a Prefect server, which `direct` does without")
    return _execute_here(with_bucket(Store.open(Settings.read().store)), run)


def _execute_here(store: Store, run: CheckedRun) -> RunSummary:
    """Runs the stages in this process, and writes the report."""
    from infra.cli.progress import PlainProgress, shown

    progress, settings = PlainProgress(run.stages), Settings.read()
    with shown(progress):
        execution = execution_of(run.plan.experiment, settings.execution())
        recompute = Recompute.of(settings.recompute)
        runner = Runner(store, execution, progress, recompute=recompute)
        with runner.ran_plan(run.plan) as (whole, outcomes):
            return write_run(store, run.planned.ended(whole, outcomes))
