"""What flow "sims-loop" takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from flows.parameters import (
    Arms,
    ClassGuidances,
    Generations,
    Methods,
    Omegas,
    PollutionSizes,
    RealFraction,
    RunName,
    ScanBudgets,
    ScanOmegas,
    Seeds,
    Ws,
    choice,
    chosen_methods,
)
from flows.registry import preset_names
from sims_core.methods.catalog import Method
from sims_core.methods.standard import Standard
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Accumulation, Arm, LoopKind, LoopPlan, plan_loop


def sims_loop(
    preset: Annotated[str, choice(preset_names("sims-loop"))] = "digits",
    generations: Generations = 3,
    methods: Methods = ["standard", "sims"],  # noqa: B006 - Prefect reads it
    omegas: Omegas = [1.0],  # noqa: B006
    ws: Ws = [1.0],  # noqa: B006
    loop: LoopKind = LoopKind.synthetic_augmentation,
    accumulation: Accumulation = Accumulation.replace_,
    pollution_sizes: PollutionSizes = [1797],  # noqa: B006
    real_fraction: RealFraction | None = None,
    class_guidances: ClassGuidances = [],  # noqa: B006
    scan_omegas: ScanOmegas = [],  # noqa: B006
    scan_budgets: ScanBudgets = [],  # noqa: B006
    seeds: Seeds = [0],  # noqa: B006
    arms: Arms = "here",
    run_name: RunName | None = None,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """Runs the loop for every method and pollution size, evaluates each generation and reports.

    Args:
        preset: Which experiment: data, networks, budgets, evaluation.
        generations: How many generations; t = 1 is trained on real data only.
        methods: Which methods to compare.
        omegas: Guidance strengths, an arm of each guided method each; 0 is standard training.
        ws: Strengths of Neon's merge of weights, one arm each.
        loop: What each generation after the first is trained on.
        pollution_sizes: How many images of the generation before enter the training set.
        real_fraction: Probability that a training image is drawn from the real part of the training
            set, e.g. 0.618; as often as it has images if not given.
        class_guidances: Strengths w of classifier-free guidance in sampling, an arm of each method
            for every one: MAD's sampling bias lambda is 1 / (1 + w); none is the preset's.
        accumulation: Whether synthetic data replace, join or share a budget with earlier ones.
        scan_omegas: Guidance strengths of a scan of the first generation (self-improvement).
        scan_budgets: Auxiliary budgets of that scan, in million images; none is the preset's.
        seeds: Every arm is made once for each of them, and all random numbers derive from them;
            fixed data and evaluation are those of the first.
        arms: Where arms are computed: here, one after the other, or side by side by the workers of
            the pool sims-arms (docs/scale.md).
        run_name: Name of the folder under runs/; made from the parameters if not given.
        overrides: Rarely changed settings of the preset by dotted name, e.g. {"training.kimg": 50}.
    """
    return dict(locals())


def plan(experiment: Experiment, parameters: Mapping[str, Any]) -> LoopPlan:
    """Arms (methods x class guidances x pollution sizes x seeds), planned in full."""
    methods = chosen_methods(experiment, parameters)
    sizes = parameters["pollution_sizes"]
    seed, *further = parameters["seeds"]
    guidances = parameters["class_guidances"] or [experiment.sampler.class_guidance]

    def arm(method: Method, size: int, guidance: float) -> Arm:
        names = ("loop", "accumulation", "real_fraction")
        fields = {name: parameters[name] for name in names}
        return Arm(method=method, pollution_size=size, class_guidance=guidance, **fields)

    return plan_loop(
        experiment,
        tuple(arm(method, size, w) for size in sizes for w in guidances for method in methods),
        parameters["generations"],
        seed,
        tuple(
            arm(method, sizes[0], guidances[0]) for method in _scan_methods(experiment, parameters)
        ),
        tuple(further),
    )


def _scan_methods(experiment: Experiment, parameters: Mapping[str, Any]) -> list[Method]:
    """Every omega at every budget (none given: the preset's); omega = 0 knows no budget."""
    omegas = sorted(parameters["scan_omegas"])
    budgets = sorted(parameters["scan_budgets"]) or [experiment.sims.budget_mimg]
    methods: list[Method] = [Standard()] if 0 in omegas else []
    return methods + [
        experiment.sims.model_copy(update={"omega": omega, "budget_mimg": budget})
        for budget in budgets
        for omega in omegas
        if omega > 0
    ]
