"""`sims model` as a user types it: import, list, run from it, and what refuses."""

import json

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

from infra.cli import progress
from infra.cli.main import app
from infra.cli.runs import check_run
from sims_core.common.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def sims_here(tmp_path, monkeypatch):
    """The command in this process, with a store of its own."""
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    return lambda *words: CliRunner().invoke(app, [*map(str, words)])


def test_import_list_and_plan(sims_here, folder, tiny_plan):
    done = sims_here("model", "import", folder, "--name", "mine", "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    expected = {"name": "mine", "channels": 1, "image_size": 8, "num_classes": 0}
    assert expected.items() <= row.items()
    assert (row["prediction"], row["cached"], row["zero_snr"]) == ("epsilon", False, False)
    again = sims_here("model", "import", folder, "--name", "also-mine")
    assert "(was there)" in again.stdout
    listed = sims_here("model", "ls").stdout.splitlines()
    assert listed[0].startswith("also-mine: 1 x 8 x 8, unconditional, 0.0 M parameters, predicts")
    assert listed[-1].startswith("2 models in ")
    plan = tiny_plan(base__imported="mine", generations="1")
    (stage,) = [stage for stage in plan if stage.role == "imported base"][:1]
    assert stage.ref.location == row["artifact"]
    assert not [stage for stage in plan if stage.role == "train base"]


def test_a_name_that_is_given_again_says_so(sims_here, folder):
    """What it stood for, and what it stands for now; the same model is no change."""
    first = json.loads(sims_here("model", "import", folder, "--name", "mine", "--json").stdout)
    again = sims_here("model", "import", folder, "--name", "mine", "--json")
    assert "stood" not in again.stdout + again.stderr
    done = sims_here("model", "import", folder, "--name", "mine", "--sigma-data", 0.25, "--json")
    row = json.loads(done.stdout)
    assert row["stood_for"]["artifact"] == first["artifact"] != row["artifact"]
    said = [line for line in done.stderr.splitlines() if line.startswith("mine ")]
    assert [line.partition(": ")[0].split()[1:3] for line in said] == [
        ["stood", "for"],
        ["stands", "for"],
    ]
    assert first["artifact"] in said[0]
    assert row["artifact"] in said[1]
    assert said[1].endswith(" now")


def test_a_name_that_another_import_gave_meanwhile(sims_here, folder, tmp_path, monkeypatch):
    """The later of two imports under one name does not win in silence."""
    other = sims_here("model", "import", folder, "--name", "x", "--sigma-data", 0.25, "--json")
    first = (tmp_path / "store/models/x.json").read_text()
    named = tmp_path / "store/models/mine.json"
    whole = progress.run_shown

    def slowly(*arguments):
        named.write_text(first)  # what another process does
        return whole(*arguments)

    monkeypatch.setattr(progress, "run_shown", slowly)
    done = sims_here("model", "import", folder, "--name", "mine")
    assert done.exit_code == 2
    place = json.loads(other.stdout)["artifact"]
    message = f"--name mine: another import has given this name to {place} meanwhile"
    assert message in done.stderr
    assert named.read_text() == first
    again = ("model", "import", folder, "--name", "mine", "--sigma-data", 0.25)
    assert sims_here(*again).exit_code == 0, "the same model"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", "import", "/nowhere", "--name", "x"], "error: /nowhere is no folder"),
        (["model", "import", "/nowhere", "--name", "../x"], "error: --name: "),
        (["model", "ls"], "error: there is no store at"),
    ],
)
def test_mistakes_are_one_line(sims_here, words, message):
    done = sims_here(*words)
    assert done.exit_code in (1, 2)
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_a_run_cannot_start_from_what_was_not_imported(sims_here, tiny_plan):
    with pytest.raises(BadInput, match=r"no model 'mine' .*sims model import FOLDER --name mine"):
        tiny_plan(base__imported="mine", generations="1")


def test_later_generations_follow_as_it_is_said(sims_here, folder, tiny_plan):
    sims_here("model", "import", folder, "--name", "mine")

    def later(**given):
        plan = tiny_plan(base__imported="mine", generations="2", **given)
        return {stage.role for stage in plan if stage.t == 2}

    assert "train base" in later()
    assert "fine-tune base" in later(base__later="fine_tune")
    with pytest.raises(BadInput, match="'recipe' or 'fine_tune', got 'chain'"):
        later(base__later="chain")


def test_a_model_must_fit_the_data(sims_here, folder):
    sims_here("model", "import", folder, "--name", "mine")
    with pytest.raises(BadInput, match=r"model mine: model\.net is for images of 1 x 8 x 8"):
        check_run("sims-loop/cifar10", ["base.imported=mine"])


@pytest.mark.slow
def test_a_real_run_from_an_imported_base(sims, folder, tmp_path):
    store = tmp_path / "store"
    done = sims("model", "import", str(folder), "--name", "mine", "--store", str(store))
    assert done.returncode == 0, done.stderr
    options = {"base__imported": "mine", "generations": "1", "sims__omega": "1"}
    run = sims(*sims.run_arguments(store, "--json", "--direct", **options))
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)
    assert len(summary["arms"]) == 2
    assert (store / "runs" / summary["run"] / "report/index.html").exists()
