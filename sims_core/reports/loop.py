"""What a report shows of a loop: arms over generations, and scans of the first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from sims_core.reports.base import PagePart, Pictures, kind_report
from sims_core.reports.found import summarise_arm, summarise_scan
from sims_core.reports.over_seeds import loop_answer, loop_curves
from sims_core.reports.summary import RunSummary, kimg
from sims_core.reports.tables import table_rows
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.loop import ArmPlan, LoopPlan


class LoopReport:
    """Most of it is its kind of data's."""

    def so_far(self, plan: LoopPlan, made: Collection[ArtifactRef]) -> LoopPlan | None:
        """The loop with those generations that each of its arms has ended; None: not one.

        Arms that have not ended their first generation are left out, those of later seeds together.
        """

        def ended(arm: ArmPlan) -> int:
            missing = (stage.t for stage in arm.stages if stage.ref not in made)
            return min(missing, default=plan.generations + 1) - 1

        of_seed = {s: [arm for arm in plan.arms if arm.seed == s] for s in plan.seeds}
        seeds = [plan.seed]
        for seed in plan.further_seeds:
            if not all(map(ended, [arm for each in (*seeds, seed) for arm in of_seed[each]])):
                break
            seeds.append(seed)
        arms = [arm for seed in seeds for arm in of_seed[seed] if ended(arm)]
        if not arms:
            return None
        several = len(seeds) > 1

        def cut(arm: ArmPlan) -> ArmPlan:
            last = ended(arm)
            stages = tuple(stage for stage in arm.stages if stage.t <= last)
            return replace(arm, stages=stages, one_of_several=several)

        return replace(
            plan,
            generations=max(map(ended, arms)),
            arms=tuple(map(cut, arms)),
            scan=(),
            further_seeds=tuple(seeds[1:]),
        )

    def findings(self, store: Store, plan: LoopPlan) -> dict[str, Any]:
        kind = kind_report(plan.experiment)
        arms = tuple(summarise_arm(store, arm) for arm in plan.arms)
        found = {
            "figure": kind.figure,
            "arms": kind.finish_arms(store, plan, arms),
            "scan": summarise_scan(store, plan),
        }
        if len(plan.seeds) > 1:
            curves = loop_curves(plan, arms, kind.figure)
            answer = loop_answer(plan, curves, kind.figure)
            found |= {"seeds": plan.seeds, "curves": curves, "answer": answer}
        return found

    def rows(self, store: Store, summary: RunSummary, plan: LoopPlan) -> list[dict[str, Any]]:
        seeds = [arm.seed for arm in plan.arms]
        return table_rows(summary.arms, summary.figure, plan.baselines, seeds)

    def budgets(self, plan: LoopPlan) -> str:
        return kimg(plan.experiment.sims.budget_mimg)

    def counts(self, plan: LoopPlan) -> str:
        return ""

    def pictures(self, store: Store, plan: LoopPlan) -> Pictures:
        return ()

    def page(
        self, store: Store, summary: RunSummary, plan: LoopPlan, folder: Path | None
    ) -> PagePart:
        part = kind_report(plan.experiment).page(store, summary, plan, folder)
        if len(plan.seeds) < 2:
            return part
        from sims_core.reports.bands import differences
        from sims_core.reports.drawing import written

        drawn = written(differences(summary.curves, summary.figure), folder, "over_seeds")
        figures = (*part.figures, "over_seeds")
        return PagePart({**part.context, "over_seeds": drawn}, part.template, figures)


LOOP = LoopReport()
