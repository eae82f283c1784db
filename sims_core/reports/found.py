"""What a run found, as one JSON object: read by people, by `--json` and by the report."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sims_core.data.config import GaussianData
from sims_core.methods.sims import Sims
from sims_core.reports.summary import ArmSummary, GenerationSummary, Interval, ScanPoint
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.loop import ArmPlan, LoopPlan


def read_metrics(store: Store, ref: ArtifactRef) -> dict[str, int | float]:
    """An evaluation's figures, from its checksummed file."""
    content = (store.open_artifact(ref) / "metrics.json").read_bytes()
    metrics: dict[str, int | float] = json.loads(content)
    return metrics


def read_figures(store: Store, refs: Iterable[ArtifactRef]) -> dict[str, int | float]:
    """The figures of all the evaluations among these artifacts, in one."""
    found: dict[str, int | float] = {}
    for ref in refs:
        if ref.kind == "metrics":
            found |= read_metrics(store, ref)
    return found


def summarise_arm(store: Store, plan: ArmPlan) -> ArmSummary:
    """Reads each generation's metrics from the store."""
    generations = []
    for t in sorted({stage.t for stage in plan.stages}):
        artifacts = plan.artifacts(t)
        generations.append(
            GenerationSummary(
                t=t,
                metrics=read_figures(store, artifacts.values()),
                artifacts={role: ref.location for role, ref in artifacts.items()},
            )
        )
    return ArmSummary(name=plan.arm.name, generations=tuple(generations))


def summarise_arms(store: Store, plan: LoopPlan) -> tuple[ArmSummary, ...]:
    arms = tuple(summarise_arm(store, arm) for arm in plan.arms)
    if main_figure(plan) == "fid":
        return arms
    from sims_core.reports.convergence import converged

    return tuple(
        arm.model_copy(update={"convergence": found})
        for arm, found in zip(arms, converged(store, plan), strict=True)
    )


def main_figure(plan: LoopPlan) -> str:
    """The metric that a run's ratios are made of."""
    return "w2" if isinstance(plan.experiment.data, GaussianData) else "fid"


def summarise_scan(store: Store, plan: LoopPlan) -> tuple[ScanPoint, ...]:
    """The scan's first generations, in the plan's order."""
    ratios: list[Interval | None] = [None] * len(plan.scan)
    if plan.scan and main_figure(plan) == "w2":
        from sims_core.reports.convergence import scan_ratios

        ratios = scan_ratios(store, plan)
    points = []
    for scanned, ratio in zip(plan.scan, ratios, strict=True):
        method = scanned.arm.method
        guided = method if isinstance(method, Sims) else None
        points.append(
            ScanPoint(
                omega=guided.omega if guided else 0.0,
                budget_mimg=guided.budget_mimg if guided else None,
                metrics=read_figures(store, scanned.artifacts(1).values()),
                ratio=ratio,
            )
        )
    return tuple(points)
