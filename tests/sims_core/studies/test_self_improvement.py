"""The plan of a self-improvement study: what is shared, which seeds, who gets to the finals."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch_fidelity
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.common.seeding import SEED_SPACE
from sims_core.data.config import GaussianData
from sims_core.data.mixing import read_first_labelled
from sims_core.engine.execution import DataFiles, Execution
from sims_core.evaluation.extractors import CLASSIFIER_EXTRACTOR
from sims_core.evaluation.images import RGBDataset
from sims_core.methods.autoguidance import Autoguidance
from sims_core.methods.base import Method, Sampled
from sims_core.methods.fine_tuned import FineTuned
from sims_core.methods.neon import Neon
from sims_core.methods.sims import Sims
from sims_core.nets.config import BaseConfig, MLPConfig, ModelConfig
from sims_core.nets.importing import find_model_source
from sims_core.nets.names import MODELS
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.reports.base import RunDetails
from sims_core.reports.page import metric_rows, render_report
from sims_core.reports.study import STUDY, answer, points
from sims_core.reports.summary import RunSummary, count_stages, result_lines
from sims_core.store.store import Store
from sims_core.studies.candidates import RANGE, Sweep
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.resolve import resolve_base
from sims_core.studies.running import Outcome, Runner
from sims_core.studies.self_improvement import plan_study, seed_range

PURPOSES = ("self-synthetic", "selection", "final", "preview")
EXPERIMENT = Experiment()
COUNTS = {"n_s": 500, "select_images": 600, "final_images": 900, "finalists": 2}


def fids(plan, **best):
    """A FID for each candidate; `best` ones by name with "_" for " "."""
    names = [each.candidate.name for each in plan.selection]
    better = {name.replace("_", " "): value for name, value in best.items()}
    assert set(better) <= set(names)
    return {name: better.get(name, 9.0) for name in names}


def sweep_of(
    experiment=EXPERIMENT,
    omegas=(2.0, 0.0, 0.5),
    ws=(),
    methods=(),
    budgets_mimg=(0.0128, 0.0032),
    **counts,
):
    """SIMS at every omega, Neon at every w, and other methods."""
    counts = COUNTS | counts
    sims = experiment.sims.model_copy(update={"n_s": counts["n_s"]})
    neon = Neon().with_recipe_of(sims)
    return Sweep(
        methods=(*Sims.arms(sims, omegas), *Neon.arms(neon, ws), *methods),
        budgets_mimg=budgets_mimg,
        **counts,
    )


def study(seed=0, further_seeds=(), experiment=EXPERIMENT, **changes):
    return plan_study(experiment, sweep_of(experiment, **changes), seed, further_seeds)


def of(plan, role):
    return [stage.request for stage in plan if stage.role == role]


def test_every_omega_at_every_budget_beside_base_and_contrast():
    assert [each.candidate.name for each in study().selection] == [
        "base",
        *("fine-tuned B=3.2k", "sims omega=0.5 B=3.2k", "sims omega=2 B=3.2k"),
        *("fine-tuned B=12.8k", "sims omega=0.5 B=12.8k", "sims omega=2 B=12.8k"),
    ]


def test_the_auxiliary_is_trained_once_with_a_snapshot_at_every_smaller_budget():
    plan = study(budgets_mimg=(0.0128, 0.0032, 0.0064))
    assert [s.role for s in plan.training if s.request.stage == "train"] == [
        "train base",
        "fine-tune auxiliary",
    ]
    (auxiliary,) = of(plan, "fine-tune auxiliary")
    assert auxiliary.config["snapshots_kimg"] == [3.2, 6.4]
    assert auxiliary.config["training"]["kimg"] == 12.8
    assert auxiliary.config["training"]["decay"] == "constant"
    assert auxiliary.config["training"]["ema_rampup_ratio"] == 0.1
    snapshots = [s.request for s in plan.training if s.request.stage == "snapshot"]
    assert [s.config["nimg"] for s in snapshots] == [3200, 6400]
    assert all(s.inputs["model"] == auxiliary.ref for s in snapshots)


def test_every_model_is_sampled_as_what_it_is():
    plan = study()
    base = plan.models[0.0]
    for each in plan.selection:
        generate = next(s.request for s in each.stages if s.role == "generate")
        auxiliary = plan.models[each.candidate.budget_mimg or 0.0]
        expected = {
            "base": {"base": base},
            "fine-tuned": {"base": auxiliary},
            "sims": {"base": base, "auxiliary": auxiliary},
        }[each.candidate.kind]
        assert generate.inputs == expected
        assert generate.config["omega"] == each.candidate.strength
        assert generate.config["count"] == 600
        features = next(s.request for s in each.stages if s.role == "features")
        assert features.config["count"] == 600
    assert len(set(plan.models.values())) == 3


def test_base_and_s_are_those_of_a_loops_first_generation():
    """The same store answers both flows."""
    sims = Sims(n_s=500)
    experiment = EXPERIMENT.model_copy(update={"sims": sims})
    arm = Arm(method=sims, loop=LoopKind.fully_synthetic, pollution_size=5)
    loop = plan_loop(experiment, (arm,), 1, 7)
    plan = study(seed=7, experiment=experiment)
    assert plan.setup == loop.setup
    made = loop.arms[0].artifacts(1)
    for stage in plan.training[:4]:
        assert stage.ref == made[stage.role]
    assert plan.training[4].role == "fine-tune auxiliary"
    assert plan.training[4].ref != made["fine-tune auxiliary"]


@given(seed=st.integers(0, 2**32), counts=st.tuples(*[st.integers(1, RANGE)] * 4))
def test_no_two_purposes_share_a_seed(seed, counts):
    """As intervals on the circle of seeds."""
    starts = [seed_range(seed, purpose) for purpose in PURPOSES]
    for (a, n), (b, m) in itertools.permutations(zip(starts, counts, strict=True), 2):
        assert (b - a) % SEED_SPACE >= n
        assert (a - b) % SEED_SPACE >= m


def seeds_of(requests):
    return {
        (request.config["first_seed"] + i) % SEED_SPACE
        for request in requests
        for i in range(request.config["count"])
    }


def test_finals_selection_and_s_have_disjoint_seeds():
    plan = study().with_finals(fids(study()))
    selection, finals = (
        [s.request for each in part for s in each.stages if s.role == "generate"]
        for part in (plan.selection, plan.finals)
    )
    sets = [seeds_of(r) for r in (selection, finals, of(plan, "self-synthetic"))]
    sets.append(seeds_of(of(plan, "preview")))
    assert [len(found) for found in sets] == [600, 900, 500, 64]
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_the_best_of_the_selection_go_to_the_finals():
    plan = study()
    whole = plan.with_finals(
        fids(plan, **{"sims_omega=2_B=3.2k": 1.0, "sims_omega=0.5_B=12.8k": 2.0, "base": 0.1})
    )
    assert [each.candidate.name for each in whole.finals] == [
        *("base", "fine-tuned B=3.2k", "sims omega=2 B=3.2k", "sims omega=0.5 B=12.8k"),
    ]
    assert len(list(whole)) == len(list(plan)) + plan.undecided
    assert whole.undecided == 0
    for each in whole.finals:
        assert [stage.role for stage in each.stages] == [
            *("generate", "preview", "features", "evaluate"),
        ]
        assert each.stages[0].request.config["count"] == 900


def test_of_equals_the_cheaper_one_wins():
    plan = study()
    finals = plan.with_finals(fids(plan)).finals
    assert [each.candidate.name for each in finals[2:]] == [
        *("sims omega=0.5 B=3.2k", "sims omega=2 B=3.2k"),
    ]


def test_more_finalists_than_candidates_are_all_of_them():
    plan = study(finalists=50)
    assert plan.undecided == 4 * 6
    assert len(plan.with_finals(fids(plan)).finals) == 6


def test_inputs_are_made_by_earlier_stages():
    plan, made = study(), set()
    for stage in plan.with_finals(fids(plan)):
        assert set(stage.request.inputs.values()) <= made
        made.add(stage.ref)
    labels = [stage.label for stage in plan]
    assert len(set(labels)) == len(labels)


def test_another_omega_or_budget_computes_its_own_stages_only():
    before = {stage.ref for stage in study()}
    more = {s.ref: s for s in study(omegas=(0.5, 1.0, 2.0)) if s.ref not in before}
    assert {stage.model for stage in more.values()} == {
        *("sims omega=1 B=3.2k", "sims omega=1 B=12.8k"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"omegas": (0.0,)}, "an omega above 0"),
        ({"budgets_mimg": ()}, "a budget"),
        ({"select_images": 20}, "select_images: .*too few"),
        ({"final_images": 64}, "final_images: .*too few"),
        ({"budgets_mimg": (0.00319, 0.0032, 0.01)}, "budgets: .*a batch apart"),
    ],
)
def test_impossible_studies_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        study(**changes)


def test_points_have_a_scan_of_their_own():
    model = ModelConfig(net=MLPConfig())
    with pytest.raises(BadInput, match="scan_omegas of sims-loop"):
        study(experiment=Experiment(data=GaussianData(), model=model))


TINY = {
    "omegas": (1.0, 3.0),
    "budgets_mimg": (0.000128, 0.000256),
    **{"n_s": 32, "select_images": 32, "final_images": 64, "finalists": 1},
}


@pytest.fixture(scope="module")
def done(tiny_experiment, tmp_path_factory):
    """A finished study: (store, whole plan, outcomes)."""
    store = Store.open(tmp_path_factory.mktemp("study") / "store")
    plan = study(7, experiment=tiny_experiment, **TINY)
    with pytest.raises(DamagedArtifact):
        plan.completed(store)
    outcomes = []
    for stage in plan:
        run_stage(store, stage.request, Execution(threads=1))
        outcomes.append(Outcome("", stage, False, 0.1))
    whole = plan.completed(store)
    for _, stages in whole.groups[len(plan.groups) :]:
        for stage in stages:
            run_stage(store, stage.request, Execution(threads=1))
            outcomes.append(Outcome("", stage, False, 0.1))
    return store, whole, outcomes


def test_the_finalist_has_the_selections_best_fid(done):
    store, plan, _ = done
    found = {
        each.candidate.name: store.manifest(each["evaluate"]).details["fid"]
        for each in plan.selection
        if each.candidate.kind == "sims"
    }
    assert len(found) == 4
    assert plan.finals[2].candidate.name == min(found, key=found.get)
    assert plan.completed(store) == plan, "also from the store"


def test_final_fid_equals_torch_fidelity_called_directly(done):
    store, plan, _ = done
    setup = {stage.role: stage.ref for stage in plan.setup}
    for each in plan.finals:
        expected = torch_fidelity.calculate_metrics(
            input1=RGBDataset(read_first_labelled(store.open_artifact(each["generate"]), None)[0]),
            input2=RGBDataset(
                read_first_labelled(store.open_artifact(setup["prepare data"]), None)[0]
            ),
            cuda=False,
            fid=True,
            feature_extractor=CLASSIFIER_EXTRACTOR,
            feature_extractor_weights_path=str(store.open_artifact(setup["train classifier"])),
            save_cpu_ram=True,
            verbose=False,
        )["frechet_inception_distance"]
        assert store.manifest(each["evaluate"]).details["fid"] == pytest.approx(expected, rel=1e-5)


def test_rows_and_summary_hold_every_figure_with_its_n_seeds_and_cost(done):
    store, plan, _ = done
    found = STUDY.findings(store, plan)
    rows = metric_rows(store, None, plan)
    assert [row["phase"] for row in rows] == ["selection"] * 7 + ["final"] * 3
    for row, each in zip(rows, (*plan.selection, *plan.finals), strict=True):
        details = store.manifest(each["evaluate"]).details
        assert row["metric_seed"] == details.pop("seed")
        assert {name: row[name] for name in details} == details
        assert (row["seed"], row["repeat"]) == (7, 1)
        assert row["n_generated"] == (32 if row["phase"] == "selection" else 64)
        assert row["nfe"] == (14 if row["kind"] == "sims" else 7)
        # of the base's 2 kimg
        assert row["extra_training_percent"] == pytest.approx(50_000 * (row["budget_mimg"] or 0))
    assert [arm.name for arm in found["arms"]] == [row["model"] for row in rows[7:]]
    assert [point.model for point in found["scan"]] == [row["model"] for row in rows[:7]]


def answered(plan, *fids):
    """The answer for finals of these FIDs, for each model of one seed and one set of images."""
    counts = {"n_generated": 900, "n_real": 1797}
    names = [each.candidate.name for each in plan.finals]
    found = {name: [[{"fid": fid, **counts}]] for name, fid in zip(names, fids, strict=True)}
    return answer(plan, found)


def test_the_answer_follows_the_figures():
    plan = study().with_finals(fids(study(), **{"sims_omega=2_B=3.2k": 1.0}))
    text = answered(plan, 8.0, 9.5, 6.0, 5.0)
    assert text.startswith("sims omega=2 improves this model on one seed, which shows no interval")
    assert "FID 6.000 at a budget of 3.2 kimg (12.8 % extra training), -2.000 (-25.0 %)" in text
    for part in ("The base has FID 8.000", "the same images 9.500", "900", "1797"):
        assert part in text
    imported = plan.experiment.model_copy(update={"base": BaseConfig(imported="mine")})
    unknown = answered(replace(plan, experiment=imported), 8.0, 9.5, 6.0, 5.0)
    assert unknown == text.replace(" (12.8 % extra training)", "")
    text = answered(plan, 8.0, 9.5, 8.5, 5.0)
    assert text.startswith("sims omega=2 does not improve this model on one seed")
    for fid in (7.93, 8.07):
        text = answered(plan, 8.0, 9.5, fid, 5.0)
        assert text.startswith("sims omega=2 makes no clear difference to this model on one seed")


def test_the_report_answers_first_and_shows_every_final(done):
    store, plan, outcomes = done
    summary = RunSummary(
        run="r",
        flow="self-improvement",
        preset="digits",
        store=str(store.root),
        report="index.html",
        stages=count_stages(outcomes),
        **STUDY.findings(store, plan),
    )
    details = RunDetails("A study", {"seed": 7, "preset": "digits"}, plan, outcomes)
    page = render_report(store, summary, details)
    assert page == render_report(store, summary, details)
    assert page.index(summary.answer.split(";")[0]) < page.index('class="card"')
    for row in metric_rows(store, summary, plan):
        assert f"{row['fid']:.3f}" in page
    assert page.count("<img") == 1 + 3
    assert "n = 32 generated" in page
    assert json.loads(summary.model_dump_json())["answer"] == summary.answer


def test_a_run_folder_links_to_every_stage(done):
    _, plan, _ = done
    paths = [path for path, _ in plan.links]
    assert len(set(paths)) == len(paths) == len(list(plan)) - len(plan.setup)
    assert "selection/sims_omega3_B0.128k/evaluate" in paths
    assert "training/train_base" in paths


def test_a_study_of_an_imported_base(tiny_experiment, tiny_run, store):
    """It is measured as it came; its auxiliary, and the contrast, are fine-tuned from it."""
    theirs = tiny_run.folder(1, 1, "train base")
    model = find_model_source(theirs).imported
    here = Execution(threads=1, files=DataFiles(imported=theirs))
    run_stage(store, IMPORT_MODEL.request(model), here)
    MODELS.give(store, "mine", model)
    named = tiny_experiment.model_copy(update={"base": BaseConfig(imported="mine")})
    experiment = resolve_base(named, store)
    one = {"omegas": (1.0,), "budgets_mimg": (0.000256,), "select_images": 64}
    plan = study(7, experiment=experiment, **(TINY | one))
    assert [s.role for s in plan.training if s.request.stage == "train"] == ["fine-tune auxiliary"]
    for stage in plan:
        run_stage(store, stage.request, Execution(threads=1))
    whole = plan.completed(store)
    for stage in whole:
        run_stage(store, stage.request, Execution(threads=1))
    imported = store.open_artifact(whole.models[0.0]) / "net"
    for path in imported.iterdir():
        assert path.read_bytes() == (theirs / "net" / path.name).read_bytes()
    (auxiliary,) = of(plan, "fine-tune auxiliary")
    assert auxiliary.inputs["initial"] == IMPORT_MODEL.request(model).ref
    found = STUDY.findings(store, whole)
    assert "extra training" not in found["answer"]
    assert [arm.name for arm in found["arms"]][:2] == ["base", "fine-tuned B=0.256k"]


# -- methods --------------------------------------------------------------------------------------


class Elsewhere(Method):
    """A guided method whose auxiliary has nothing to do with S, at a budget or at none."""

    STRENGTHS: ClassVar[str | None] = "omegas"

    kind: Literal["elsewhere"] = "elsewhere"
    omega: float = 1.0
    mimg: float | None = None

    @property
    def label(self) -> str:
        return f"elsewhere omega={self.omega:g}"

    @property
    def strength(self) -> float:
        return self.omega

    @property
    def extra_mimg(self) -> float | None:
        return self.mimg

    def models(self, steps, data, base):
        training = steps.training.model_copy(update={"kimg": 1.0})
        auxiliary = steps.train("train other", "other", training, {"data": data})
        return Sampled(base, auxiliary, self.omega)


def test_neon_after_sims_merges_and_trains_nothing():
    before = {stage.ref for stage in study()}
    both = study(ws=(-1.0, 0.5))
    assert before < {stage.ref for stage in both}
    new = [stage for stage in both if stage.ref not in before]
    assert Counter(s.request.stage for s in new) == {
        **{"merge": 4, "generate": 4, "features": 4, "evaluate": 4}
    }
    for stage in new:
        if stage.request.stage == "merge":
            (each,) = [c for c in both.candidates if c.name == stage.model]
            assert stage.request.inputs["base"] == both.models[0.0]
            assert stage.request.inputs["auxiliary"] == both.models[each.budget_mimg]
            assert stage.request.config["w"] == each.strength
    labels = [stage.label for stage in both]
    assert len(set(labels)) == len(labels)


def test_each_method_has_its_best_few():
    plan = study(ws=(1.0,), finalists=1)
    whole = plan.with_finals(
        fids(
            plan,
            **{"sims_omega=2_B=3.2k": 2.0, "neon_w=1_B=12.8k": 1.5, "sims_omega=0.5_B=3.2k": 1.8},
        )
    )
    assert [each.candidate.name for each in whole.finals] == [
        *("base", "fine-tuned B=12.8k", "sims omega=0.5 B=3.2k", "neon w=1 B=12.8k"),
    ]
    assert len(list(whole)) == len(list(plan)) + plan.undecided


def test_the_contrast_as_a_method_of_its_own_is_there_once():
    sims = EXPERIMENT.sims.model_copy(update={"n_s": 500})
    plan = study(methods=(FineTuned().with_recipe_of(sims),), finalists=1)
    assert [s.ref for s in plan] == [s.ref for s in study()]
    whole = plan.with_finals(fids(plan, **{"fine-tuned_B=12.8k": 3.0}))
    assert [each.candidate.name for each in whole.finals] == [
        *("base", "sims omega=0.5 B=3.2k", "fine-tuned B=12.8k"),
    ]
    assert len(list(whole)) == len(list(plan)) + plan.undecided


def test_a_method_of_its_own_training_needs_no_s():
    plan = study(omegas=(), methods=(Elsewhere(omega=0.5), Elsewhere(omega=2.0)))
    assert [s.label for s in plan.training] == [
        *("mix", "train base", "elsewhere omega=0.5: train other"),
    ], "both strengths share the auxiliary, no budget is known"
    assert [c.name for c in plan.candidates] == [
        *("base", "elsewhere omega=0.5", "elsewhere omega=2")
    ]
    whole = plan.with_finals(fids(plan, **{"elsewhere_omega=2": 1.0}))
    assert [each.candidate.name for each in whole.finals] == [
        *("base", "elsewhere omega=2", "elsewhere omega=0.5"),
    ]
    assert len(list(whole)) == len(list(plan)) + plan.undecided
    text = answered(whole, 8.0, 7.0, 9.0)
    assert text.startswith("elsewhere omega=2 improves this model on one seed")
    assert "fine-tuned" not in text


def test_methods_with_another_s_are_refused():
    other = Neon(n_s=7, w=1.0)
    with pytest.raises(BadInput, match=r"one set S and one auxiliary: methods\.neon must have n_s"):
        study(methods=(other,))


# -- seeds and repeats ----------------------------------------------------------------------------


def test_a_seed_more_computes_its_own_models_only():
    one, both = study(7), study(7, further_seeds=(8,))
    before = {stage.ref for stage in one}
    assert both.setup == one.setup
    assert before < {stage.ref for stage in both}
    new = [stage for stage in both if stage.ref not in before]
    assert all(stage.model.endswith("seed=8") for stage in new)
    assert len(new) == len(both.trained[1].stages) + 3 * 7
    assert [s.request.stage for s in both.trained[1].stages].count("prepare") == 0
    labels = [stage.label for stage in both]
    assert len(set(labels)) == len(labels)
    paths = [path for path, _ in both.with_finals(fids(both)).links]
    assert len(set(paths)) == len(paths)
    assert "training/seed8/train_base" in paths
    assert "final/base_seed8/evaluate" in paths
    with pytest.raises(BadInput, match=r"seeds must be all different, got \[7, 7\]"):
        study(7, further_seeds=(7,))


def test_finals_of_every_seed_are_those_with_the_least_mean():
    plan = study(7, further_seeds=(8, 9), finalists=1)
    whole = plan.with_finals(fids(plan, **{"sims_omega=2_B=12.8k": 1.0}))
    assert [(each.seed, each.candidate.name) for each in whole.finals] == [
        (seed, name)
        for seed in (7, 8, 9)
        for name in ("base", "fine-tuned B=12.8k", "sims omega=2 B=12.8k")
    ]
    assert len(list(whole)) == len(list(plan)) + plan.undecided
    for each in whole.finals:
        generate = next(s.request for s in each.stages if s.role == "generate")
        made = {stage.ref for t in whole.trained if t.seed == each.seed for stage in t.stages}
        assert set(generate.inputs.values()) <= made


def test_repeats_have_images_of_their_own():
    plan = study(final_repeats=3, finalists=1)
    whole = plan.with_finals(fids(plan))
    assert [each.name for each in whole.finals[:3]] == [
        *("base repeat=1", "base repeat=2", "base repeat=3")
    ]
    assert len(list(whole)) == len(list(plan)) + plan.undecided
    of_base = [s.request for each in whole.finals[:3] for s in each.stages if s.role == "generate"]
    assert len(seeds_of(of_base)) == 3 * 900
    selection = [s.request for each in plan.selection for s in each.stages if s.role == "generate"]
    others = seeds_of(selection) | seeds_of(of(plan, "self-synthetic"))
    assert not others & seeds_of(of_base)
    assert not seeds_of(of(whole, "preview")) & seeds_of(of_base)
    # The first set is that of a study without repeats, and a repeat more leaves the others.
    assert {s.ref for s in study(finalists=1).with_finals(fids(plan))} < {s.ref for s in whole}
    with pytest.raises(BadInput, match="final_repeats: 5 times 268435456 images are more"):
        study(final_images=RANGE // 4, final_repeats=5)


COUNTED = {"n_generated": 900, "n_real": 1797}


def test_points_over_seeds_and_repeats_in_closed_form():
    base = [[9.0, 9.2], [8.0, 8.2], [10.0, 10.4]]
    sims = [[8.0, 8.4], [7.1, 7.3], [8.8, 9.4]]
    found = {
        name: [[{"fid": fid, "recall": 0.5, **COUNTED} for fid in repeats] for repeats in seeds]
        for name, seeds in (("base", base), ("sims omega=2 B=3.2k", sims))
    }
    found = points(found)
    guided = found["sims omega=2 B=3.2k"]
    means = np.mean(sims, axis=1)
    assert guided.figures["fid"].values == pytest.approx(means)
    low, high = stats.t.interval(0.95, 2, loc=means.mean(), scale=stats.sem(means))
    assert (guided.figures["fid"].low, guided.figures["fid"].high) == pytest.approx((low, high))
    expected = stats.ttest_rel(means, np.mean(base, axis=1)).confidence_interval(0.95)
    assert (guided.change.low, guided.change.high) == pytest.approx(tuple(expected))
    assert guided.best.values == (8.0, 7.1, 8.8)
    assert guided.repeats == tuple(map(tuple, sims))
    assert guided.repeat_std == pytest.approx(np.sqrt(np.mean(np.var(sims, axis=1, ddof=1))))
    assert found["base"].change is None
    assert guided.text("fid") == (
        f"{means.mean():.3f} [{low:.3f}, {high:.3f}] over 3 seeds (mean of 2 sets of images, "
        f"deviation {guided.repeat_std:.3f}; best of them 7.967)"
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((6.0, 7.1, 8.0), "improves this model: FID 7.033"),
        ((9.4, 8.6, 8.2), "shows no difference to this model: FID 8.733"),
        ((10.0, 11.1, 12.0), "does not improve this model: FID 11.033"),
    ],
)
def test_over_seeds_the_answer_is_what_the_paired_interval_shows(values, verdict):
    plan = study(7, further_seeds=(8, 9), finalists=1)
    plan = plan.with_finals(fids(plan, **{"sims_omega=2_B=3.2k": 1.0}))
    levels = {"base": (8.0, 9.0, 10.0), "fine-tuned B=3.2k": (12.0,) * 3}
    levels["sims omega=2 B=3.2k"] = values
    found = {
        name: [[{"fid": fid, **COUNTED}] for fid in fids_of_it]
        for name, fids_of_it in levels.items()
    }
    text = answer(plan, found)
    assert text.startswith(f"sims omega=2 {verdict}")
    change = points(found)["sims omega=2 B=3.2k"].change
    assert f"{change.signed} (" in text
    assert "one seed" not in text


def test_autoguidance_trains_one_auxiliary_beside_them_and_says_what_that_costs(
    tiny_experiment, tmp_path
):
    methods = (Autoguidance(kimg=0.5), Autoguidance(kimg=0.5, omega=2.0))
    changes = TINY | {"omegas": (1.0,), "budgets_mimg": (0.000256,)}
    plan = study(7, experiment=tiny_experiment, methods=methods, **changes)
    assert [s.role for s in plan.training if s.request.stage == "train"] == [
        *("train base", "fine-tune auxiliary", "train auxiliary"),
    ]
    store = Store.open(tmp_path / "store")
    whole, _ = Runner(store, Execution(threads=1)).run_plan(plan)
    rows = [row for row in metric_rows(store, None, whole) if row["kind"] == "autoguidance"]
    assert [row["phase"] for row in rows] == ["selection", "selection", "final"]
    images = {"base": -(-2000 // 32) * 32, "auxiliary": -(-500 // 32) * 32}
    for row in rows:
        expected = 100 * images["auxiliary"] / images["base"]
        assert row["extra_training_percent"] == pytest.approx(expected)
        assert (row["nfe"], row["budget_mimg"]) == (14, None)


@pytest.fixture(scope="module")
def repeated(tiny_experiment, tmp_path_factory):
    """A finished study of two methods, two seeds, two sets of images."""
    store = Store.open(tmp_path_factory.mktemp("repeated") / "store")
    changes = TINY | {"omegas": (1.0,), "ws": (0.5,), "budgets_mimg": (0.000256,)}
    plan = study(7, (8,), tiny_experiment, final_repeats=2, **changes)
    whole, outcomes = Runner(store, Execution(threads=1)).run_plan(plan)
    return store, whole, outcomes


def test_finalists_are_chosen_by_the_mean_of_what_was_measured(tiny_experiment, repeated):
    store, plan, _ = repeated
    assert plan.completed(store) == plan
    found = {}
    for each in plan.selection:
        fid = store.manifest(each["evaluate"]).details["fid"]
        found.setdefault(each.candidate.name, []).append(fid)
    assert all(len(values) == 2 for values in found.values())
    means = {name: float(np.mean(values)) for name, values in found.items()}
    assert plan.with_finals(means) == plan


def test_every_figure_of_seeds_and_repeats_is_reported(repeated):
    store, plan, outcomes = repeated
    found = STUDY.findings(store, plan)
    summary = RunSummary(
        **{"run": "r", "flow": "self-improvement", "preset": "digits", "report": "r"},
        store=str(store.root),
        stages=count_stages(outcomes),
        **found,
    )
    rows = [row for row in metric_rows(store, summary, plan) if row["phase"] == "final"]
    names = ["base", "fine-tuned B=0.256k", "sims omega=1 B=0.256k", "neon w=0.5 B=0.256k"]
    assert [curve.name for curve in summary.curves] == names
    for curve in summary.curves:
        (point,) = curve.points
        of_it = [row for row in rows if row["model"] == curve.name]
        values = {(row["seed"], row["repeat"]): row["fid"] for row in of_it}
        assert set(values) == {(7, 1), (7, 2), (8, 1), (8, 2)}
        assert len(set(values.values())) == 4
        assert point.repeats == ((values[7, 1], values[7, 2]), (values[8, 1], values[8, 2]))
    nfe = {row["model"]: row["nfe"] for row in rows}
    assert nfe == dict(zip(names, (7, 7, 14, 7), strict=True))
    assert [arm.seed for arm in summary.arms] == [7] * 8 + [8] * 8
    lines = result_lines(summary)
    assert len(lines) == 1 + 4
    assert "over 2 seeds (mean of 2 sets of images" in lines[1]
    page = render_report(store, summary, RunDetails("T", {"final_repeats": 2}, plan, outcomes))
    for curve in summary.curves:
        assert f"{curve.points[0].best.mean:.3f}" in page
    for row in rows:
        assert f"{row['fid']:.3f}" in page
    assert summary.answer in page.replace("&#39;", "'")
    assert page.count("<img") == 1 + 4, "the first seed's"
