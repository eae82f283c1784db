"""What `sims run --dry-run` says."""

from __future__ import annotations

import json
import re

import pytest

from infra.cli.dry_run import DryRun
from infra.cli.runs import check_run, dry_run_of
from sims_core.store.store import Store


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def test_three_states(tiny_run, tiny_plan, tmp_path):
    nothing = DryRun.of(Store(tmp_path), tiny_plan())
    assert nothing.totals == {"computed": 31, "cached": 0, "shared": 2}
    shared = [row.stage.label for row in nothing.rows if row.state == "shared"]
    assert shared == ["t=01 mix", "t=01 train base"]
    more = DryRun.of(Store(tiny_run.store), tiny_plan(generations="3"))
    assert more.totals == {"computed": 15, "cached": 33}


def test_a_line_for_each_arm_and_generation_with_what_it_takes(tiny_run, tiny_plan):
    planned = DryRun.of(Store(tiny_run.store), tiny_plan(generations="3"))
    heads, *table = list(planned.lines())[:8]
    assert heads.split() == ["arm", "compute", "shared", "cached"]
    counts = [re.findall(r"(?<=\s)\d+(?=\s|$)", line)[:3] for line in table]
    assert counts[:4] == [["0", "0", "3"], ["0", "0", "6"], ["0", "0", "6"], ["6", "0", "0"]]
    assert "about " in table[3], "the store knows what such a generation took"
    assert "about " not in table[2]
    last = list(planned.lines())[-1]
    assert last.startswith("would compute 15 stages; 33 are cached; about ")
    assert last.endswith("by what earlier stages took here")
    every = [line for line in planned.lines(every_stage=True) if line.startswith("compute ")]
    assert len(every) == 15


def test_a_forecast_names_what_it_leaves_out(tiny_run, tiny_plan):
    """Of another network nothing was measured; of what measures its images something was."""
    wider = tiny_plan(**{"model.net.block_out_channels": "[8,24]"})
    last = list(DryRun.of(Store(tiny_run.store), wider).lines())[-1]
    assert re.search(
        r"about .* without train, generate, no such stage was computed here yet, by what", last
    )


def test_programs_are_told_the_same(tiny_run, tiny_plan):
    planned = DryRun.of(Store(tiny_run.store), tiny_plan(generations="3"))
    told = json.loads(planned.json())
    assert told["stages"] == planned.totals
    assert [row["state"] for row in told["plan"]] == [row.state for row in planned.rows]
    assert told["forecast"]["seconds"] == planned.forecast(planned.rows).seconds > 0
    (network,) = told["networks"]
    assert network["training_bytes"] == 20 * network["parameters"]


def test_arms_that_are_the_same_experiment_are_one():
    """Of one generation no arm sees polluting images, however many there would be."""
    run = check_run("sims-loop/digits", ["pollution_sizes=450,900", "generations=1"], to_plan=True)
    planned = dry_run_of(run)
    assert planned.same == (
        ("standard |D_s|=900", "standard |D_s|=450"),
        ("sims omega=1 |D_s|=900", "sims omega=1 |D_s|=450"),
    )
    assert {row.arm for row in planned.rows} == {"", "standard |D_s|=450", "sims omega=1 |D_s|=450"}
    assert "standard |D_s|=900 is the same experiment as standard |D_s|=450" in planned.lines()
    assert planned.totals == {"computed": 16, "cached": 0, "shared": 2}


@pytest.mark.parametrize(
    ("preset", "missing"),
    [
        ("sims-loop/ffhq64", ["ffhq64"]),
        ("self-improvement/edm2-imagenet512", ["imagenet512", "edm2-imagenet512"]),
        (
            "sims-loop/autoguidance-imagenet64",
            ["imagenet64", "edm2-imagenet64-ema045", "edm2-imagenet64-xs"],
        ),
        ("distribution-shift/ffhq64", ["ffhq64-labelled"]),
    ],
)
def test_a_preset_whose_data_are_not_there_is_planned(preset, missing, empty_store):
    planned = dry_run_of(check_run(preset, [], to_plan=True))
    assert len(planned.missing) == len(missing)
    for line, name in zip(planned.missing, missing, strict=True):
        assert name in line
        assert f"--name {name}" in line
    assert planned.totals["computed"] > 10
    assert planned.totals["cached"] == 0
    assert not empty_store.exists()


@pytest.mark.parametrize(
    ("preset", "stored_bytes", "training_gb", "file_gb"),
    [
        ("self-improvement/edm-cifar10", 4, "1.1", "0.22"),
        ("self-improvement/edm2-imagenet512", 2, "5.6", "0.6"),
    ],
)
def test_sizes_are_said_in_gigabytes(preset, stored_bytes, training_gb, file_gb):
    """A file has its network's parameters in float32 (EDM) or float16 (EDM2); training holds five
    float32 of each: weights, gradients, two moments, average."""
    planned = dry_run_of(check_run(preset, [], to_plan=True))
    lines = list(planned.lines())
    (line,) = (line for line in lines if line.startswith("network "))
    parameters = int(re.search(r": ([\d,]+) parameters", line)[1].replace(",", ""))
    assert f"training it holds {training_gb} GB beside" in line
    assert float(training_gb) == round(20 * parameters / 1e9, 1)
    (model,) = (line for line in lines if line.startswith("missing: model "))
    assert f" ({file_gb} GB): `curl -O https://" in model
    digits = len(file_gb.partition(".")[2])
    assert float(file_gb) == round(stored_bytes * parameters / 1e9, digits)


def test_what_is_missing_ends_in_no_run_and_an_unknown_size_in_no_plan(sims):
    done = sims("run", "sims-loop/ffhq64", "--direct")
    assert done.returncode == 2
    done = sims("run", "sims-loop/own-images", "--dry-run")
    assert done.returncode == 2, "what is trained depends on the images"
    assert "sims data import" in done.stderr
    done = sims("run", "sims-loop/digits", "--stages")
    assert done.stderr == "error: --stages needs --dry-run, whose list it makes longer\n"
