"""What Prefect's UI shows of the results, made in the flow from references.

So a run whose stages were all in the store shows the same. A key stays the same over generations
(`<run>-<arm>-samples`): its page in the UI is their history.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run

from sims_core.common.shown import shown
from sims_core.evaluation.metric import Neighborhoods, column
from sims_core.reports.base import kind_report, report_of
from sims_core.reports.cost import Cost
from sims_core.reports.found import summarise_arm
from sims_core.reports.over_seeds import counts_of
from sims_core.reports.so_far import so_far
from sims_core.reports.summary import ArmSummary, Curve, RunSummary, shown_figures
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import ArmPlan, LoopPlan
from sims_core.studies.plan import Plan
from tasks.live import artifact_key

PICTURE_WIDTH = 640


def _publish(*artifacts: ArtifactCreate, flow_run_id: str | None = None) -> None:
    """Sends artifacts of the current flow run, or of another."""
    own = UUID(flow_run_id or flow_run.id)
    with get_client(sync_client=True) as client:
        for artifact in artifacts:
            client.create_artifact(artifact.model_copy(update={"flow_run_id": own}))


def _picture(png: bytes, alt: str) -> str:
    """Inline: the UI has no way to the store."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(shown(alt))}" src="data:image/png;base64,{data}">'


def _plain(text: object) -> str:
    """Text of users as markdown that shows it, and nothing else."""
    return escape(re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", shown(text)), quote=False)


def _enlarged(png: bytes) -> bytes:
    """By whole factors, to about PICTURE_WIDTH: pixels of small images stay sharp."""
    image = Image.open(BytesIO(png))
    if (factor := PICTURE_WIDTH // image.width) < 2:
        return png
    buffer = BytesIO()
    size = (image.width * factor, image.height * factor)
    image.resize(size, Image.Resampling.NEAREST).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _beside(counts: Mapping[str, int | float], cost: Cost | None) -> dict[str, Any]:
    """On how many data figures are, and what their model costs."""
    return {**counts, **(cost.columns if cost else {})}


def _rows(arm: ArmSummary, neighborhoods: Neighborhoods) -> list[dict[str, Any]]:
    """The figures of each generation, to four digits, their counts and the cost."""
    names = shown_figures(arm)
    return [
        {
            "t": generation.t,
            **{column(name, neighborhoods): _short(generation.metrics[name]) for name in names},
            **_beside(counts_of(generation.metrics), arm.cost),
        }
        for generation in arm.generations
    ]


def _markdown_table(rows: list[dict[str, Any]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    names = list(rows[0])
    cells = [[str(row.get(name, "")) for name in names] for row in rows]
    return "\n".join([line(names), line(["---"] * len(names)), *map(line, cells)])


def _samples(store: Store, experiment: Experiment, artifacts: dict[str, ArtifactRef]) -> str:
    """The grid of images, or a cloud of points, as markdown; nothing for points on a line."""
    picture = kind_report(experiment).samples(store, experiment, artifacts)
    return _picture(_enlarged(picture.png), picture.alt) if picture else ""


def show_generation(
    store: Store, experiment: Experiment, plan: ArmPlan, run_name: str, t: int, generations: int
) -> None:
    """After generation t of an arm: its samples, and the metrics so far as text and as a table."""
    arm = _plain(plan.name)
    reached = replace(plan, stages=tuple(stage for stage in plan.stages if stage.t <= t))
    found, k = summarise_arm(store, reached), experiment.evaluation.neighborhoods
    rows = _rows(found, k)
    picture = _samples(store, experiment, plan.artifacts(t))
    text = f"## {arm}, generation {t} of {generations}\n\n{picture}\n\n{_markdown_table(rows)}\n"
    about = f"{plan.name}, t = {t} of {generations}"
    key = artifact_key(run_name, plan.name)
    _publish(
        ArtifactCreate(
            key=f"{key}-samples", type="markdown", data=text, description=f"Samples of {about}"
        ),
        ArtifactCreate(
            key=f"{key}-metrics",
            type="table",
            data=json.dumps(rows),
            description=f"Figures of every generation so far: {about}",
        ),
    )


def show_so_far(store: Store, plan: LoopPlan, run_name: str) -> None:
    """On the page of the run that an arm belongs to: all arms as far as they are, and what is next.

    Nothing where the arm is not part of a run.
    """
    if (parent := flow_run.parent_flow_run_id) is None:
        return
    ended = {arm.name: _ended(store, arm) for arm in plan.arms}
    arms = [summarise_arm(store, cut) for cut in ended.values() if cut.stages]
    figure, k = kind_report(plan.experiment).figure, plan.experiment.evaluation.neighborhoods
    picture = _picture(so_far(arms, figure), "the curves so far")
    rows = [{"arm": arm.name, **row} for arm in arms for row in _rows(arm, k)]
    waiting = [arm for arm in plan.arms if len(ended[arm.name].stages) < len(arm.stages)]
    now = "All arms have ended."
    if waiting:
        last = max((stage.t for stage in ended[waiting[0].name].stages), default=0)
        now = f"Next: {waiting[0].name}, generation {last + 1} of {plan.generations}"
    _publish(
        ArtifactCreate(
            key=f"{artifact_key(run_name)}-so-far",
            type="markdown",
            data=f"## {run_name} so far\n\n{_plain(now)}\n\n{picture}\n\n{_markdown_table(rows)}\n",
            description=f"Curves and figures of all arms so far. {now}",
        ),
        flow_run_id=parent,
    )


def _ended(store: Store, arm: ArmPlan) -> ArmPlan:
    """The arm through its last generation that has ended."""
    missing = (stage.t for stage in arm.stages if not store.path(stage.ref).exists())
    first = min(missing, default=math.inf)
    return replace(arm, stages=tuple(stage for stage in arm.stages if stage.t < first))


def _points(curve: Curve, figure: str) -> list[dict[str, Any]]:
    """The main figure of each point of a curve, with its interval."""
    return [
        {
            "model": curve.name,
            "at": point.x,
            figure: point.brief(figure),
            "seeds": point.figures[figure].n,
            **_beside(point.counts, curve.cost or point.cost),
        }
        for point in curve.points
    ]


def _samples_of_models(store: Store, plan: Plan, run_name: str) -> list[ArtifactCreate]:
    """The samples of each model of a study that has not shown them as it went."""
    return [
        ArtifactCreate(
            key=f"{artifact_key(run_name, model)}-samples",
            type="markdown",
            data=f"## {_plain(model)}\n\n{_picture(_enlarged(picture.png), picture.alt)}\n",
            description=f"Samples of {model}",
        )
        for model, picture in report_of(plan).pictures(store, plan)
    ]


def show_report(store: Store, summary: RunSummary, plan: Plan) -> None:
    """At the end of a run: the curves with every arm's last figures, samples of models that no arm
    has shown, and a link to the report."""
    report, k = Path(summary.report), plan.experiment.evaluation.neighborhoods
    rows = [{"arm": arm.name, **_rows(arm, k)[-1]} for arm in summary.arms]
    what = "of the last generation of each arm"
    if not rows:
        rows = [row for curve in summary.curves for row in _points(curve, summary.figure)]
        what = "of each model"
    curves = _picture((report.parent / "figure.png").read_bytes(), "curves")
    text = (
        f"## {_plain(summary.run)}\n\n{curves}\n\n"
        f"{_markdown_table(rows)}\n\nThe whole report: {_plain(report)}\n"
    )
    link = f"[{_plain(report)}]({report.as_uri()})"
    key = artifact_key(summary.run)
    _publish(
        ArtifactCreate(
            key=f"{key}-curves",
            type="markdown",
            data=text,
            description=f"Curves and figures {what}",
        ),
        ArtifactCreate(
            key=f"{key}-metrics",
            type="table",
            data=json.dumps(rows),
            description=f"Figures {what}",
        ),
        ArtifactCreate(
            key=f"{key}-report",
            type="markdown",
            data=link,
            description="Where the whole report is: paste it into the address bar of a browser",
        ),
        *_samples_of_models(store, plan, summary.run),
    )
