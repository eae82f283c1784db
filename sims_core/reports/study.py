"""What a report shows of a self-improvement study: its finals, its selection, and the answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sims_core.common import roles
from sims_core.evaluation.figures import read_figures
from sims_core.evaluation.metric import figures_in
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.reports.base import PagePart, Pictures, all_made, pictures_of
from sims_core.reports.cost import Cost, arm_cost, evaluations, weights_of
from sims_core.reports.estimates import estimate, paired_difference
from sims_core.reports.images import images_context
from sims_core.reports.over_seeds import as_row, figures_over_seeds
from sims_core.reports.summary import (
    ArmSummary,
    Curve,
    CurvePoint,
    GenerationSummary,
    RunSummary,
    ScanPoint,
    kimg,
)
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.candidates import BASE, Candidate, Measurement, kinds
from sims_core.studies.self_improvement import StudyPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, int | float]
Found = Mapping[str, Sequence[Sequence[Figures]]]
"""The figures of each candidate by its name: for each seed those of each set of images."""


def extra_training(plan: StudyPlan, candidate: Candidate) -> float | None:
    """The auxiliary's training in percent of the base's, both in images seen.

    None where it is not known: how long an imported base was trained, or what a method trains that
    has no budget.
    """
    if plan.experiment.base.imported is not None:
        return None
    if candidate.method is not None and candidate.budget_mimg is None:
        return None
    return 100_000 * (candidate.budget_mimg or 0) / plan.experiment.training.kimg


def _extra_training(store: Store, plan: StudyPlan, each: Measurement) -> float | None:
    """As `extra_training`; of a method without a budget it is counted off its stages."""
    if each.candidate.method is None or each.candidate.budget_mimg is not None:
        return extra_training(plan, each.candidate)
    (trained,) = (one for one in plan.trained if one.seed == each.seed)
    base = [stage for stage in trained.stages if stage.role == roles.TRAIN_BASE]
    cost = arm_cost(store, (*base, *trained.own[each.candidate.name], *each.stages))
    return cost.extra_training_percent if cost else None


def _cost(store: Store, plan: StudyPlan, each: Measurement) -> Cost:
    """What the measured model costs, as the stages that made it have counted."""
    (trained,) = (one for one in plan.trained if one.seed == each.seed)
    models = trained.sampled[each.candidate.name].inputs.values()
    return Cost(
        evaluations=evaluations(store, each.stages) or 0,
        extra_training_percent=_extra_training(store, plan, each),
        extra_samples=plan.sweep.n_s if isinstance(each.candidate.method, SelfSynthetic) else 0,
        weights=weights_of(store, models),
    )


def study_rows(store: Store, plan: StudyPlan) -> list[dict[str, Any]]:
    """One row for each measurement: model, seed, figures, counts, cost."""
    phases = (("selection", plan.selection), ("final", plan.finals))
    return [
        {
            "phase": phase,
            "model": each.candidate.name,
            "kind": each.candidate.kind,
            "strength": each.candidate.strength,
            "budget_mimg": each.candidate.budget_mimg,
            "repeat": each.repeat,
            **as_row(each.seed, read_figures(store, each.artifacts)),
            "first_seed": each.first_seed,
            "nfe": evaluations(store, each.stages),
            "extra_training_percent": _extra_training(store, plan, each),
        }
        for phase, measured in phases
        for each in measured
    ]


def found_in(store: Store, measured: Iterable[Measurement]) -> Found:
    """The figures of a phase, by candidate, seed and set of images."""
    found: dict[str, dict[int, list[Figures]]] = {}
    for each in measured:
        of_seed = found.setdefault(each.candidate.name, {}).setdefault(each.seed, [])
        of_seed.append(read_figures(store, each.artifacts))
    return {name: list(of_seeds.values()) for name, of_seeds in found.items()}


def points(found: Found) -> dict[str, CurvePoint]:
    """Each candidate over seeds, its change against the base seed by seed."""

    def mean(repeats: Sequence[Figures]) -> Figures:
        return {name: fmean([each[name] for each in repeats]) for name in repeats[0]}

    def point(name: str) -> CurvePoint:
        fid = [[each["fid"] for each in repeats] for repeats in found[name]]
        base = [fmean([each["fid"] for each in repeats]) for repeats in found[BASE.name]]
        several = len(fid[0]) > 1
        means = [fmean(values) for values in fid]
        return CurvePoint(
            x=1,
            figures=figures_over_seeds([mean(repeats) for repeats in found[name]]),
            change=None if name == BASE.name else paired_difference(means, base),
            repeats=tuple(tuple(values) for values in fid) if several else (),
            best=estimate([min(values) for values in fid]) if several else None,
        )

    return {name: point(name) for name in found}


NO_DIFFERENCE = 0.01
"""A smaller relative change of FID of one seed is called none: a choice of ours."""


def _verdict(point: CurvePoint, base: CurvePoint) -> str:
    """What a model's change against the base shows: its interval over seeds, or, with one seed,
    which of the two numbers is less."""
    change, level = point.change, base.figures["fid"].mean
    if change is None:
        raise ValueError("the base is not compared with itself")
    if change.n > 1:
        if not change.excludes_zero:
            return "shows no difference to this model"
        return f"{'improves' if change.mean < 0 else 'does not improve'} this model"
    said = "improves this model" if change.mean < 0 else "does not improve this model"
    if abs(change.mean) < NO_DIFFERENCE * level:
        said = "makes no clear difference to this model"
    return f"{said} on one seed, which shows no interval"


def _best_of_each(plan: StudyPlan) -> list[Candidate]:
    """Of each method the candidate that the *selection* ranked first: the best of the finals would
    be chosen on the very seeds that it is reported on."""
    chosen = [each.candidate for each in plan.finals if (each.seed, each.repeat) == (plan.seed, 1)]
    if plan.has_extra_contrast:
        chosen = [each for each in chosen if each.kind != "fine-tuned"]
    return [of_kind[0] for of_kind in kinds(chosen, plan.sweep).values() if of_kind]


def answer(plan: StudyPlan, found: Found) -> str:
    """Whether each method improves the base, by the finals' metrics; empty as long as none is
    measured."""
    if not found:
        return ""
    final = points(found)
    base, counts = final[BASE.name], found[BASE.name][0][0]
    level, said = base.figures["fid"].mean, []
    for chosen in _best_of_each(plan):
        point = final[chosen.name]
        extra = extra_training(plan, chosen)
        cost = "" if extra is None else f" ({extra:.3g} % extra training)"
        budget = chosen.budget_mimg
        at = "" if budget is None else f" at a budget of {kimg(budget)} kimg{cost}"
        change = point.change
        if change is None:
            raise ValueError("the base is not compared with itself")
        percent = f" ({100 * change.mean / level:+.1f} %)" if level > 0 else ""
        said.append(
            f"{chosen.label} {_verdict(point, base)}: FID {point.text('fid')}{at}, "
            f"{change.signed}{percent} against the base."
        )
    tail = f"The base has FID {base.brief('fid')}"
    tuned = next((name for name in final if name.startswith("fine-tuned")), None)
    if plan.has_extra_contrast and tuned is not None:
        tail += f", the base fine-tuned on the same images {final[tuned].brief('fid')}"
    real = f", {counts['n_real']} real" if "n_real" in counts else ""
    said.append(
        f"{tail}; n = {counts['n_generated']} generated{real}, on seeds that the choice has not "
        "seen."
    )
    return " ".join(said)


def _shown(measured: Sequence[Measurement], made: Collection[ArtifactRef]) -> list[Measurement]:
    """What a page can compare of a phase: the first seed's candidates that are measured, once the
    base and another one are; each later seed as soon as all of its candidates are measured."""
    missing = {(e.seed, e.candidate.name) for e in measured if not all_made(e.stages, made)}
    shown: list[Measurement] = []
    for seed in dict.fromkeys(each.seed for each in measured):
        of_seed = [each for each in measured if each.seed == seed]
        there = [each for each in of_seed if (seed, each.candidate.name) not in missing]
        if len(there) < len(of_seed):
            names = {each.candidate.name for each in there}
            return shown or (there if BASE.name in names and len(names) > 1 else [])
        shown += there
    return shown


def _summary(store: Store, plan: StudyPlan, measured: Measurement) -> ArmSummary:
    generation = GenerationSummary(
        t=1,
        metrics=read_figures(store, measured.artifacts),
        artifacts={stage.role: stage.ref.location for stage in measured.stages},
    )
    seed = measured.seed if len(plan.seeds) > 1 else None
    cost = _cost(store, plan, measured)
    return ArmSummary(name=measured.name, seed=seed, generations=(generation,), cost=cost)


def selection_figure(store: Store, plan: StudyPlan) -> Figure:
    """FID of the selection over strengths and budgets, over seeds."""
    from sims_core.reports.sweep import sweep_figure

    found = found_in(store, plan.selection)
    tried = points(found)
    counts = found[BASE.name][0][0]
    return sweep_figure([(each, tried[each.name]) for each in plan.candidates], counts)


class StudyReport:
    """The finals as arms of one generation, the selection as scan, and the answer."""

    def so_far(self, plan: StudyPlan, made: Collection[ArtifactRef]) -> StudyPlan | None:
        """What of the selection can be compared, then of the finals; None: nothing yet."""
        selection = _shown(plan.selection, made)
        if not selection:
            return None
        seeds = tuple(dict.fromkeys(each.seed for each in selection))
        trained = tuple(
            replace(each, stages=tuple(stage for stage in each.stages if stage.ref in made))
            for each in plan.trained
            if each.seed in seeds
        )
        finals = tuple(_shown(plan.finals, made))
        return replace(
            plan, seeds=seeds, trained=trained, selection=tuple(selection), finals=finals
        )

    def findings(self, store: Store, plan: StudyPlan) -> dict[str, Any]:
        arms = tuple(_summary(store, plan, each) for each in plan.finals)
        several = len(plan.seeds) > 1
        scan = tuple(
            ScanPoint(
                model=each.candidate.name,
                seed=each.seed if several else None,
                omega=each.candidate.strength,
                budget_mimg=each.candidate.budget_mimg,
                metrics=read_figures(store, each.artifacts),
            )
            for each in plan.selection
        )
        found = found_in(store, plan.finals)
        findings = {"arms": arms, "scan": scan, "answer": answer(plan, found)}
        if several or plan.sweep.final_repeats > 1:
            costs = {each.candidate.name: _cost(store, plan, each) for each in plan.finals}
            curves = [
                Curve(name=name, points=(each,), cost=costs[name])
                for name, each in points(found).items()
            ]
            findings |= {"seeds": plan.seeds, "curves": tuple(curves)}
        return findings

    def rows(self, store: Store, summary: RunSummary, plan: StudyPlan) -> list[dict[str, Any]]:
        return study_rows(store, plan)

    def budgets(self, plan: StudyPlan) -> str:
        return ", ".join(kimg(budget) for budget in sorted(plan.models) if budget)

    def counts(self, plan: StudyPlan) -> str:
        sweep = plan.sweep
        final = f"{sweep.final_images} (final)"
        if sweep.final_repeats > 1:
            final = f"{sweep.final_repeats} times {final}"
        return f"{sweep.select_images} (selection) and {final}"

    def pictures(self, store: Store, plan: StudyPlan) -> Pictures:
        first = [each for each in plan.finals if (each.seed, each.repeat) == (plan.seed, 1)]
        models = [(each.candidate.name, each.stages) for each in first]
        return pictures_of(store, plan.experiment, models)

    def page(
        self, store: Store, summary: RunSummary, plan: StudyPlan, folder: Path | None
    ) -> PagePart:
        from sims_core.reports.drawing import written

        rows = study_rows(store, plan)
        selection = [row for row in rows if row["phase"] == "selection"]
        finals = [row for row in rows if row["phase"] == "final"]
        by_model = {(row["model"], row["seed"]): row for row in selection}
        for row in finals:
            row["selected_fid"] = by_model[row["model"], row["seed"]]["fid"]
        context = {
            "sweep": written(selection_figure(store, plan), folder, "figure"),
            "metrics": figures_in(selection[0], plan.experiment.evaluation.neighborhoods),
            "selection": selection,
            "finals": finals,
            "several": bool(summary.curves),
            "pictures": self.pictures(store, plan),
            **images_context(store, plan.experiment, plan.setup[0].ref),
        }
        return PagePart(context, "study.html.j2", ("figure",))


STUDY = StudyReport()
