"""Metrics as one file each: their declarations, density and coverage, and a toy one end to end."""

import json
import math
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from safetensors.numpy import load_file
from scipy.spatial.distance import cdist
from torch_fidelity.metric_fid import fid_features_to_statistics
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, SimsError
from sims_core.common.frozen import Frozen
from sims_core.common.seeding import derive_seed
from sims_core.data.config import DigitsData
from sims_core.data.digits import load_digits_uint8
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import EvaluateConfig, EvaluationConfig, MetricConfig
from sims_core.evaluation.figures import read_figures
from sims_core.evaluation.measuring import measure, standard_figures
from sims_core.evaluation.metric import (
    COUNTS,
    PACKAGE,
    STANDARD_METRICS,
    Figure,
    MeasuredSet,
    Metric,
    NoOptions,
    figures_in,
    find_metric,
    further_metrics,
    load_metrics,
    register,
)
from sims_core.evaluation.metrics.density_coverage import DensityCoverageOptions
from sims_core.evaluation.stages import METRIC
from sims_core.reports import latex
from sims_core.reports.base import RunDetails, kind_report, report_of
from sims_core.reports.curves import curves
from sims_core.reports.lines import Line
from sims_core.reports.page import metric_rows, render_report, write_metrics
from sims_core.reports.summary import RunSummary, count_stages, shown_figures
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import plan_loop
from sims_core.studies.running import Outcome
from sims_core.studies.self_improvement import Sweep, plan_study

DENSITY = load_metrics()["density_coverage"]


def features(array):
    return MeasuredSet({"features": np.asarray(array, dtype=np.float32)})


def density_coverage(generated, real, neighborhood=5):
    options = DensityCoverageOptions(neighborhood=neighborhood)
    found = measure([(DENSITY, options)], features(generated), features(real), 0)
    return found["density"], found["coverage"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("neighborhood", [1, 3, 5])
def test_equal_sets_have_density_and_coverage_one(neighborhood):
    """Each open ball holds the image itself and all but the last of its k neighbours."""
    real = normal(1200, 8)  # of several blocks
    assert density_coverage(real, real, neighborhood) == (1, 1)


def test_points_on_a_line():
    """Real points at 0, 1, ..., 9 have balls of radius 1 for k = 1: what lies between two of them
    is in both balls."""
    real = np.arange(10.0)[:, None]
    assert density_coverage([[3.5]] * 7, real, 1) == (2, 2 / 10)
    # -0.5 is in the ball of 0 alone, 20 in none: three balls for three points.
    assert density_coverage([[3.5], [-0.5], [20.0]], real, 1) == (1, 3 / 10)
    # k = 2: radius 1 for all but the ends, which reach to 2.
    assert density_coverage([[1.5]], real, 2) == (3 / 2, 3 / 10)


@given(
    seed=st.integers(0, 1000),
    counts=st.tuples(st.integers(6, 40), st.integers(1, 40)),
    dim=st.integers(1, 5),
    neighborhood=st.integers(1, 5),
)
def test_density_and_coverage_are_their_definition(seed, counts, dim, neighborhood):
    """Equations 3 and 4 of the paper, image by image."""
    real, generated = normal(counts[0], dim, seed=seed), normal(counts[1], dim, seed=seed + 1)
    inside, covered = 0, 0
    for number, image in enumerate(real):
        others = np.delete(real, number, axis=0)
        radius = np.sort(cdist([image], others)[0])[neighborhood - 1]
        within = cdist([image], generated)[0] < radius
        inside, covered = inside + within.sum(), covered + within.any()
    expected = inside / (neighborhood * len(generated)), covered / len(real)
    assert density_coverage(generated, real, neighborhood) == pytest.approx(expected, abs=0)


def test_two_samples_of_one_distribution_have_the_expected_values():
    """Of any distribution: density 1, coverage 1 - prod (N - i) / (N + M - i)."""
    found = [
        density_coverage(normal(400, 6, seed=seed), normal(300, 6, seed=seed + 100))
        for seed in range(20)
    ]
    density, coverage = np.array(found).T
    expected = 1 - math.prod((300 - i) / (700 - i) for i in range(1, 6))
    for values, mean in ((density, 1), (coverage, expected)):
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - mean) < 4 * error
        assert error < 0.02  # else nothing was tested


def test_a_tight_cluster_is_dense_and_covers_little():
    """The conventions: generated first, and high density says nothing of coverage."""
    real, cluster = normal(500, 4), 0.05 * normal(500, 4, seed=1)
    density, coverage = density_coverage(cluster, real)
    assert density > 1.2
    assert coverage < 0.1
    density, coverage = density_coverage(real, cluster)
    assert (density, coverage) < (0.05, 0.1)


def test_a_real_outlier_adds_little_to_density():
    """Its huge ball holds every generated image: precision is 1 by it, density 1 / k of it."""
    real = np.concatenate([normal(200, 2), [[1000.0, 0.0]]]).astype(np.float32)
    generated = normal(100, 2, seed=1) + np.float32(30)  # near nothing real
    assert density_coverage(generated, real) == (pytest.approx(1 / 5), 1 / 201)
    known = load_metrics()["precision_recall"]
    found = measure([(known, known.options())], features(generated), features(real), 0)
    assert found["precision"] == 1


def test_more_neighbours_than_real_images_are_refused():
    with pytest.raises(BadInput, match=r"neighborhood 5 of density_coverage must be below.*, 5"):
        density_coverage(normal(9, 2), normal(5, 2))


def test_every_file_of_the_package_is_a_metric():
    (folder,) = find_spec(PACKAGE).submodule_search_locations
    files = {path.stem for path in Path(folder).glob("[a-z]*.py")}
    known = load_metrics()
    assert files <= set(known)
    assert tuple(known)[: len(STANDARD_METRICS)] == STANDARD_METRICS
    assert not set(further_metrics()) & set(STANDARD_METRICS)
    keys = [key for metric in known.values() for key in metric.keys]
    assert len(keys) == len(set(keys))
    assert not set(keys) & set(COUNTS)


def test_declarations_need_no_torch(python):
    """A plan names metrics, a report their titles, and neither waits for torch."""
    code = (
        "import sys; from sims_core.evaluation.config import EvaluationConfig as E;"
        "e = E(metrics=('density_coverage',)); e.metric_stages(0);"
        "print([m for m in ('torch', 'torch_fidelity', 'numpy') if m in sys.modules])"
    )
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


class ToyOptions(Frozen):
    power: int = Field(default=1, ge=1)


def toy_compute(generated, real, options, seed):
    gap = np.abs(generated.features.mean(axis=0) - real.features.mean(axis=0))
    draw = np.random.default_rng(seed).random()
    return {"toy_gap": float(gap.mean() ** options.power), "toy_std": gap.std(), "toy_draw": draw}


TOY = Metric(
    name="toy",
    version=3,
    figures=(
        Figure("toy_gap", "Toy <gap>", "lower", 4, spread="toy_std", spread_over="features"),
        Figure("toy_draw", "Draw", "higher"),
    ),
    needs=("features",),
    options=ToyOptions,
    compute=toy_compute,
    random=True,
)
register(TOY)


def with_metrics(experiment, *names, **options):
    changes = {"metrics": names, "metric_options": options}
    evaluation = {**experiment.evaluation.model_dump(), **changes}
    return Experiment.model_validate({**experiment.model_dump(), "evaluation": evaluation})


@pytest.fixture(scope="module")
def toy_run(tiny_run, tmp_path_factory):
    """The tiny loop with two further metrics, from a store that has all of it but those."""
    store = Store.open(
        shutil.copytree(tiny_run.store.root, tmp_path_factory.mktemp("toy") / "store")
    )
    experiment = with_metrics(tiny_run.plan.experiment, "toy", "density_coverage", toy={"power": 2})
    plan = plan_loop(experiment, tuple(arm.arm for arm in tiny_run.plan.arms), 2, seed=7)
    outcomes = []
    for arm, stages in plan.groups:
        for stage in stages:
            cached = store.is_whole(stage.ref)
            run_stage(store, stage.request, Execution(threads=1))
            outcomes.append(Outcome(arm, stage, cached, 1.0))
    return store, plan, outcomes


@pytest.fixture(scope="module")
def toy_summary(toy_run):
    store, plan, outcomes = toy_run
    return RunSummary(
        **{"run": "toy", "flow": "sims-loop", "preset": "digits", "report": "index.html"},
        store=str(store.root),
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )


def test_further_metrics_compute_nothing_else_again(toy_run):
    computed = [outcome.stage.label for outcome in toy_run[2] if not outcome.cached]
    assert sorted(computed) == sorted(
        f"t=0{t} metric {name}" for name in ("toy", "density_coverage") for t in (1, 2, 1, 2)
    )


def test_a_metric_is_computed_of_the_stored_features(toy_run, tiny_run):
    store, plan, _ = toy_run
    stage = next(s for s in plan.arms[1].stages if (s.t, s.role) == (2, "metric toy"))
    assert stage.request.inputs == tiny_run.request(1, 2, "evaluate").inputs
    seed = tiny_run.request(1, 2, "evaluate").config["seed"]
    assert stage.request.config == {
        **{"name": "toy", "version": 3, "options": {"power": 2}, "seed": seed}
    }
    generated, real = (
        load_file(store.open_artifact(ref) / "features.safetensors")["features"]
        for ref in (stage.request.inputs["generated"], stage.request.inputs["real"])
    )
    gap = np.abs(generated.mean(axis=0) - real.mean(axis=0))
    expected = {"toy_gap": gap.mean() ** 2, "toy_std": gap.std()}
    expected |= {"toy_draw": np.random.default_rng(seed).random()}
    folder = store.open_artifact(stage.ref)
    found = json.loads((folder / "metrics.json").read_text())
    assert found == pytest.approx({**expected, "n_generated": 64, "n_real": 256}, rel=1e-6)
    assert pq.read_table(folder / "metrics.parquet").to_pylist() == [found]


def test_the_summary_has_the_figures_of_every_metric(toy_run, toy_summary, tiny_run):
    as_json = json.loads(toy_summary.model_dump_json(exclude_defaults=True))
    standard = report_of(tiny_run.plan).findings(tiny_run.store, tiny_run.plan)["arms"]
    for number, arm in enumerate(as_json["arms"]):
        for t, generation in enumerate(arm["generations"]):
            before = standard[number].generations[t]
            added = {"toy_gap", "toy_std", "toy_draw", "density", "coverage"}
            assert set(generation["metrics"]) == set(before.metrics) | added
            assert before.metrics.items() <= generation["metrics"].items()
            assert {"metric toy", "metric density_coverage"} <= set(generation["artifacts"])
    assert shown_figures(toy_summary.arms[0]) == [
        *("fid", "kid", "precision", "recall"),
        *("density", "coverage", "toy_gap", "toy_draw"),
    ]


def test_the_report_shows_the_figures_of_every_metric(toy_run, toy_summary, tmp_path):
    store, plan, outcomes = toy_run
    details = RunDetails("Toy", {"seed": 7}, plan, outcomes)
    page = render_report(store, toy_summary, details)
    balls = ("Precision (k = 3)", "Recall (k = 3)", "Density (k = 5)", "Coverage (k = 5)")
    for title in ("Toy &lt;gap&gt; ± over features", "Draw", *balls):
        assert f"<th>{title}</th>" in page
    assert "Toy <gap>" not in page
    rows = metric_rows(store, toy_summary, plan)
    for row in rows:
        for key, shown in (
            ("toy_gap", f"{row['toy_gap']:.4f} ± {row['toy_std']:.4f}"),
            ("density", f"{row['density']:.3f}"),
        ):
            assert f"<td>{shown}</td>" in page, key
    write_metrics(tmp_path, rows)
    assert pq.read_table(tmp_path / "metrics.parquet").to_pylist() == rows
    drawn = [axes.get_title() for axes in curves(toy_summary.arms).axes if axes.get_title()]
    assert drawn == [
        *("FID (lower is better)", "KID (lower is better)"),
        *("Precision (higher is better)", "Recall (higher is better)"),
        *("Density (higher is better)", "Coverage (higher is better)"),
        *("Toy <gap> (lower is better)", "Draw (higher is better)"),
    ]


def test_panels_without_a_metric_are_blank(toy_summary):
    arms = []
    for arm in toy_summary.arms:
        generations = []
        for each in arm.generations:
            fewer = {key: value for key, value in each.metrics.items() if key != "toy_gap"}
            generations.append(each.model_copy(update={"metrics": fewer}))
        arms.append(arm.model_copy(update={"generations": tuple(generations)}))
    figure = curves(arms)
    assert [axes.axison for axes in figure.axes] == [True] * 11 + [False] + [True] * 3 + [False]


def test_a_sweep_counts_and_plans_further_metrics(tiny_experiment):
    sweep = Sweep(
        **{"methods": (tiny_experiment.sims,), "budgets_mimg": (0.000256,), "finalists": 1},
        **{"n_s": 32, "select_images": 64, "final_images": 80},
    )
    plan = plan_study(with_metrics(tiny_experiment, "toy"), sweep, 7)
    decided = plan.with_finals({each.candidate.name: 1.0 for each in plan.selection})
    assert plan.undecided == sum(len(each.stages) for each in decided.finals) == 15
    assert all(each["metric toy"].kind == "metrics" for each in decided.finals)


LABELS = Metric(
    name="classes_seen",
    version=1,
    figures=(Figure("classes_seen", "Classes", "higher"),),
    needs=("labels",),
    options=NoOptions,
    compute=lambda generated, real, options, seed: {
        "classes_seen": len(np.intersect1d(generated.labels, real.labels)) + real.labels[17] / 100
    },
)


def test_a_metric_of_labels(tiny_run):
    """They are those of the images that the features were made of."""
    register(LABELS)
    setup = {stage.role: stage.ref for stage in tiny_run.plan.setup}
    config = MetricConfig(name="classes_seen", version=1, options={}, seed=None)
    real = setup["real features"]
    ref = run_stage(
        tiny_run.store, METRIC.request(config, generated=real, real=real), Execution(threads=1)
    )
    labels = load_digits_uint8(DigitsData(num_images=256))[1]
    expected = len(set(labels.tolist())) + labels[17] / 100
    assert read_figures(tiny_run.store, [ref])["classes_seen"] == pytest.approx(expected)
    generated = tiny_run.request(0, 1, "features").ref
    with pytest.raises(BadInput, match="classes_seen needs labels, and the generated images have"):
        run_stage(
            tiny_run.store,
            METRIC.request(config, generated=generated, real=real),
            Execution(threads=1),
        )


def test_a_metric_reads_only_what_it_declares():
    def greedy(generated, real, options, seed):
        return {"toy_gap": generated.logits.sum(), "toy_std": 0, "toy_draw": 0}

    both = MeasuredSet({"features": normal(5, 2), "logits": normal(5, 2)})
    with pytest.raises(KeyError, match="logits"):
        measure([(replace(TOY, compute=greedy), ToyOptions())], both, both, 0)


def test_a_metric_returns_only_what_it_declares():
    fewer = replace(TOY, compute=lambda *_: {"toy_gap": 1.0})
    with pytest.raises(ValueError, match=r"toy declares .*toy_draw.*, returned \['toy_gap'\]"):
        measure([(fewer, ToyOptions())], features(normal(5, 2)), features(normal(5, 2)), 0)


def test_a_figure_that_is_not_finite_is_one_clear_error():
    broken = {"toy_gap": math.nan, "toy_std": 0.0, "toy_draw": 0.0}
    with pytest.raises(SimsError, match="toy_gap not finite"):
        measure(
            [(replace(TOY, compute=lambda *_: broken), ToyOptions())],
            *(features(normal(5, 2)), features(normal(5, 2)), 0),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("nope",)}, "no metric 'nope'; metrics: density_coverage"),
        ({"metrics": ("kid",)}, "kid is measured in every run"),
        ({"metrics": ("toy", "toy")}, "the same one twice"),
        ({"metric_options": {"toy": {}}}, r"metric_options: 'toy' is not in metrics \[\]"),
        (
            {"metrics": ("toy",), "metric_options": {"toy": {"powr": 2}}},
            "metric_options.toy: powr: extra inputs are not permitted",
        ),
        (
            {
                "metrics": ("density_coverage",),
                "metric_options": {"density_coverage": {"neighborhood": 0}},
            },
            "neighborhood: input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_a_mistaken_metric_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig(**changes)


def test_a_metric_of_logits_needs_them_to_be_stored():
    metric = replace(
        TOY, name="toy_logits", needs=("logits",), figures=(Figure("l", "L", "lower"),)
    )
    register(metric)
    with pytest.raises(ValidationError, match="toy_logits needs logits: set inception_score=true"):
        EvaluationConfig(metrics=("toy_logits",))
    fitting = {"features": "inception", "inception_score": True, "num_images": 3000}
    assert EvaluationConfig(metrics=("toy_logits",), **fitting).metrics == ("toy_logits",)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Toy"},
        {"name": "toy"},  # with another version
        {"name": "kid"},
        {"name": "other", "figures": (Figure("fid", "FID", "lower"),)},
        {"name": "other", "figures": (Figure("seed", "Seed", "lower"),)},
    ],
)
def test_a_name_is_registered_once(changes):
    before = load_metrics()
    with pytest.raises(ValueError, match="metric"):
        register(replace(TOY, version=4, **changes))
    register(TOY)  # again is no harm
    assert load_metrics() == before


def test_another_version_is_not_computed():
    with pytest.raises(BadInput, match=r"no metric toy version 2 here; metrics: fid v1, .*toy v3"):
        find_metric("toy", 2)


def test_figures_are_in_the_order_of_their_metrics():
    found = {"coverage": 1, "recall": 1, "kid_std": 1, "kid": 1, "seed": 1, "isc": 2.0, "fid": 1}
    assert [each.name for each in figures_in(found)] == ["fid", "kid", "recall", "isc", "coverage"]


def test_precision_and_recall_against_a_sample_of_the_real_images():
    """As torch-fidelity has them of those rows alone; other metrics are of all."""
    rows = torch.from_numpy(normal(40, 3, seed=0)), torch.from_numpy(normal(300, 3, seed=1))
    sets = [
        MeasuredSet({"features": each.numpy(), "statistics": fid_features_to_statistics(each)})
        for each in rows
    ]
    config = EvaluateConfig(kid_subsets=2, kid_subset_size=5, prc_neighborhood=3, seed=7)
    whole = standard_figures(*sets, config)
    found = standard_figures(*sets, config.model_copy(update={"prc_real_images": 50}))
    drawn = np.random.default_rng(derive_seed(7, "real sample")).choice(300, 50, replace=False)
    expected = prc_features_to_metric(
        rows[0],
        rows[1][torch.from_numpy(np.sort(drawn))],
        prc_neighborhood=3,
        prc_batch_size=1000,
        save_cpu_ram=True,
        verbose=False,
    )
    assert found["precision"] == expected[KEY_METRIC_PRECISION] != whole["precision"]
    assert found["recall"] == expected[KEY_METRIC_RECALL]
    assert all(found[name] == whole[name] for name in ("fid", "kid", "kid_std"))
    sampled = config.model_copy(update={"prc_real_images": 50})
    of_seeds = [
        standard_figures(*sets, sampled.model_copy(update={"seed": seed})) for seed in range(4)
    ]
    assert len({(each["precision"], each["recall"]) for each in of_seeds}) > 1
    for enough in (300, 10**6):
        every = standard_figures(*sets, config.model_copy(update={"prc_real_images": enough}))
        assert every == whole


def test_the_sample_is_in_the_digest_only_where_there_is_one():
    config = EvaluateConfig(kid_subsets=2, kid_subset_size=5, prc_neighborhood=3, seed=7)
    assert "prc_real_images" not in config.model_dump()
    assert config.model_copy(update={"prc_real_images": 9}).model_dump()["prc_real_images"] == 9
    with pytest.raises(ValidationError, match="prc_neighborhood 3 must be below prc_real_images 3"):
        EvaluationConfig(prc_real_images=3)


def test_the_sample_is_said_where_the_figures_are():
    evaluation = EvaluationConfig(prc_real_images=900)
    experiment = Experiment().model_copy(update={"evaluation": evaluation})
    said = kind_report(experiment).describe_evaluation(experiment, "")
    assert said.endswith("recall at k = 3 against 900 real images, a random sample")
    row = {"precision": 0.5, "n_generated": 10.0, "n_real": 1797.0, "n_real_prc": 900.0}
    line = Line("", "a", points={1.0: {0: row}})
    assert latex._counts([line]) == (
        " on 10 generated and 1797 real data, precision and recall against 900 real ones"
    )


def test_the_inception_score_is_standard_where_there_are_logits():
    config = EvaluateConfig(kid_subsets=2, kid_subset_size=5, prc_neighborhood=3, seed=0)
    sets = []
    for seed in (0, 1):
        rows = torch.from_numpy(normal(20, 3, seed=seed))
        parts = {"features": rows.numpy(), "statistics": fid_features_to_statistics(rows)}
        sets.append(MeasuredSet(parts | {"logits": np.zeros((20, 4), np.float32)}))
    found = standard_figures(*sets, config)
    assert list(found)[-2:] == ["isc", "isc_std"]
    assert (found["isc"], found["isc_std"]) == (1, 0)  # the same classes of every image
