"""Runs a preset in this process, with Prefect or without, or says what it would do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flows.parameters import check_parameters, parameter_model
from flows.planned import PlannedRun
from flows.presets import Preset, find_preset
from flows.registry import load_flow, load_signature
from infra.cli.arguments import parse_parameters
from infra.cli.dry_run import DryRun
from infra.cli.outlook import Outlook
from infra.cli.shell import worded
from infra.cli.stand_ins import with_stand_ins
from infra.server.named import names_a_server
from sims_core.common.errors import BadInput
from sims_core.reports.run_folder import write_run
from sims_core.reports.summary import RunSummary
from sims_core.reports.unfinished import followed
from sims_core.settings import Settings, with_bucket, writable_store
from sims_core.store.store import Store
from sims_core.studies.freshness import Recompute
from sims_core.studies.plan import Plan
from sims_core.studies.resolve import execution_of
from sims_core.studies.running import Runner


@dataclass(frozen=True)
class CheckedRun:
    """A run whose every parameter is valid, planned to the last stage."""

    preset: Preset
    parameters: dict[str, Any]
    plan: Plan
    missing: tuple[str, ...] = ()
    """What a plan of a run that cannot begin yet lacks, a line for each."""

    @property
    def planned(self) -> PlannedRun:
        return PlannedRun(self.preset.flow, self.parameters, self.plan)

    @property
    def stages(self) -> int:
        """How many there are, those included that earlier ones decide on."""
        return sum(len(stages) for _, stages in self.plan.groups) + self.plan.undecided


def check_run(full_name: str, texts: list[str], to_plan: bool = False) -> CheckedRun:
    """Checks preset, parameters, settings and store before any work starts.

    Args:
        to_plan: only a plan is wanted: data or a base that are not here yet are no error.

    Raises:
        BadInput: naming what was wrong and what would be valid.
    """
    preset = find_preset(full_name)
    signature = load_signature(preset.flow)
    Recompute.of(Settings.read().recompute)
    given = parse_parameters(texts, parameter_model(signature))
    parameters = check_parameters(signature, preset, given)
    store = Store(Settings.read().store.expanduser().absolute())
    if not to_plan:
        return CheckedRun(preset, parameters, PlannedRun.of(preset.flow, parameters, store).plan)
    with with_stand_ins(preset, parameters, store) as (named, missing):
        plan = PlannedRun.of(preset.flow, parameters, named).plan
    return CheckedRun(preset, parameters, plan, tuple(missing))


def dry_run_of(run: CheckedRun) -> DryRun:
    """What the run would do; writes nothing."""
    store = with_bucket(Store(Settings.read().store.expanduser().absolute()))
    return DryRun.of(store, run.plan, run.missing)


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
        _say("loading Prefect and the flow")
        _start_api()
        return _execute_flow(run)
    store = writable_store()
    looked_at = _looked_at(store, run.plan)
    if all(looked_at):
        return _execute_here(store, run)
    _say("starting Prefect's own server (15 to 60 s; `direct` runs without it)")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(_start_api)
        for _ in looked_at:
            pass
        started.result()
    _say(f"it is there after {time.monotonic() - began:.0f} s; loading the flow")
    return _execute_flow(run)


def _say(text: str) -> None:
    """What a person at a terminal waits for."""
    print(worded(text), file=sys.stderr, flush=True)


def _outlook(run: CheckedRun) -> Outlook:
    settings = Settings.read()
    store = Store(settings.store.expanduser().absolute())
    return Outlook(store, run.plan, settings.execution().device)


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
    progress = run_progress(run.stages, _outlook(run))
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

    settings = Settings.read()
    progress = PlainProgress(run.stages, outlook=_outlook(run))
    with shown(progress):
        execution = execution_of(run.plan.experiment, settings.execution())
        recompute = Recompute.of(settings.recompute)
        with followed(progress, store, run.planned.ended(run.plan, ())) as told:
            runner = Runner(store, execution, told, recompute=recompute)
            with runner.ran_plan(run.plan) as (whole, outcomes):
                return write_run(store, run.planned.ended(whole, outcomes))
