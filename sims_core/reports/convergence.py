"""Where a loop ends: distances of its last generations relative to first ones, and the verdict."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from sims_core.common import purposes, roles
from sims_core.common.seeding import derive_seed
from sims_core.evaluation.distances import Floats, mean_and_interval, ratio_and_interval
from sims_core.evaluation.points import read_distances
from sims_core.reports.summary import Convergence, Interval
from sims_core.store.store import Store
from sims_core.studies.loop import ArmPlan, LoopPlan

Verdict = Literal["prevention", "strong mitigation", "weak mitigation", "none"]


def converged_generations(generations: int) -> range:
    """The last fifth of 1..generations, at least one."""
    return range(generations - max(1, generations // 5) + 1, generations + 1)


def verdict(ratio: float, standard: float) -> Verdict:
    """What an arm whose distance ends at `ratio` times the standard G^1 has achieved.

    `standard` is R_0, where standard training ends. Ours; see `Convergence`.
    """
    if ratio <= 1:
        return "prevention"
    if ratio < (1 + standard) / 2:
        return "strong mitigation"
    return "weak mitigation" if ratio <= standard else "none"


def _distances(store: Store, plan: ArmPlan, t: int) -> Floats:
    return read_distances(store.open_artifact(plan.artifacts(t)[roles.EVALUATE]), "w2")


def converged(store: Store, plan: LoopPlan) -> tuple[Convergence, ...]:
    """One for each arm. A replicate's end is its mean over the converged generations; in a run that
    goes on, over those of the generations that both the arm and its baseline have ended."""
    count = plan.experiment.point_evaluation.bootstrap
    seed = derive_seed(plan.seed, purposes.EVALUATE)
    firsts = [_distances(store, arm, 1) for arm in plan.arms]

    @cache
    def end_of(number: int, last: range) -> Floats:
        arm = plan.arms[number]
        return np.asarray(np.mean([_distances(store, arm, t) for t in last], axis=0))

    found = []
    for own, (baseline, arm) in enumerate(zip(plan.baselines, plan.arms, strict=True)):
        standard_arm, first = plan.arms[baseline], firsts[own]
        last = converged_generations(min(arm.generations, standard_arm.generations))
        end = end_of(own, last)
        ratio = ratio_and_interval(end, firsts[baseline], count, seed)
        reference = float(end_of(baseline, last).mean() / firsts[baseline].mean())
        standard = arm.arm.method.IS_BASELINE
        found.append(
            Convergence(
                first=last[0],
                last=last[-1],
                distance=mean_and_interval(end, count, seed),
                ratio_own=ratio_and_interval(end, first, count, seed),
                ratio_standard=ratio,
                verdict="standard" if standard else verdict(ratio[0], reference),
            )
        )
    return tuple(found)


def scan_ratios(store: Store, plan: LoopPlan) -> list[Interval | None]:
    """Each scanned first generation over the standard one; None if that is not in the scan.

    Replicates share their data, so that a ratio is known far better than either distance.
    """
    count = plan.experiment.point_evaluation.bootstrap
    seed = derive_seed(plan.seed, purposes.EVALUATE)
    standard = [arm for arm in plan.scan if arm.arm.method.IS_BASELINE]
    if not standard:
        return [None] * len(plan.scan)
    reference = _distances(store, standard[0], 1)
    return [
        ratio_and_interval(_distances(store, arm, 1), reference, count, seed) for arm in plan.scan
    ]
