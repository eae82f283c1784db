"""The report of a run: one self-contained HTML file, no script, nothing from the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sims_core.data.config import (
    GaussianData,
    ImageData,
    ImportedImages,
    KnownImages,
    encoding_of,
    modelled,
)
from sims_core.reports.drawing import COLOURS, FEATURE_SPACES, grid_uri, written
from sims_core.reports.study_found import study_rows
from sims_core.reports.summary import (
    FIGURES,
    ArmSummary,
    RunSummary,
    sample_counts,
    shown_generations,
)
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.loop import LoopPlan
from sims_core.studies.running import Outcome
from sims_core.studies.self_improvement import Plan, StudyPlan

TITLES = {"fid": "FID", "kid": "KID", "precision": "Precision", "recall": "Recall"}


BETTER = {"fid": "lower is better", "kid": "lower is better"}


@dataclass(frozen=True)
class RunDetails:
    """What a report shows beside the summary."""

    title: str
    parameters: Mapping[str, Any]
    plan: Plan
    outcomes: Sequence[Outcome]


def ratios(arm: ArmSummary, figure: str, reference: float) -> list[float]:
    """Metric of each generation over `reference`; NaN where that is not positive."""
    return [
        generation.metrics[figure] / reference if reference > 0 else math.nan
        for generation in arm.generations
    ]


def standard_first(arms: Sequence[ArmSummary], arm: ArmSummary) -> ArmSummary:
    """The standard arm with the same pollution size, whose G^1 normalises; else the arm itself."""
    size = arm.name.split()[-1]
    return next((a for a in arms if a.name == f"standard {size}"), arm)


def _draw(axes: Axes, arms: Sequence[ArmSummary], figure: str, relative: bool) -> None:
    for number, arm in enumerate(arms):
        t = [generation.t for generation in arm.generations]
        values = [generation.metrics[figure] for generation in arm.generations]
        if relative:
            values = ratios(arm, figure, values[0])
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(t, values, marker="o", markersize=4, linewidth=1.6, color=colour, label=arm.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if relative:
        axes.axhline(1, color="#868e96", linewidth=0.8, linestyle="--")
        axes.set_xlabel("generation t", fontsize=9)
    else:
        axes.set_title(f"{TITLES[figure]} ({BETTER.get(figure, 'higher is better')})", fontsize=9)


def curves(arms: Sequence[ArmSummary]) -> Figure:
    """Each metric over generations, above; its ratio to the arm's own t = 1, below."""
    figure = Figure(figsize=(11, 4.9), layout="constrained")
    panels = figure.subplots(2, len(FIGURES), sharex=True)
    for column, name in enumerate(FIGURES):
        _draw(panels[0, column], arms, name, relative=False)
        _draw(panels[1, column], arms, name, relative=True)
    counts = sample_counts([each.metrics for arm in arms for each in arm.generations])
    figure.suptitle(" generated, ".join(counts), fontsize=9)
    panels[0, 0].set_ylabel("value", fontsize=9)
    panels[1, 0].set_ylabel("ratio to t = 1", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _grids(store: Store, plan: LoopPlan) -> list[dict[str, Any]]:
    shown = shown_generations(plan.generations)
    return [
        {
            "arm": arm.arm.name,
            "images": [
                {"t": t, "uri": grid_uri(store, arm.artifacts(t)["preview"])} for t in shown
            ],
        }
        for arm in plan.arms
    ]


def table_rows(arms: Sequence[ArmSummary], figure: str = "fid") -> list[dict[str, Any]]:
    """One row a generation of an arm: figures, both ratios of `figure`, counts and seed."""
    rows = []
    for arm in arms:
        own = arm.generations[0].metrics[figure]
        standard = standard_first(arms, arm).generations[0].metrics[figure]
        for generation, to_own, to_standard in zip(
            arm.generations, ratios(arm, figure, own), ratios(arm, figure, standard), strict=True
        ):
            rows.append(
                {
                    "arm": arm.name,
                    "t": generation.t,
                    **generation.metrics,
                    f"{figure}_ratio_own": to_own,
                    f"{figure}_ratio_standard": to_standard,
                }
            )
    return rows


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


def _real_images(data: ImageData) -> str:
    """Which real images, how many, and their size."""
    name = data.name if isinstance(data, ImportedImages) else data.source
    if isinstance(data, KnownImages):
        name += f" ({data.split})"
    if (found := data.contents) is None:
        return name
    text = f"{name}, {found.count} real images of {found.height} x {found.width}"
    if encoding_of(data) is None or (latents := modelled(data)) is None:
        return text
    return f"{text}, as latents of {latents.channels} x {latents.height} x {latents.width}"


def _budgets(plan: Plan) -> str:
    if isinstance(plan, StudyPlan):
        return ", ".join(f"{budget:g}" for budget in sorted(plan.models) if budget)
    return f"{plan.experiment.sims.budget_mimg:g}"


def _settings(details: RunDetails) -> list[tuple[str, str]]:
    """What was run, in words."""
    experiment = details.plan.experiment
    sims, training, sampler = experiment.sims, experiment.training, experiment.sampler
    unit = "image"
    if not isinstance(experiment.data, GaussianData):
        real = _real_images(experiment.data)
        evaluation = experiment.evaluation
        space = FEATURE_SPACES[evaluation.features]
        counts = f"{evaluation.num_images}"
        if isinstance(details.plan, StudyPlan):
            sweep = details.plan.sweep
            counts = f"{sweep.select_images} (selection) and {sweep.final_images} (final)"
        evaluated = f"{counts} generated images; {space}"
    else:
        unit, data, points = "point", experiment.data, experiment.point_evaluation
        real = f"{data.replicates} replicates of {data.num_points} points in {data.dim} dimensions"
        evaluated = (
            f"moments of {points.num_points} points, exact transport between "
            f"{points.empirical_points}, in each replicate"
        )
    return [
        ("data", real),
        (
            "base training",
            f"{training.kimg:g} kimg, batch {training.batch_size}, "
            f"learning rate {training.learning_rate:g} ({training.decay})",
        ),
        (
            "auxiliary",
            f"n_s = {sims.n_s}, budget {_budgets(details.plan)} Mi, batch {sims.batch_size}, "
            f"learning rate {sims.learning_rate:g}, on {sims.aux_data} data",
        ),
        (
            "sampler",
            f"{sampler.solver}, {sampler.num_steps} steps, sigma {sampler.sigma_max:g} to "
            f"{sampler.sigma_min:g}; {sampler.nfe} evaluations a {unit} ({2 * sampler.nfe} guided)",
        ),
        ("evaluation", evaluated),
    ]


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_report(
    store: Store, summary: RunSummary, details: RunDetails, folder: Path | None = None
) -> str:
    """The whole HTML page. Figures that are files as well go into `folder`, if given."""
    times = _stage_times(details.outcomes)
    first_images = next(s.ref for s in details.plan if s.role == "generate")
    template, context = _domain_context(store, summary, details, folder)
    return (
        _environment()
        .get_template(template)
        .render(
            summary=summary,
            title=details.title,
            parameters=details.parameters,
            settings=_settings(details),
            experiment=details.plan.experiment.model_dump_json(indent=2),
            libraries=store.manifest(first_images).libraries,
            rows=metric_rows(store, summary, details.plan),
            times=times,
            longest=max((group["seconds"] for group in times), default=0.0) or 1.0,
            total_seconds=sum(group["seconds"] for group in times),
            outcomes=details.outcomes,
            **context,
        )
    )


def _domain_context(
    store: Store, summary: RunSummary, details: RunDetails, folder: Path | None
) -> tuple[str, dict[str, Any]]:
    """The template for images or for points, and what it shows beyond every report's content."""
    plan = details.plan
    if isinstance(plan, StudyPlan):
        from sims_core.reports.study import study_context

        return "study.html.j2", study_context(store, plan, folder)
    if isinstance(plan.experiment.data, GaussianData):
        from sims_core.reports.points import point_context

        return "points.html.j2", point_context(store, summary, plan, folder)
    real = next(stage.ref for stage in plan.setup if stage.role == "prepare data")
    return "images.html.j2", {
        "curves": written(curves(summary.arms), folder, "figure"),
        "real_grid": grid_uri(store, real),
        "grids": _grids(store, plan),
        "num_preview": plan.experiment.evaluation.num_preview,
        "features": plan.experiment.evaluation.features,
        "feature_space": FEATURE_SPACES[plan.experiment.evaluation.features],
    }


def metric_rows(store: Store, summary: RunSummary, plan: Plan) -> list[dict[str, Any]]:
    """The report's table: a row for each generation of an arm, or for each model of a study."""
    if isinstance(plan, StudyPlan):
        return study_rows(store, plan)
    return table_rows(summary.arms, summary.figure)


def write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    """The report's table as Parquet."""
    pq.write_table(pa.Table.from_pylist(rows), path)
