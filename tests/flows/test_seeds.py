"""Runs over several seeds: shared work, names, files, and the plain error for the old parameter."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client

from infra.cli.runs import check_run, dry_run_of, execute_directly
from sims_core.common.errors import BadInput
from sims_core.reports.summary import result_lines

LOOP = {
    "generations": "2",
    "pollution_sizes": "32",
    "methods": "standard,sims",
    "run_name": "seeds",
}
STUDY = {
    **{"methods": "sims,neon", "omegas": "1", "ws": "0.5", "budgets": "0.0005", "n_s": "32"},
    **{"select_images": "32", "final_images": "48", "finalists": "1", "final_repeats": "2"},
    "run_name": "seeds",
}


@pytest.fixture(scope="module")
def loop(tiny_texts):
    return lambda **changes: check_run("sims-loop/digits", tiny_texts(LOOP, **changes))


@pytest.fixture(scope="module")
def study(tiny_texts):
    return lambda **changes: check_run("self-improvement/digits", tiny_texts(STUDY, **changes))


def run(checked, store):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMS_STORE", str(store))
        return execute_directly(checked)


def would_compute(checked, store):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMS_STORE", str(store))
        return json.loads(dry_run_of(checked).json())["stages"]["computed"]


def stages_in(store):
    manifests = store.glob("artifacts/*/*/manifest.json")
    return [json.loads(path.read_text())["request"]["stage"] for path in manifests]


@pytest.fixture(scope="module")
def looped(loop, tmp_path_factory):
    store = tmp_path_factory.mktemp("loop") / "store"
    return store, run(loop(seeds="0,1"), store)


@pytest.fixture(scope="module")
def studied(study, tmp_path_factory):
    store = tmp_path_factory.mktemp("study") / "store"
    return store, run(study(seeds="0,1"), store)


def test_a_loop_shares_what_no_seed_changes(looped, loop):
    store, summary = looped
    stages = stages_in(store)
    assert stages.count("prepare") == stages.count("classifier") == 1
    # For each seed: G^1, and G^2 of either arm; an auxiliary in each generation.
    assert stages.count("train") == 2 * (3 + 2)
    assert summary.stages.computed == len(stages)
    assert run(loop(seeds="0,1"), store).stages.computed == 0


def test_a_seed_more_computes_its_own_stages_only(looped, loop):
    store, _ = looped
    before = {stage.ref for stage in loop(seeds="0,1").plan}
    more = loop(seeds="0,1,2").plan
    new = {stage.ref for stage in more if stage.ref not in before}
    assert new < {stage.ref for arm in more.arms if arm.seed == 2 for stage in arm.stages}
    assert would_compute(loop(seeds="0,1,2"), store) == len(new) > 0
    assert would_compute(loop(seeds="1"), store) > 0, "data and evaluation are the first seed's"
    assert would_compute(loop(seeds="0"), store) == 0


def test_the_files_of_a_loop_hold_every_value(looped):
    store, summary = looped
    folder = store / "runs" / "seeds"
    printed = json.loads((folder / "run.json").read_text())
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    assert printed["seeds"] == [0, 1]
    assert len(rows) == 2 * 2 * 2
    for curve in printed["curves"]:
        for point in curve["points"]:
            found = [r for r in rows if (r["arm"], r["t"]) == (curve["name"], point["x"])]
            assert [row["seed"] for row in found] == [0, 1]
            for name in ("fid", "kid", "precision", "recall"):
                assert point["figures"][name]["values"] == [row[name] for row in found]
                assert point["figures"][name]["n"] == 2
    assert len({row["metric_seed"] for row in rows}) == 2
    page = (folder / "report" / "index.html").read_text()
    assert "Over 2 seeds" in page
    assert (folder / "report" / "over_seeds.svg").is_file()
    assert (folder / "arms" / "standard_D_s32_seed1" / "t=02" / "generate").is_dir()
    standard = result_lines(summary)[1]
    assert standard.startswith("standard |D_s|=32: FID ")
    assert "over 2 seeds at 2 (n = 64, real = 1797, " in standard


def test_sub_flow_runs_carry_the_seed_in_their_name(looped, loop, prefect_url):
    from flows.sims_loop import sims_loop

    store, summary = looped
    with pytest.MonkeyPatch.context() as patch, get_client(sync_client=True) as client:
        patch.setenv("SIMS_STORE", str(store))
        before = {each.id for each in client.read_flow_runs()}
        again = sims_loop(**loop(seeds="0,1").parameters)
        names = [each.name for each in client.read_flow_runs() if each.id not in before]
    assert again.arms == summary.arms
    whole, *arms = sorted(names)
    assert whole.startswith("digits generations=2 pollution_sizes=32 run_name=seeds seeds=0,1 ")
    assert arms == [
        f"{method} |D_s|=32 seed={seed} of seeds"
        for method in ("sims omega=1", "standard")
        for seed in (0, 1)
    ]


def test_a_study_trains_once_a_seed_whatever_the_methods(studied, study):
    store, summary = studied
    stages = stages_in(store)
    assert stages.count("prepare") == stages.count("classifier") == 1
    assert stages.count("train") == 2 * 2, "base and auxiliary"
    assert stages.count("merge") == 2
    assert summary.stages.computed == len(stages)
    assert run(study(seeds="0,1"), store).stages.computed == 0
    before = {stage.ref for stage in study(seeds="0,1").plan}
    new = {stage.ref for stage in study(seeds="0,1,2").plan if stage.ref not in before}
    assert would_compute(study(seeds="0,1,2"), store) == len(new)
    rows = pq.read_table(store / "runs" / "seeds" / "metrics.parquet").to_pylist()
    finals = [(r["model"], r["seed"], r["repeat"]) for r in rows if r["phase"] == "final"]
    assert len(set(finals)) == len(finals) == 4 * 2 * 2


@pytest.mark.parametrize("flow", ["sims-loop", "self-improvement", "pollution"])
def test_the_old_parameter_names_the_new_one(flow):
    with pytest.raises(BadInput, match=f"no parameter 'seed' of flow {flow}: it is seeds, a list"):
        check_run(f"{flow}/digits", ["seed=3"])


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("[3]", [3]), ("3,1", [3, 1]), ("[3, 1]", [3, 1])]
)
def test_a_number_is_one_seed_and_a_list_several(loop, text, seeds):
    checked = loop(seeds=text)
    assert checked.plan.seeds == tuple(seeds)
    assert len(checked.plan.arms) == 2 * len(seeds)
