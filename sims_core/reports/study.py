"""What a report shows of a self-improvement study: its finals, its selection, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sims_core.common import roles
from sims_core.evaluation.figures import read_figures
from sims_core.evaluation.metric import figures_in
from sims_core.reports.base import PagePart
from sims_core.reports.images import images_context
from sims_core.reports.summary import ArmSummary, GenerationSummary, RunSummary, ScanPoint
from sims_core.store.store import Store
from sims_core.studies.self_improvement import Candidate, Measurement, StudyPlan


def extra_training(plan: StudyPlan, candidate: Candidate) -> float | None:
    """The auxiliary's training in percent of the base's, both in images seen.

    None for an imported base: how long that was trained is not known.
    """
    if plan.experiment.base.imported is not None:
        return None
    return 100_000 * (candidate.budget_mimg or 0) / plan.experiment.training.kimg


def nfe(plan: StudyPlan, candidate: Candidate) -> int:
    """Network evaluations for one image."""
    return plan.experiment.sampler.nfe * (2 if candidate.kind == "sims" else 1)


def study_rows(store: Store, plan: StudyPlan) -> list[dict[str, Any]]:
    """One row for each model in each phase: figures, counts, seeds, cost."""
    phases = (("selection", plan.selection), ("final", plan.finals))
    return [
        {
            "phase": phase,
            "model": each.candidate.name,
            "kind": each.candidate.kind,
            "omega": each.candidate.omega,
            "budget_mimg": each.candidate.budget_mimg,
            **read_figures(store, each.artifacts),
            "first_seed": each.first_seed,
            "nfe": nfe(plan, each.candidate),
            "extra_training_percent": extra_training(plan, each.candidate),
        }
        for phase, measured in phases
        for each in measured
    ]


NO_DIFFERENCE = 0.01
"""A smaller relative change of FID is called none: a choice of ours, below the noise of a seed."""


def answer(plan: StudyPlan, final: Mapping[str, Mapping[str, int | float]]) -> str:
    """Whether SIMS improves the base, by the finals' metrics.

    Of the candidate that the *selection* ranked first: the best of the finals would be chosen on
    the very seeds that it is reported on.
    """
    base, contrast, best = (final[each.candidate.name] for each in plan.finals[:3])
    chosen = plan.finals[2].candidate
    verdict = "improves" if best["fid"] < base["fid"] else "does not improve"
    if abs(best["fid"] - base["fid"]) < NO_DIFFERENCE * base["fid"]:
        verdict = "makes no clear difference to"
    extra = extra_training(plan, chosen)
    cost = "" if extra is None else f" ({extra:.3g} % extra training)"
    change = f"{100 * (best['fid'] / base['fid'] - 1):+.1f} %" if base["fid"] > 0 else "from 0"
    real = f", {best['n_real']} real" if "n_real" in best else ""
    return (
        f"SIMS {verdict} this model: FID {best['fid']:.3f} at omega = {chosen.omega:g} and a "
        f"budget of {1000 * (chosen.budget_mimg or 0):g} kimg{cost}, the base has "
        f"{base['fid']:.3f} ({change}), the base fine-tuned on the same images "
        f"{contrast['fid']:.3f}; n = {best['n_generated']} generated{real}, on "
        "seeds that the choice has not seen."
    )


def _summary(store: Store, measured: Measurement) -> ArmSummary:
    generation = GenerationSummary(
        t=1,
        metrics=read_figures(store, measured.artifacts),
        artifacts={stage.role: stage.ref.location for stage in measured.stages},
    )
    return ArmSummary(name=measured.candidate.name, generations=(generation,))


class StudyReport:
    """The finals as arms of one generation, the selection as scan, and the answer."""

    def findings(self, store: Store, plan: StudyPlan) -> dict[str, Any]:
        arms = tuple(_summary(store, each) for each in plan.finals)
        scan = tuple(
            ScanPoint(
                model=each.candidate.name,
                omega=each.candidate.omega,
                budget_mimg=each.candidate.budget_mimg,
                metrics=read_figures(store, each.artifacts),
            )
            for each in plan.selection
        )
        found = {arm.name: arm.generations[0].metrics for arm in arms}
        return {"arms": arms, "scan": scan, "answer": answer(plan, found)}

    def rows(self, store: Store, summary: RunSummary, plan: StudyPlan) -> list[dict[str, Any]]:
        return study_rows(store, plan)

    def budgets(self, plan: StudyPlan) -> str:
        return ", ".join(f"{budget:g}" for budget in sorted(plan.models) if budget)

    def counts(self, plan: StudyPlan) -> str:
        sweep = plan.sweep
        return f"{sweep.select_images} (selection) and {sweep.final_images} (final)"

    def page(
        self, store: Store, summary: RunSummary, plan: StudyPlan, folder: Path | None
    ) -> PagePart:
        from sims_core.reports.drawing import grid_uri, written
        from sims_core.reports.sweep import sweep_figure

        rows = study_rows(store, plan)
        selection = [row for row in rows if row["phase"] == "selection"]
        finals = [row for row in rows if row["phase"] == "final"]
        by_model = {row["model"]: row for row in selection}
        for row in finals:
            row["selected_fid"] = by_model[row["model"]]["fid"]
        context = {
            "sweep": written(sweep_figure(selection), folder, "figure"),
            "metrics": figures_in(selection[0]),
            "selection": selection,
            "finals": finals,
            "grids": [
                {"model": each.candidate.name, "uri": grid_uri(store, each[roles.PREVIEW])}
                for each in plan.finals
            ],
            **images_context(store, plan.experiment, plan.setup[0].ref),
        }
        return PagePart(context, "study.html.j2")


STUDY = StudyReport()
