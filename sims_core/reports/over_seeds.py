"""What models that differ in their seed only found together: curves of means, differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sims_core.evaluation.metric import COUNTS as IMAGE_COUNTS
from sims_core.reports.estimates import Estimate, estimate, paired_difference
from sims_core.reports.summary import ArmSummary, Curve, CurvePoint
from sims_core.studies.loop import LoopPlan

COUNTS = (*IMAGE_COUNTS, "n_labelled", "n_empirical", "replicates")
"""Figures that say on how many samples others are; they are the same for all seeds."""

Metrics = Mapping[str, int | float]


def figures_over_seeds(found: Sequence[Metrics], suffix: str = "") -> dict[str, Estimate]:
    """Each metric of models that differ in their seed only, one mapping a seed.

    Args:
        suffix: ends the names of figures, and of their counts, against a further reference.
    """
    names = [name for name in found[0] if name.removesuffix(suffix) not in COUNTS]
    return {name: estimate([metrics[name] for metrics in found]) for name in names}


def counts_of(metrics: Metrics) -> dict[str, int | float]:
    """On how many data the figures of a model are."""
    return {name: metrics[name] for name in COUNTS if name in metrics and name != "seed"}


def as_row(seed: int, metrics: Metrics) -> dict[str, Any]:
    """A model's figures with its run's `seed`; that of KID's subsets is `metric_seed`."""
    renamed = {"metric_seed" if name == "seed" else name: metrics[name] for name in metrics}
    return {"seed": seed, **renamed}


def verdict(change: Estimate) -> str:
    """What a paired difference of a figure of which less is better shows."""
    if change.n < 2:
        return "one seed shows no interval"
    if not change.excludes_zero:
        return "no difference shown"
    return "worse" if change.mean > 0 else "better"


def compared(name: str, point: CurvePoint, figure: str, where: str, reference: str) -> str:
    """A point's figure and its change against the reference in words; the point has a change."""
    if point.change is None:
        raise ValueError(f"{name} is the reference itself")
    return (
        f"{name}: {figure.upper()} {point.figures[figure]} {where}, {point.change.signed} against "
        f"{reference} ({verdict(point.change)})"
    )


def loop_curves(plan: LoopPlan, arms: Sequence[ArmSummary], figure: str) -> tuple[Curve, ...]:
    """Each arm over generations, figures over seeds.

    A point's change is against the baseline of the same loop at the same t, seed by seed. In a run
    that goes on, a point is over those seeds whose arm has ended its generation.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, planned in enumerate(plan.arms):
        numbers[planned.arm.name].append(number)

    def at(number: int, index: int) -> Metrics | None:
        """An arm's figures at t = index + 1; None: it is not that far."""
        found = arms[number].generations[index : index + 1]
        return found[0].metrics if found else None

    def point(chosen: list[int], index: int) -> CurvePoint:
        found = {number: each for number in chosen if (each := at(number, index))}
        pairs = [
            (each[figure], other[figure])
            for number, each in found.items()
            if (baseline := plan.baselines[number]) != number and (other := at(baseline, index))
        ]
        change = paired_difference(*zip(*pairs, strict=True)) if pairs else None
        figures = figures_over_seeds([*found.values()])
        return CurvePoint(x=index + 1, figures=figures, change=change)

    return tuple(
        Curve(
            name=name,
            points=tuple(
                point(chosen, index)
                for index in range(max(len(arms[number].generations) for number in chosen))
            ),
            cost=arms[chosen[0]].cost,
        )
        for name, chosen in numbers.items()
    )


def loop_answer(plan: LoopPlan, curves: Sequence[Curve], figure: str) -> str:
    """What the last generation that each arm and its baseline have shows, in one sentence."""
    names = [planned.arm.name for planned in plan.arms]
    said = []
    for curve in curves:
        compared_at = [point for point in curve.points if point.change is not None]
        if compared_at:
            last = compared_at[-1]
            baseline = names[plan.baselines[names.index(curve.name)]]
            where = f"at t = {last.x:g}"
            said.append(compared(curve.name, last, figure, where, baseline))
    return "; ".join(said)
