"""What the arms of a loop found, read from the store."""

from __future__ import annotations

from sims_core.evaluation.figures import read_figures
from sims_core.reports.base import kind_report
from sims_core.reports.cost import arm_cost
from sims_core.reports.summary import ArmSummary, GenerationSummary, ScanPoint
from sims_core.store.store import Store
from sims_core.studies.loop import ArmPlan, LoopPlan


def summarise_arm(store: Store, plan: ArmPlan) -> ArmSummary:
    """Reads each generation's metrics from the store."""
    generations, seed = [], plan.seed if plan.one_of_several else None
    for t in sorted({stage.t for stage in plan.stages}):
        artifacts = plan.artifacts(t)
        generations.append(
            GenerationSummary(
                t=t,
                metrics=read_figures(store, artifacts.values()),
                artifacts={role: ref.location for role, ref in artifacts.items()},
            )
        )
    cost = arm_cost(store, plan.stages)
    return ArmSummary(name=plan.name, seed=seed, generations=tuple(generations), cost=cost)


def summarise_scan(store: Store, plan: LoopPlan) -> tuple[ScanPoint, ...]:
    """The scan's first generations, in the plan's order: seed after seed."""
    kind = kind_report(plan.experiment)
    ratios = [each for seed in plan.seeds for each in kind.scan_ratios(store, plan.of_seed(seed))]
    return tuple(
        ScanPoint(
            seed=scanned.seed if scanned.one_of_several else None,
            omega=scanned.arm.method.strength,
            budget_mimg=scanned.arm.method.extra_mimg,
            metrics=read_figures(store, scanned.artifacts(1).values()),
            ratio=ratio,
        )
        for scanned, ratio in zip(plan.scan, ratios, strict=True)
    )
