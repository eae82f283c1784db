"""The page of the stage that a run is at."""

from __future__ import annotations

import base64

import pytest

from sims_core.data.grid import image_grid
from sims_core.reports import at_work
from sims_core.reports.at_work import AtWork
from sims_core.reports.following import Following
from sims_core.reports.run_folder import RunToReport
from sims_core.reports.unfinished import followed
from sims_core.studies.running import Silent


@pytest.fixture
def run(tiny_run):
    return RunToReport("sims-loop", "going-on", "Digits", {"preset": "digits"}, tiny_run.plan, ())


@pytest.fixture
def pages(store, run):
    """The names of the pages that there are, each with its text."""
    folder = run.folder(store) / "now"
    return lambda: {path.name: path.read_text() for path in sorted(folder.glob("*"))}


@pytest.fixture
def told(store, run, monkeypatch):
    monkeypatch.setattr(at_work, "INTERVAL_S", 0.0)
    with Following(Silent(), store, run.plan, [AtWork(store, run.folder(store))]) as told:
        yield told


def test_a_training_shows_its_last_loss_and_latest_samples_until_it_has_ended(
    store, run, told, pages, random_images
):
    arm = run.plan.arms[0].name
    (stage,) = [s for s in run.plan.arms[0].stages if (s.t, s.role) == (1, "train base")]
    told.started(arm, "t=01 train base")
    assert pages() == {}, "nothing as long as the stage tells nothing: it may be in the store"
    told.advanced("t=01 train base", 320, 2048, "img", loss=0.75, img_per_s=100.0)
    ((name, page),) = pages().items()
    assert name == "standard_D_s48_t01_train_base.html"
    assert "<strong>0.3 of 2.0 kimg, loss 0.75</strong>" in page
    assert "<polyline" not in page, "one loss is no curve"
    assert "<img" not in page
    drawn = store.progress_path(stage.ref) / "state" / "samples"
    drawn.mkdir(parents=True)
    (drawn / "kimg-000000.320.png").write_bytes(b"earlier")
    latest = image_grid(random_images(4))
    (drawn / "kimg-000000.640.png").write_bytes(latest)
    (drawn / "kimg-000000.960.partial").write_bytes(b"half")
    told.advanced("t=01 train base", 640, 2048, "img", loss=0.25, img_per_s=100.0)
    told.advanced("t=01 train base", 700, 2048, "img", loss=0.25, img_per_s=100.0)
    ((_, page),) = pages().items()
    assert ", loss 0.25, " in page
    assert 'points="0.0,0.0 640.0,200.0"' in page, "the same loss again is no new one"
    assert page.count("<img") == 1
    assert base64.b64encode(latest).decode() in page
    assert "after 0.64 kimg" in page
    told.finished(arm, "t=01 train base", False, 1.0)
    assert pages() == {}
    assert not (run.folder(store) / "now").exists()


def test_of_two_workers_each_has_its_page(store, run, told, pages):
    one, other = (arm.name for arm in run.plan.arms)
    with Following(Silent(), store, run.plan, [AtWork(store, run.folder(store))]) as second:
        second.started(other, "t=02 generate")
        second.advanced("t=02 generate", 16, 64, "img")
        told.started(one, "t=01 generate")
        told.advanced("t=01 generate", 32, 64, "img")
        assert ["16 of 64 images" in page for page in pages().values()] == [True, False]
        assert len(pages()) == 2
        told.finished(one, "t=01 generate", False, 1.0)
        assert list(pages()) == ["sims_omega1_D_s48_t02_generate.html"]
    assert pages() == {}, "one that failed or was interrupted leaves none"


def test_a_stage_that_is_short_has_no_page(store, run, pages):
    with Following(Silent(), store, run.plan, [AtWork(store, run.folder(store))]) as told:
        told.started("", "train classifier")
        told.advanced("train classifier", 32, 64, "img")
        assert pages() == {}


def test_a_run_that_goes_on_removes_what_a_killed_one_has_left(store, run, pages, monkeypatch):
    monkeypatch.setattr(at_work, "INTERVAL_S", 0.0)
    killed = followed(Silent(), store, run)
    killed.started("", "train classifier")
    killed.advanced("train classifier", 32, 64, "img")
    assert len(pages()) == 1
    again = followed(Silent(), store, run)
    assert pages() == {}
    again.started("", "real features")
    again.advanced("real features", 32, 64, "img")
    assert list(pages()) == ["real_features.html"]


def test_a_folder_that_cannot_be_written_ends_no_run(store, run, told, caplog):
    run.folder(store).write_text("in the way")
    followed(Silent(), store, run)  # nor does sweeping it
    told.started("", "train classifier")
    told.advanced("train classifier", 32, 64, "img")
    told.finished("", "train classifier", False, 1.0)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["runs/going-on/now is not kept up to date any more"]
