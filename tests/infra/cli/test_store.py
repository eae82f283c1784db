"""`sims store` on the store of a run of points, which takes seconds."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from sims_core.common.errors import BadInput
from sims_core.data.config import Contents, ImportConfig, ImportedSet
from sims_core.data.names import DATASETS, images_of
from sims_core.store.store import read_record


@pytest.fixture
def verify():
    def run(store):
        done = CliRunner().invoke(app, ["store", "verify", "--store", str(store.root), "--json"])
        damaged = json.loads(done.stdout)["damaged"]
        assert done.exit_code == (1 if damaged else 0)
        return damaged

    return run


def test_a_whole_store_is_whole(store, verify):
    assert verify(store) == []


def test_a_deleted_artifact_is_missed(store, verify):
    """By its record and by the runs that show it."""
    ref = next(ref for ref in store.artifacts() if ref.kind == "metrics")
    shutil.rmtree(store.path(ref))
    damaged = verify(store)
    assert f"artifacts/*/{ref.digest}: missing" in damaged[0]
    assert damaged[1].startswith("runs/points/arms/")
    assert damaged[1].endswith("/evaluate: leads to nothing")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("metrics.parquet", "content differs from its SHA-256"),
        ("report/index.html", "content differs from its SHA-256"),
        ("report/drawn.json", "report/drawn.json"),
        ("run.json", "run.json"),
    ],
)
def test_a_changed_file_of_a_run_is_named(store, verify, name, problem):
    path = store.root / "runs/points" / name
    content = path.read_bytes()
    # In a report anywhere; in what is to stay JSON, a figure.
    place = content.rindex(b".", 0, -20) + 1 if name == "run.json" else len(content) // 2
    for changed in (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], None):
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        damaged = verify(store)
        assert len(damaged) == 1
        assert damaged[0].startswith(f"runs/points/{name}")
        assert changed is None or problem in damaged[0]


def give_name(store):
    """A name of an imported set, whose artifact nobody has."""
    contents = Contents(count=3, channels=1, height=8, width=8, num_classes=2)
    dataset = ImportedSet(
        config=ImportConfig(content="ab" * 32, layout="folder"), contents=contents
    )
    DATASETS.give(store, "mine", dataset)
    return dataset


def test_a_name_without_its_artifact_is_named(store, verify):
    dataset = give_name(store)
    (damaged,) = verify(store)
    assert damaged.startswith(f"{images_of(dataset).location}: missing, and datasets/mine.json")


def flips(content):
    """The content with each of its bits turned."""
    for place in range(len(content)):
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def test_no_bit_of_a_names_file_turns_it_into_another_set(store):
    dataset = give_name(store)
    path = store.root / "datasets/mine.json"
    content = path.read_bytes()
    noticed = 0
    for changed in flips(content):
        path.write_bytes(changed)
        try:
            assert DATASETS.find(store, "mine") == dataset
        except BadInput:
            noticed += 1
    assert noticed > 0.9 * 8 * len(content)


def test_names_of_older_programs_are_read(store):
    dataset = give_name(store)
    (store.root / "datasets/mine.json").write_text(dataset.model_dump_json())
    assert DATASETS.find(store, "mine") == dataset


def test_no_bit_of_a_record_turns_it_into_another(store, verify):
    path = store.record_path(store.artifacts()[0])
    content, record = path.read_bytes(), read_record(path)
    assert record.origin.source
    for changed in flips(content):
        path.write_bytes(changed)
        assert read_record(path) in (None, record)
    path.write_bytes(content.replace(b'"seconds":', b'"seconds":1'))
    assert verify(store) == [f"records/{path.name}: unreadable, or differs from its checksum"]


def test_an_unknown_stage_is_not_computed_again(store, arguments):
    done = CliRunner().invoke(app, arguments(store.root, "--recompute", "trian"))
    assert done.exit_code == 2
    assert "error: no stage 'trian' to compute again; stages: prepare," in done.stderr


def test_recompute_computes_anew_and_is_shown_by_a_dry_run(store, arguments):
    options = ("--recompute", "evaluate_points")
    plan = CliRunner().invoke(app, arguments(store.root, *options, "--dry-run", "--json"))
    rows = json.loads(plan.stdout)
    assert rows["stages"]["computed"] == 2  # standard and SIMS
    done = CliRunner().invoke(app, arguments(store.root, *options, "--json"))
    assert json.loads(done.stdout)["stages"]["computed"] == 2
    again = CliRunner().invoke(app, arguments(store.root, "--json"), env={"SIMS_RECOMPUTE": ""})
    assert json.loads(again.stdout)["stages"]["computed"] == 0


def command(store, *words):
    done = CliRunner().invoke(app, ["store", *words, "--store", str(store.root), "--json"])
    assert not isinstance(done.exception, Exception) or done.exit_code, done.output
    return done.exit_code, json.loads(done.stdout)


def test_a_finished_run_is_all_that_its_store_holds_until_it_is_removed(store, verify):
    code, held = command(store, "du")
    size, alone = held["run"]["points"]
    assert code == 0
    assert size == alone == sum(size for _, size in held["kind"].values())
    assert sum(count for count, _ in held["stage"].values()) == len(store.artifacts())
    assert held["unneeded"] == 0
    assert command(store, "gc", "--older-than", "0")[1]["artifacts"] == []
    removed = CliRunner().invoke(app, ["runs", "rm", "points", "--yes", "--store", str(store.root)])
    assert f"{size} bytes of artifacts were needed by it alone" in removed.stdout
    assert command(store, "gc")[1]["artifacts"] == [], "they are of today"
    kept = len(store.artifacts())
    would = command(store, "gc", "--older-than", "0", "--dry-run")[1]
    assert (len(would["artifacts"]), would["bytes"]) == (kept, size)
    assert len(store.artifacts()) == kept
    assert command(store, "gc", "--older-than", "0")[1]["bytes"] == size
    assert store.artifacts() == []
    assert verify(store) == []


def test_a_doctor_finds_what_is_amiss(store, monkeypatch):
    code, found = command(store, "doctor")
    assert code == 0, found
    (store.root / "locks" / ("ab" * 32 + ".lock")).mkdir()
    (store.root / "progress" / ("cd" * 32)).mkdir()
    monkeypatch.setenv("SIMS_FSYNC", "0")
    code, found = command(store, "doctor")
    amiss = [each["text"] for each in found if each["amiss"]]
    assert code == 1
    assert len(amiss) == 2
    assert "SIMS_FSYNC is off" in amiss[0]
    assert "is no lock" in amiss[1]
    assert [each for each in found if "unfinished work, " in each["text"]]


def test_names_in_a_store_are_shown_escaped(store):
    """Folders and files that somebody else made there."""
    hostile = "x\x1b[31m\x07\nerror: forged"
    shutil.copytree(store.root / "runs" / "points", store.root / "runs" / hostile, symlinks=True)
    for folder in ("datasets", "models", "records", "locks", "progress"):
        (store.root / folder).mkdir(exist_ok=True)
        (store.root / folder / f"{hostile}.json").write_text("{}")
    for words in (
        *(["runs", "ls"], ["runs", "show", hostile], ["runs", "show", "absent"]),
        *(["runs", "compare", hostile, "points"], ["data", "ls"], ["model", "ls"]),
        *(["store", what] for what in ("ls", "du", "verify", "doctor", "gc")),
    ):
        done = CliRunner().invoke(app, [*words, "--store", str(store.root)])
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        shown = done.stdout + done.stderr
        assert "\x1b" not in shown, words
        assert "\x07" not in shown, words
        assert not any(line.startswith("error: forged") for line in shown.splitlines()), words
