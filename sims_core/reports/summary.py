"""What a run found, as one JSON object: read by people, by `--json` and by the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any, Literal

from sims_core.common.frozen import Frozen
from sims_core.common.values import shown_value
from sims_core.evaluation.metric import figures_in
from sims_core.reports.cost import Cost
from sims_core.reports.estimates import Estimate
from sims_core.reports.provenance import Provenance
from sims_core.studies.running import Outcome


class StageCounts(Frozen):
    """How many stages this run computed or took from the store, and the seconds it computed."""

    computed: int
    cached: int
    seconds: float


class GenerationSummary(Frozen):
    t: int
    metrics: dict[str, int | float]
    """Figures with their sample counts and seed."""
    artifacts: dict[str, str]
    """Role (`train base`, `generate`, ...) to path relative to the store."""


Interval = tuple[float, float, float]
"""A mean or ratio of means over replicates, and its bootstrap 95 % interval."""


class Convergence(Frozen):
    """How far an arm's last generations are from the truth, and what that makes of the arm.

    The verdict is ours, since the paper's inequalities are not public. With R = `ratio_standard` of
    the arm and R_0 that of the standard arm of the same loop: prevention R <= 1, strong mitigation
    R < (1 + R_0) / 2, weak mitigation R <= R_0, none above; "standard" for the standard arm.
    """

    first: int
    last: int
    """The generations that count as converged: the last fifth."""
    distance: Interval
    ratio_own: Interval
    """Over the arm's own G^1."""
    ratio_standard: Interval
    """Over the standard G^1."""
    verdict: Literal["standard", "prevention", "strong mitigation", "weak mitigation", "none"]


class ArmSummary(Frozen):
    name: str
    seed: int | None = None
    """Of its models, in a run with several."""
    generations: tuple[GenerationSummary, ...]
    cost: Cost | None = None
    convergence: Convergence | None = None
    """Where distances are known for each replicate."""

    @property
    def curve(self) -> str:
        """Its name without the seed: the same for all arms that differ in nothing else."""
        return self.name.removesuffix(f" seed={self.seed}")


class ScanPoint(Frozen):
    """A first generation: self-improvement by one method with one budget."""

    model: str = ""
    """The model of a self-improvement study; "fine-tuned" ones sample the auxiliary itself."""
    seed: int | None = None
    """Of its model, in a run with several."""
    omega: float
    budget_mimg: float | None
    """None for omega = 0, which trains no auxiliary."""
    metrics: dict[str, int | float]
    ratio: Interval | None = None
    """Over omega = 0, replicate by replicate, where distances of both are known."""


class CurvePoint(Frozen):
    """A model, measured for each seed: once, or on several disjoint sets of images."""

    x: float
    figures: dict[str, Estimate]
    """Every metric over the seeds; of a seed with several sets of images their mean."""
    change: Estimate | None = None
    """How much the main figure differs from the baseline's, seed by seed."""
    counts: dict[str, int | float] = {}
    """On how many data the figures are, where no arm of the summary says so."""
    cost: Cost | None = None
    """Where it is not the same for the whole curve."""
    repeats: tuple[tuple[float, ...], ...] = ()
    """The main figure of each set of images, for each seed, where there are several."""
    best: Estimate | None = None
    """The least of them, over the seeds: what the field reports as the best of three."""

    @property
    def repeat_std(self) -> float | None:
        """How much sets of images of one model differ: sample deviation, pooled over seeds."""
        if not self.repeats:
            return None
        return math.sqrt(fmean([variance(values) for values in self.repeats]))

    def brief(self, figure: str) -> str:
        """The figure with its interval if it has one."""
        found = self.figures[figure]
        if found.low is None or found.high is None:
            return f"{found.mean:.3f}"
        return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"

    def text(self, figure: str) -> str:
        """The figure with its interval, and mean and best of its sets of images, each named."""
        text = self.brief(figure)
        if (seeds := self.figures[figure].n) > 1:
            text += f" over {seeds} seeds"
        if self.best is not None:
            text += (
                f" (mean of {len(self.repeats[0])} sets of images, deviation "
                f"{self.repeat_std:.3f}; best of them {self.best.mean:.3f})"
            )
        return text


class Curve(Frozen):
    """A method over what is varied."""

    name: str
    points: tuple[CurvePoint, ...]
    cost: Cost | None = None

    @property
    def costs(self) -> list[tuple[str, Cost]]:
        """What it costs, as far as that is known: one price, or each point's, with their names."""
        if self.cost is not None:
            return [(self.name, self.cost)]
        points = [(f"{self.name} at {each.x:g}", each.cost) for each in self.points]
        return [(name, cost) for name, cost in points if cost is not None]


class RunSummary(Frozen):
    """The object that `sims run --json` prints, without fields that have their default value."""

    run: str
    flow: str
    preset: str
    store: str
    report: str
    stages: StageCounts
    figure: str = "fid"
    """The metric that ratios are made of."""
    arms: tuple[ArmSummary, ...]
    scan: tuple[ScanPoint, ...] = ()
    seeds: tuple[int, ...] = ()
    """Those of the models, where a run has several."""
    curves: tuple[Curve, ...] = ()
    """Figures over what a study varies, over seeds."""
    answer: str = ""
    """What a study, or a loop over several seeds, found in one sentence."""
    unfinished: str = ""
    """How far the run was when this was written; empty: it had ended."""
    provenance: Provenance | None = None
    """None: an earlier version wrote it."""


def kimg(mimg: float) -> str:
    """A budget in thousands of images, as all that is shown gives budgets."""
    return f"{1000 * mimg:.10g}"


BUDGETS = ("budgets", "scan_budgets")
"""Parameters in million images, as all are whose names end in `_mimg`."""


def in_kimg(name: str, value: Any) -> str:
    """What a parameter in million images is in kimg, with the unit; empty: it is none, or none is
    given."""
    if name not in BUDGETS and not name.endswith("_mimg"):
        return ""
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(each, int | float) for each in values):
        return ""
    return f"{', '.join(map(kimg, values))} kimg"


def with_unit(name: str, value: Any) -> str:
    """A parameter's value as it is typed, with what it is in kimg if it is in million images."""
    told = in_kimg(name, value)
    return f"{shown_value(value)} ({told})" if told else shown_value(value)


def shown_generations(generations: int, most: int = 6) -> list[int]:
    """At most so many of 1..generations, evenly spread, the first and the last among them."""
    count = min(generations, most)
    if count == 1:
        return [1]
    return sorted({1 + round(i * (generations - 1) / (count - 1)) for i in range(count)})


def shown_figures(arm: ArmSummary) -> list[str]:
    """The metrics of an arm that a short table has."""
    return figure_names(arm.generations[0].metrics)


def figure_names(found: Mapping[str, int | float]) -> list[str]:
    """The figures among metrics, which deviations, counts and seed qualify."""
    points = [name for name in ("w2", "w2_empirical") if name in found]
    return points + [figure.name for figure in figures_in(found)]


def sample_counts(metrics: Sequence[Mapping[str, int | float]]) -> list[str]:
    """How many generated data (and images: real ones) the figures are of: no FID without its n."""
    found = []
    for label, name in (("n", "n_generated"), ("real", "n_real")):
        counts = sorted({int(each[name]) for each in metrics if name in each})
        if counts:
            found.append(f"{label} = {', '.join(map(str, counts))}")
    return found


def arm_line(arm: ArmSummary, figure: str) -> str:
    """An arm's result in one line of text, with what its method costs."""
    found = _arm_figures(arm, figure)
    return found if arm.cost is None else f"{found}; {arm.cost}"


def _arm_figures(arm: ArmSummary, figure: str) -> str:
    values = [generation.metrics[figure] for generation in arm.generations]
    counts = ", ".join(sample_counts([generation.metrics for generation in arm.generations]))
    if arm.convergence is None:
        over = " ".join(f"{value:.3f}" for value in values)
        generations = f" over t = 1..{len(values)}:" if len(values) > 1 else ""
        return f"{arm.name}: {figure.upper()}{generations} {over} ({counts})"
    end = arm.convergence
    ratio, low, high = end.ratio_standard
    return (
        f"{arm.name}: {figure.upper()} {values[0]:.3f} at t = 1, {end.distance[0]:.3f} at "
        f"t = {end.first}..{end.last}: {ratio:.2f} [{low:.2f}, {high:.2f}] times the standard G^1"
        f" ({end.verdict}; {counts})"
    )


def curve_line(curve: Curve, figure: str, counts: Sequence[str] = ()) -> str:
    """A curve in one line of text, with the counts that its figures are of and what it costs."""

    several = len(curve.points) > 1

    def text(point: CurvePoint) -> str:
        found = point.text(figure) if point.best else str(point.figures[figure])
        at = f" at {point.x:g}" if several else ""
        return found + at + (f" ({point.cost})" if point.cost else "")

    points = map(text, curve.points)
    own = sample_counts([point.counts for point in curve.points])
    notes = [*(counts or own)] + ([str(curve.cost)] if curve.cost else [])
    said = f" ({', '.join(notes)})" if notes else ""
    return f"{curve.name}: {figure.upper()} " + "; ".join(points) + said


def result_lines(summary: RunSummary) -> list[str]:
    """What a run found as lines of text: its answer, then each curve's figures over seeds, or each
    arm's where there are no curves."""
    lines = [summary.answer] if summary.answer else []
    if not summary.curves:
        return lines + [arm_line(arm, summary.figure) for arm in summary.arms]
    counts = sample_counts([each.metrics for arm in summary.arms for each in arm.generations])
    return lines + [curve_line(curve, summary.figure, counts) for curve in summary.curves]


def count_stages(outcomes: Sequence[Outcome]) -> StageCounts:
    computed = [outcome for outcome in outcomes if not outcome.cached]
    return StageCounts(
        computed=len(computed),
        cached=len(outcomes) - len(computed),
        seconds=round(sum(outcome.seconds for outcome in computed), 3),
    )
