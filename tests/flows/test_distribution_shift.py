"""The flow distribution-shift in this process: what is shared, figures and files, bad input."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from infra.cli.runs import _looked_at, check_run, dry_run_of, execute_directly
from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.data.image_set import read_index
from sims_core.data.stages import REJECT
from sims_core.evaluation.figures import read_metrics
from sims_core.reports.summary import result_lines
from sims_core.store.store import Store

STUDY = {
    "targets": "0.6",
    "exponents": "1,3",
    "select_images": "64",
    "final_images": "96",
    "seeds": "0,1",
    "run_name": "shifted",
}
ODD = {"1", "3", "5", "7", "9"}


@pytest.fixture(scope="module")
def checked(tiny_texts):
    def check(**changes):
        return check_run("distribution-shift/digits", tiny_texts(STUDY, **changes))

    return check


@pytest.fixture(scope="module")
def done(checked, tmp_path_factory):
    """Without Prefect, in an empty store: (store, summary, the whole plan)."""
    folder = tmp_path_factory.mktemp("shift") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMS_STORE", str(folder))
        run = checked()
        summary = execute_directly(run)
        store = Store(folder)
        return store, summary, run.plan.completed(store)


def _odd(store, ref):
    histogram = read_index(store.open_artifact(ref)).class_histogram
    odd = sum(count for label, count in histogram.items() if label in ODD)
    return odd, sum(histogram.values())


def test_no_stage_is_computed_twice(done):
    _, summary, plan = done
    counts = Counter(stage.ref for stage in plan)
    assert set(counts.values()) == {1}
    assert summary.stages.computed == len(counts)
    trained = [stage.role for stage in plan if stage.request.stage == "train"]
    # A base a seed, one on re-weighted real data a target and seed, and what was tried.
    assert Counter(trained) == {roles.TRAIN_BASE: 2 + 2, roles.FINE_TUNE_AUXILIARY: 4}
    assert summary.answer.startswith("target odd=0.6: odd ")


def test_the_sets_have_the_exact_counts(done):
    store, _, plan = done
    by_method = {(each.method, each.target.name, each.seed): each for each in plan.models}
    real = by_method["re-weighted real", "odd=0.6", 0][roles.REWEIGH]
    assert _odd(store, real) == (round(0.6 * 1797), 1797)
    base = next(each for each in plan.bases if each.seed == 0)
    share = read_metrics(store, base[f"{roles.SHARES} odd=0.6"])["share_odd"]
    skewed = next(each for each in plan.tried if each.strength == (1.0, 1.0))
    p, t = share, skewed.target.mix.shares[0]
    odds = (p / (1 - p)) ** 2 / (t / (1 - t))
    assert _odd(store, skewed[roles.REWEIGH])[0] == pytest.approx(32 * odds / (1 + odds), abs=0.5)


def test_every_figure_says_what_its_model_costs(done):
    """Heun, 3 steps: 5 evaluations. 16 steps of 32 images train a base of 0.5 kimg, and 4 steps of
    128 an auxiliary of 0.5 kimg: as many images. Rejection pays for what it throws away too."""
    store, summary, plan = done
    costs = {curve.name: curve.cost or curve.points[0].cost for curve in summary.curves}
    weights = costs["base"].weights
    assert weights > 0
    for name, (evaluations, extra, samples, networks) in {
        "base": (5, 0, 0, 1),
        "re-weighted real": (5, 100, 0, 1),
        "sims": (10, 100, 32, 2),
    }.items():
        found = costs[name]
        assert (found.evaluations, found.extra_samples) == (evaluations, samples), name
        assert found.extra_training_percent == pytest.approx(extra), name
        assert found.weights == networks * weights, name
    kept = [
        store.manifest(each[roles.REJECT]).details["acceptance"]
        for each in plan.models
        if each.method == "rejection"
    ]
    rejection = costs["rejection"]
    expected = sum(5 / rate for rate in kept) / len(kept)
    assert rejection.evaluations == pytest.approx(expected, abs=0.1)
    assert (rejection.extra_training_percent, rejection.extra_samples) == (0, 32)
    lines = result_lines(summary)
    for curve in summary.curves:
        (line,) = (line for line in lines if line.startswith(f"{curve.name}: FID"))
        assert str(costs[curve.name]) in line
        assert "n = 96" in line
    page = (store.root / "runs" / "shifted" / "report" / "index.html").read_text()
    assert "What each method costs" in page
    assert f"<td>10</td><td>100 %</td><td>32</td><td>{2 * weights:,}</td>" in page


def test_what_the_selection_decides_on_is_computed_again_where_that_is_asked_for(
    done, checked, monkeypatch
):
    """Nothing else is: a run that finds all in the store starts no Prefect, and this one does."""
    store, _, plan = done
    monkeypatch.setenv("SIMS_STORE", str(store.root))
    assert all(_looked_at(store, checked().plan))
    monkeypatch.setenv("SIMS_RECOMPUTE", REJECT.name)
    taken = list(_looked_at(store, checked().plan))
    assert len(taken) == len(list(plan))
    rejected = [stage for stage in plan if stage.request.stage == REJECT.name]
    assert taken.count(False) == len(rejected) == 2


def test_the_choice_is_the_nearest_of_the_selection_and_final_seeds_are_others(done):
    store, _, plan = done
    for chosen in plan.chosen:
        if chosen.method != "sims":
            continue
        tried = [
            each for each in plan.tried if (each.seed, each.target) == (chosen.seed, chosen.target)
        ]
        distances = {each.strength: read_metrics(store, each[roles.SHARES])["tv"] for each in tried}
        assert distances[chosen.strength] == min(distances.values())
        seeds = [
            {
                stage.request.config["first_seed"]
                for stage in each.stages
                if stage.role == roles.GENERATE
            }
            for each in (chosen, tried[0])
        ]
        assert seeds[0].isdisjoint(seeds[1])
    judges = {
        ref
        for each in plan.models
        for s in each.stages
        if s.role == roles.LABEL
        for name, ref in s.request.inputs.items()
        if name == "classifier"
    }
    choosers = {
        ref
        for each in plan.tried
        for s in each.stages
        if s.role == roles.LABEL
        for name, ref in s.request.inputs.items()
        if name == "classifier"
    }
    assert len(judges) == len(choosers) == 1
    assert judges.isdisjoint(choosers)


def test_the_files_of_the_run_hold_its_figures(done):
    store, _, _ = done
    folder = store.root / "runs" / "shifted"
    printed = json.loads((folder / "run.json").read_text())
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    assert Counter(row["phase"] for row in rows) == {"selection": 4, "final": 8}
    assert [curve["name"] for curve in printed["curves"]] == [
        *("base", "rejection", "re-weighted real", "sims")
    ]
    for curve in printed["curves"]:
        assert [point["x"] for point in curve["points"]] == [0.6]
        for point in curve["points"]:
            own = [
                r
                for r in rows
                if r["phase"] == "final"
                and r["model"] == curve["name"]
                and r["target"] == f"odd={point['x']:g}"
            ]
            for name in ("share_odd", "tv", "fid", "fid_all", "precision", "recall"):
                assert point["figures"][name]["values"] == [row[name] for row in own]
            assert {row["n_labelled"] for row in own} == {row["n_generated"] for row in own} == {96}
    rejected = [row for row in rows if row["model"] == "rejection"]
    assert all(0 < row["acceptance"] < 1 and row["nfe"] > 5 for row in rejected)
    page = (folder / "report" / "index.html").read_text()
    assert "Share reached against distance" in page
    assert "<th>precision (k = 3)</th><th>recall (k = 3)</th>" in page
    assert {"figure.png", "shares.png"} <= {path.name for path in (folder / "report").iterdir()}
    assert (folder / "selection" / "try_sims_odd0.6_omega1_e3_seed1" / "shares").is_dir()


def test_a_second_run_computes_nothing_and_a_target_only_its_own(done, checked, monkeypatch):
    store, summary, _ = done
    monkeypatch.setenv("SIMS_STORE", str(store.root))
    again = execute_directly(checked())
    assert again.stages.computed == 0
    assert again.curves == summary.curves
    more = json.loads(dry_run_of(checked(targets="0.6,0.7")).json())
    anew = [row["stage"] for row in more["plan"] if row["state"] == "compute"]
    assert anew
    assert all("odd=0.7" in label for label in anew)


def test_points_of_a_mixture(checked, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    texts = [
        *("targets=0.55", "exponents=1", "seeds=0", "select_images=200", "final_images=300"),
        *("data.replicates=2", "data.num_points=200", "training.kimg=1", "sampler.num_steps=4"),
        *("sims.n_s=100", "sims.budget_mimg=0.0005", "point_evaluation.num_points=100"),
        *("point_evaluation.empirical_points=50", "model.net.hidden_features=8"),
    ]
    summary = execute_directly(check_run("distribution-shift/gaussian-mixture", texts))
    assert summary.figure == "w2_empirical"
    by_name = {curve.name: curve for curve in summary.curves}
    share = by_name["rejection"].points[0].figures["share_right"]
    assert share.mean == pytest.approx(0.55, abs=0.06)
    assert by_name["base"].cost.evaluations == 7
    assert by_name["sims"].cost.evaluations == 14
    assert by_name["sims"].cost.extra_samples == 100
    assert by_name["sims"].cost.weights == 2 * by_name["base"].cost.weights > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": '[{"odd": 0.5, "even": 0.6}]'},
            r"targets: shares must sum to 1, those of \(0.5, 0.6\) to 1.1",
        ),
        ({"targets": "1.5"}, "targets: every share must be between 0 and 1"),
        ({"targets": '[{"odd": 0.5}]'}, "targets: no share of group 'even'"),
        ({"targets": '[{"prime": 1}]'}, "targets: no group 'prime'; groups: odd, even"),
        ({"groups": "{}"}, "share of the first of two groups; there are 10"),
        ({"groups": '{"a": [0, 10], "b": [1]}'}, "groups.a: class 10 does not occur; .* 0 to 9"),
        ({"groups": '{"a": [0, 1], "b": [1]}'}, "groups: class 1 is in a and in b"),
        ({"groups": '{"a": [0], "b": [1]}'}, "every class must be in one, 2, 3, .* is in none"),
        ({"omegas": "0"}, "want an omega above 0 and an exponent"),
        (
            {"final_images": "8"},
            "final_images: kid_subset_size 16 exceeds num_images 8: lower evaluation.kid",
        ),
        ({"model.net.num_classes": "10"}, "model.net.num_classes is 10: .* set it to 0"),
        ({"sims.aux_data": "real+synthetic"}, "sims.aux_data real.synthetic: real data would undo"),
        ({"exponents": "-1"}, "parameter exponents.0: .*greater than or equal to 0, got -1"),
    ],
)
def test_mistakes_are_named_before_any_work(checked, changes, message):
    with pytest.raises(BadInput, match=message):
        checked(**changes)


def test_data_without_classes_are_refused(checked):
    overrides = {"data": {"source": "gaussian"}, "model.net": {"kind": "mlp"}}
    with pytest.raises(BadInput, match="needs data with classes, and gaussian has none"):
        check_run(
            "distribution-shift/digits",
            ["targets=0.5", f"overrides={json.dumps(overrides)}"],
        )


def test_the_page_shows_what_was_tried_then_the_methods_as_they_are_measured(
    done, checked, on_its_way
):
    run = on_its_way(done[0].root, checked(run_name="shifted-on-its-way"))
    page = run.through("try sims odd=0.6 omega=1 e=3 seed=0: shares")
    shown = [(row["phase"], row["exponent"]) for row in run.rows]
    assert shown == [("selection", 1), ("selection", 3)]
    assert "What was tried" in page
    assert "Share reached against distance" not in page
    assert not (run.folder / "report" / "figure.png").exists()
    page = run.through("re-weighted real odd=0.6 seed=0: evaluate against all real")
    finals = [(row["model"], row["seed"]) for row in run.rows if row["phase"] == "final"]
    assert finals == [("base", 0), ("re-weighted real", 0)]
    assert "Share reached against distance" in page
    chosen = next(each for each in run.whole.chosen if each.method == "sims")
    page = run.through(f"{chosen.name}: evaluate against all real")
    finals = [(row["model"], row["seed"]) for row in run.rows if row["phase"] == "final"]
    assert finals == [*((m, s) for s in (0, 1) for m in ("base", "re-weighted real")), ("sims", 0)]
    assert page.count(">yes</td>") == 1, "of the first seed it is known which was chosen"
    ended = run.finish()
    shutil.rmtree(run.folder)
    assert run.finish() == ended
