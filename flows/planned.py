"""A run that is planned: once in a process, whoever asks first."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flows.parameters import asked, default_run_name, make_plan
from flows.presets import find_preset
from sims_core.common.digest import digest_of, file_sha256
from sims_core.data.names import DATASETS
from sims_core.nets.names import MODELS
from sims_core.reports.run_folder import RunToReport
from sims_core.settings import Settings
from sims_core.store.store import Store
from sims_core.studies.plan import Plan
from sims_core.studies.running import Outcome

_plans: dict[str, Plan] = {}
"""The latest plan of this process by what it was made from."""


def plan_once(flow: str, parameters: Mapping[str, Any], store: Store) -> Plan:
    """The plan of a flow's checked flat parameters: made at the first call, remembered for others.

    It is made anew where anything differs that it depends on: parameters, the machine's settings,
    or what the names in the store stand for.
    """
    named = {
        f"{names.folder}/{name}": file_sha256(store.root / names.folder / f"{name}.json")
        for names in (DATASETS, MODELS)
        for name in names.given(store)
    }
    settings = Settings.read().model_dump(mode="json")
    key = digest_of([flow, asked(parameters), settings, str(store.root), named])
    if key not in _plans:
        _plans.clear()  # a plan of a long loop is large, and a process most often has one
        with _uncollected():
            _plans[key] = make_plan(flow, parameters, store)
    return _plans[key]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Suspends garbage collection, which would go through a growing plan again and again: the time
    would no longer be linear in the number of stages. A plan has no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class PlannedRun:
    """What was asked of a flow, and every stage of it that can be known yet."""

    flow: str
    parameters: Mapping[str, Any]
    """JSON values of all parameters of the flow."""
    plan: Plan

    @classmethod
    def of(cls, flow: str, parameters: Mapping[str, Any], store: Store) -> PlannedRun:
        """The run of checked parameters.

        Raises:
            BadInput: They do not fit each other, this machine, or what the store has.
        """
        return cls(flow, parameters, plan_once(flow, parameters, store))

    @property
    def name(self) -> str:
        """The name of the folder under runs/."""
        given: str | None = self.parameters["run_name"]
        return given or default_run_name(self.flow, self.parameters)

    def ended(self, whole: Plan, outcomes: Sequence[Outcome]) -> RunToReport:
        """What a report is made of, once every stage of the whole plan is there."""
        parameters = asked(self.parameters)
        title = find_preset(f"{self.flow}/{parameters['preset']}").description
        return RunToReport(self.flow, self.name, title, parameters, whole, outcomes)
