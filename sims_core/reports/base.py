"""What a report needs of each kind of study and of each kind of data.

`Plan.REPORT` and `Kind.REPORT` name the objects, so that this package imports the studies and not
the other way round. Modules with these objects import no matplotlib until something is drawn.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from sims_core.reports.summary import ArmSummary, Interval, RunSummary
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import LoopPlan
from sims_core.studies.plan import Plan, PlannedStage
from sims_core.studies.planner import kind_of
from sims_core.studies.running import Outcome

Rows = Sequence[dict[str, Any]]
"""A table: a mapping from column to figure for each row."""


@dataclass(frozen=True)
class RunDetails:
    """What a report shows beside the summary."""

    title: str
    parameters: Mapping[str, Any]
    plan: Plan
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class PagePart:
    """The part of the page that only one kind of study or data has."""

    context: Mapping[str, Any] = field(default_factory=dict)
    template: str = "page.html.j2"
    """A file of reports/templates; the default shows arms and figures in tables."""
    figures: tuple[str, ...] = ()
    """The files with figures that it has written, without their ends."""


@dataclass(frozen=True)
class Picture:
    """Samples of one generation, for Prefect's pages."""

    png: bytes
    alt: str
    """What it shows, in words."""

    @property
    def uri(self) -> str:
        """The picture itself, as a page has it inline."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


Pictures = Sequence[tuple[str, Picture]]
"""Pictures of samples, each with the name of its model."""


class KindReport(Protocol):
    """What a report shows of one kind of data; one that is derived from it knows nothing beyond
    each generation's metrics, unless it says so."""

    @property
    def figure(self) -> str:
        """The metric that ratios are made of."""

    @property
    def unit(self) -> str:
        """What one sample is called."""

    def describe_data(self, experiment: Experiment) -> str:
        """The real data in words."""

    def describe_evaluation(self, experiment: Experiment, counts: str) -> str:
        """What is measured, in words. `counts`: on how many samples, if the study says so."""

    def finish_arms(
        self, store: Store, plan: LoopPlan, arms: tuple[ArmSummary, ...]
    ) -> tuple[ArmSummary, ...]:
        """The arms with what is known beyond each generation's metrics."""
        return arms

    def scan_ratios(self, store: Store, plan: LoopPlan) -> list[Interval | None]:
        """The distance of each scanned first generation over the baseline's."""
        return [None] * len(plan.scan)

    def page(
        self, store: Store, summary: RunSummary, plan: LoopPlan, folder: Path | None
    ) -> PagePart:
        """The loop's figures. Those that are files as well go into `folder`, if given."""

    def samples(
        self, store: Store, experiment: Experiment, artifacts: Mapping[str, ArtifactRef]
    ) -> Picture | None:
        """A picture of one generation's samples; `artifacts` by role."""


class Report(Protocol):
    """What a report shows of one kind of study."""

    def so_far(self, plan: Any, made: Collection[ArtifactRef]) -> Any:
        """The plan as far as a page can show it when these artifacts are there; None: not yet."""

    def findings(self, store: Store, plan: Any) -> dict[str, Any]:
        """What the run's summary says of the science: fields of `RunSummary`."""

    def rows(self, store: Store, summary: RunSummary, plan: Any) -> list[dict[str, Any]]:
        """The study's table."""

    def budgets(self, plan: Any) -> str:
        """The auxiliary's budgets in kimg."""

    def counts(self, plan: Any) -> str:
        """On how many samples is measured; empty: the experiment says it."""

    def pictures(self, store: Store, plan: Any) -> Pictures:
        """Samples of the first seed's models, each from the same noise; none of a study that shows
        them as it goes."""

    def page(self, store: Store, summary: RunSummary, plan: Any, folder: Path | None) -> PagePart:
        """The study's figures. Those that are files as well go into `folder`, if given."""


def pictures_of(
    store: Store, experiment: Experiment, models: Iterable[tuple[str, Iterable[PlannedStage]]]
) -> Pictures:
    """Samples of models, given by name and stages, as far as there is a picture of them."""
    report = kind_report(experiment)
    found = [
        (name, report.samples(store, experiment, {stage.role: stage.ref for stage in stages}))
        for name, stages in models
    ]
    return [(name, picture) for name, picture in found if picture is not None]


def all_made(stages: Iterable[PlannedStage], made: Collection[ArtifactRef]) -> bool:
    """Whether each of the stages has made its artifact."""
    return all(stage.ref in made for stage in stages)


def report_of(plan: Plan) -> Report:
    """The report of a plan's kind of study."""
    report: Report = resolve_name(plan.REPORT)
    return report


def kind_report(experiment: Experiment) -> KindReport:
    """What reports show of an experiment's kind of data."""
    report: KindReport = resolve_name(kind_of(experiment.data).REPORT)
    return report
