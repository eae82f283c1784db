"""The report of a run: one self-contained HTML file, no script, nothing from the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sims_core.common import roles
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.metric import column
from sims_core.reports.base import RunDetails, kind_report, report_of
from sims_core.reports.cost import Cost
from sims_core.reports.files import (
    BIBLIOGRAPHY,
    FORMATS,
    LATEX_TABLE,
    METRICS_CSV,
    METRICS_TABLE,
    SUMMARY_FILE,
)
from sims_core.reports.headings import heading
from sims_core.reports.lines import has_table
from sims_core.reports.over_seeds import verdict
from sims_core.reports.past_runs import flat
from sims_core.reports.summary import RunSummary, in_kimg, sample_counts
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import Plan
from sims_core.studies.running import Outcome


def _stage_times(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Seconds by role, the longest first. A stage that arms share counts once."""
    groups: dict[str, dict[str, Any]] = {}
    seen: set[ArtifactRef] = set()
    for outcome in outcomes:
        group = groups.setdefault(
            outcome.stage.role,
            {"role": outcome.stage.role, "seconds": 0.0, "computed": 0, "cached": 0},
        )
        group["cached" if outcome.cached else "computed"] += 1
        if outcome.stage.ref not in seen:
            group["seconds"] += outcome.seconds
        seen.add(outcome.stage.ref)
    return sorted(groups.values(), key=lambda group: -group["seconds"])


def _settings(details: RunDetails) -> list[tuple[str, str]]:
    """What was run, in words."""
    plan, experiment = details.plan, details.plan.experiment
    report, kind = report_of(plan), kind_report(experiment)
    sims, training, sampler = experiment.sims, experiment.training, experiment.sampler
    return [
        ("data", kind.describe_data(experiment)),
        (
            "base training",
            f"{training.kimg:g} kimg, batch {training.batch_size}, "
            f"learning rate {training.learning_rate:g} ({training.decay})",
        ),
        (
            "auxiliary",
            f"n_s = {sims.n_s}, budget {report.budgets(plan)} kimg, batch {sims.batch_size}, "
            f"learning rate {sims.learning_rate:g}, on {sims.aux_data} data",
        ),
        (
            "sampler",
            f"{sampler.solver}, {sampler.num_steps} steps, sigma {sampler.sigma_max:g} to "
            f"{sampler.sigma_min:g}; {sampler.nfe} evaluations of the base a {kind.unit}"
            f"{_class_guidance(sampler)}",
        ),
        ("evaluation", kind.describe_evaluation(experiment, report.counts(plan))),
    ]


def _class_guidance(sampler: SamplerConfig) -> str:
    """What is said of classifier-free guidance: nothing where there is none."""
    if not (w := sampler.class_guidance):
        return ""
    return f"; classifier-free guidance w = {w:g}, sampling bias lambda = {sampler.sampling_bias:g}"


def _asked(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parameters, overrides by their dotted names after those of the flow."""
    yield from ((name, value) for name, value in parameters.items() if name != "overrides")
    yield from flat(parameters.get("overrides") or {})


def percent(value: float | None) -> str:
    """A share as it is shown; a dash where it is not known."""
    return "–" if value is None else f"{value:.3g} %"


def fixed(value: float, decimals: int) -> str:
    """A number with so many digits after the point."""
    return f"{value:.{decimals}f}"


def page_environment() -> Environment:
    """What every page is rendered with: text is escaped, and a missing name is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"percent": percent, "fixed": fixed}
    return environment


def render_report(
    store: Store, summary: RunSummary, details: RunDetails, folder: Path | None = None
) -> str:
    """The whole HTML page. Figures that are files as well go into `folder`, if given."""
    plan = details.plan
    times = _stage_times(details.outcomes)
    first_samples = next(s.ref for s in plan if s.role == roles.GENERATE)
    part = report_of(plan).page(store, summary, plan, folder)
    rows = metric_rows(store, summary, plan)
    return (
        page_environment()
        .get_template(part.template)
        .render(
            summary=summary,
            seeds=summary.seeds or (plan.seed,),
            verdict=verdict,
            counts=sample_counts([g.metrics for arm in summary.arms for g in arm.generations]),
            title=details.title,
            parameters=details.parameters,
            asked=dict(_asked(details.parameters)),
            in_kimg=in_kimg,
            settings=_settings(details),
            experiment=plan.experiment.model_dump_json(indent=2),
            libraries=store.manifest(first_samples).libraries,
            rows=rows,
            times=times,
            longest=max((group["seconds"] for group in times), default=0.0) or 1.0,
            total_seconds=sum(group["seconds"] for group in times),
            outcomes=details.outcomes,
            costs=_costs(summary),
            column=partial(column, neighborhoods=plan.experiment.evaluation.neighborhoods),
            heading=partial(heading, neighborhoods=plan.experiment.evaluation.neighborhoods),
            files=_files(part.figures, has_table(rows)),
            **{"over_seeds": None, **part.context},
        )
    )


def _files(figures: Sequence[str], table: bool) -> list[dict[str, Any]]:
    """What lies beside the page: groups of files with a title."""
    groups = {name.replace("_", " "): [f"{name}.{end}" for end in FORMATS] for name in figures}
    groups["table"] = [
        f"../{METRICS_TABLE}",
        f"../{METRICS_CSV}",
        *([LATEX_TABLE] if table else []),
    ]
    groups["to cite"] = [BIBLIOGRAPHY]
    groups["provenance"] = [f"../{SUMMARY_FILE}"]
    return [
        {"title": title, "files": [{"href": each, "name": Path(each).name} for each in names]}
        for title, names in groups.items()
    ]


def _costs(summary: RunSummary) -> list[tuple[str, Cost]]:
    """What each curve costs, or each arm where there are no curves, as far as that is known."""
    if summary.curves:
        return [each for curve in summary.curves for each in curve.costs]
    return [(arm.name, arm.cost) for arm in summary.arms if arm.cost is not None]


def metric_rows(store: Store, summary: RunSummary, plan: Plan) -> list[dict[str, Any]]:
    """The report's table: a row for each generation of an arm, or for each model of a study."""
    return report_of(plan).rows(store, summary, plan)


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The report's table as Parquet and as CSV."""
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / METRICS_TABLE)
    pa.csv.write_csv(table, folder / METRICS_CSV)
