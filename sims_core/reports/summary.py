"""What a run found, as one JSON object: read by people, by `--json` and by the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sims_core.common.frozen import Frozen
from sims_core.evaluation.metric import figures_in
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
    generations: tuple[GenerationSummary, ...]
    convergence: Convergence | None = None
    """Where distances are known for each replicate."""


class ScanPoint(Frozen):
    """A first generation: self-improvement by one method with one budget."""

    model: str = ""
    """The model of a self-improvement study; "fine-tuned" ones sample the auxiliary itself."""
    omega: float
    budget_mimg: float | None
    """None for omega = 0, which trains no auxiliary."""
    metrics: dict[str, int | float]
    ratio: Interval | None = None
    """Over omega = 0, replicate by replicate, where distances of both are known."""


class CurvePoint(Frozen):
    """A model, measured once for each seed."""

    x: float
    figures: dict[str, Estimate]
    """Every metric over the seeds."""
    change: Estimate | None = None
    """How much the main figure differs from the baseline's, seed by seed."""


class Curve(Frozen):
    """A method over what is varied."""

    name: str
    points: tuple[CurvePoint, ...]


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
    """What a self-improvement study found, in one sentence; `arms` are its finals."""
    provenance: Provenance | None = None
    """None: an earlier version wrote it."""


def shown_generations(generations: int, most: int = 6) -> list[int]:
    """At most so many of 1..generations, evenly spread, the first and the last among them."""
    count = min(generations, most)
    if count == 1:
        return [1]
    return sorted({1 + round(i * (generations - 1) / (count - 1)) for i in range(count)})


def shown_figures(arm: ArmSummary) -> list[str]:
    """The metrics of an arm that a short table has; deviations, counts and seed qualify them."""
    found = arm.generations[0].metrics
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
    """An arm's result in one line of text."""
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


def count_stages(outcomes: Sequence[Outcome]) -> StageCounts:
    computed = [outcome for outcome in outcomes if not outcome.cached]
    return StageCounts(
        computed=len(computed),
        cached=len(outcomes) - len(computed),
        seconds=round(sum(outcome.seconds for outcome in computed), 3),
    )
