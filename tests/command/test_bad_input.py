"""A user's mistake: exit code 2, one line that says what would be valid, and nothing written."""

from __future__ import annotations

import json
import time

import pytest

RUN = ("run", "sims-loop/digits")

CASES = {
    "unknown preset": (("run", "sims-loop/nope"), {}, ", sims-loop/digits, "),
    "unknown parameter": ((*RUN, "-p", "epochs=3"), {}, "parameters: generations, methods,"),
    "the preset as a parameter": ((*RUN, "-p", "preset=other"), {}, "no parameter 'preset'"),
    "a setting of the experiment as a parameter": (
        (*RUN, "-p", "data=mine"),
        {},
        'set in parts, data.NAME=VALUE, or whole, overrides={"data": {...}}; parameters: ',
    ),
    "mistyped override": ((*RUN, "-p", "training.kimgs=3"), {}, "names in training: kimg,"),
    "override below a value": ((*RUN, "-p", "training.kimg.x=3"), {}, "it is a value"),
    "override out of range": ((*RUN, "-p", "training.kimg=-3"), {}, "training.kimg"),
    "omega below 0": ((*RUN, "-p", "omegas=-1"), {}, "omegas.0"),
    "omega not a number": ((*RUN, "-p", "omegas=nan"), {}, "finite"),
    "no generation": ((*RUN, "-p", "generations=0"), {}, "greater than or equal to 1"),
    "generations in words": ((*RUN, "-p", "generations=two"), {}, "valid integer"),
    "no equals sign": ((*RUN, "-p", "generations"), {}, "key=value"),
    "a key twice": ((*RUN, "-p", "seeds=1", "-p", "seeds=2"), {}, "'seeds' is given twice"),
    "a seed twice": ((*RUN, "-p", "seeds=0,0"), {}, "parameter seeds: 0 is given twice"),
    "the seed of earlier versions": ((*RUN, "-p", "seed=1"), {}, "it is seeds, a list or a single"),
    "run name outside runs/": ((*RUN, "-p", "run_name=../x"), {}, "run_name"),
    "a data set that was not imported": (
        ("run", "sims-loop/own-images"),
        {},
        "`sims data import SOURCE --name own`",
    ),
    "a network for other images": (
        ("run", "sims-loop/mnist", "-p", "model.net.channels=3"),
        {},
        "those of mnist have 1 x 28 x 28",
    ),
    "unknown device": (RUN, {"SIMS_DEVICE": "quantum"}, "SIMS_DEVICE"),
    "no threads": (RUN, {"SIMS_THREADS": "0"}, "SIMS_THREADS"),
    "set-up without a server": (("setup",), {}, "prefect server start"),
    "no server": (RUN, {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "prefect server start"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_writes_nothing(case, sims, tmp_path):
    arguments, settings, named = CASES[case]
    started = time.monotonic()
    done = sims(*arguments, "--store", str(tmp_path / "store"), "--json", **settings)
    assert time.monotonic() - started < 20, "found only after work had begun"
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_made_is_bad_input(sims, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = sims(*RUN, "--store", str(tmp_path / "file" / "store"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "--store" in line


@pytest.mark.parametrize("command", ["ls", "verify"])
def test_looking_into_a_store_that_is_not_there_makes_none(command, sims, tmp_path):
    done = sims("store", command, "--store", str(tmp_path / "store"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no store at")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing(sims, tmp_path):
    done = sims(*RUN, "--dry-run", "--json", "--store", str(tmp_path / "store"))
    planned = json.loads(done.stdout)
    assert planned["stages"]["computed"] == len({row["artifact"] for row in planned["plan"]})
    assert list(tmp_path.iterdir()) == []


def test_presets_are_listed_for_programs_and_for_people(sims):
    rows = json.loads(sims("presets", "--json").stdout)
    assert "sims-loop/digits" in [row["name"] for row in rows]
    for row in rows:
        assert set(row) == {"name", "description", "hardware", "expected_time"}
        assert all(isinstance(text, str) and text for text in row.values())
    for_people = sims("presets").stdout
    assert all(text in for_people for row in rows for text in row.values())
