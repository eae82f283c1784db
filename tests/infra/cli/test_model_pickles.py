"""`sims model import FILE.pkl`, and the runs that start from what it brought."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from infra.cli.main import app
from infra.cli.runs import check_run
from sims_core.common.errors import BadInput
from sims_core.store.store import Store

LATENTS = ("edm2-cond", "edm2-uncond")
"""Of four channels: the images are encoded by an autoencoder first."""
MEASURED = [
    "evaluation.features=resnet20",
    "evaluation.num_images=8",
    "evaluation.num_preview=4",
    "evaluation.allow_small_n=true",
    "evaluation.kid_subset_size=4",
    "sampler.num_steps=3",
    "sims.batch_size=4",
]
LOOP = ["generations=1", "pollution_sizes=[8]", "sims.n_s=8", "sims.budget_mimg=1.6e-5"]
SWEEP = ["omegas=[1]", "budgets=[8e-6,1.6e-5]", "n_s=8", "select_images=8", "final_images=8"]


@pytest.fixture
def sims_here(tmp_path, monkeypatch):
    """The command in this process, with a store of its own."""
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code in (0, 1, 2), done.exception
        return done

    return run


@pytest.fixture
def edm_folder(data_folder, monkeypatch):
    """The checkpoints that NVIDIA's code wrote."""
    folder = data_folder / "edm"
    if not folder.is_dir():
        pytest.skip(f"the data folder SIMS_DATA has no checkpoints in {folder}")
    monkeypatch.setenv("SIMS_DATA", str(data_folder))
    return folder


def parameters(texts):
    return [word for text in texts for word in ("-p", text)]


def write_pictures(folder, size):
    """Random pictures in ten folders, one a class."""
    random = np.random.default_rng(0)
    for label in range(10):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")
    return folder


def write_autoencoder(folder):
    """A random AutoencoderKL for RGB, two pixels a latent, four channels."""
    import torch
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=32,
        ).save_pretrained(folder)
    return folder


def bring(sims_here, edm_folder, tmp_path, name):
    """Imports a checkpoint and data that fit it."""
    size = 32 if name in LATENTS else 16
    pictures = write_pictures(tmp_path / "pictures", size)
    imported = "pictures" if name in LATENTS else "own"
    commands = [
        ("model", "import", edm_folder / f"{name}.pkl", "--name", "theirs"),
        ("data", "import", pictures, "--name", imported, "--size", size, "--channels", 3),
    ]
    if name in LATENTS:
        vae = write_autoencoder(tmp_path / "vae")
        commands.append(("data", "encode", imported, "--autoencoder", vae, "--name", "own"))
    for command in commands:
        done = sims_here(*command)
        assert done.exit_code == 0, done.output


def check_run_from(sims_here, preset, texts):
    """One run of it: auxiliary, S and guidance were computed from the imported base."""
    texts = [*MEASURED, *texts, "base.imported=theirs"]
    done = sims_here("run", preset, "--direct", "--json", *parameters(texts))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["stages"]["computed"] > 10
    plan = check_run(preset, texts).plan
    store = Store.open(os.environ["SIMS_STORE"])
    roles = {}
    for stage in plan:
        assert store.is_whole(stage.ref), stage.label
        roles.setdefault(stage.role, []).append(stage)
    base = roles["imported base"][0]
    auxiliary = roles["fine-tune auxiliary"][0]
    assert auxiliary.request.inputs["initial"] == base.ref
    weights = [
        (store.path(stage.ref) / "net" / "diffusion_pytorch_model.safetensors").read_bytes()
        for stage in (base, auxiliary)
    ]
    assert weights[0] != weights[1]
    omegas = {s.request.config.get("omega") for s in plan if "omega" in s.request.config}
    assert omegas == {0.0, 1.0}
    losses = (store.path(auxiliary.ref) / "loss.csv").read_text().split()[1:]
    assert all(np.isfinite(float(line.split(",")[1])) for line in losses)


@pytest.mark.parametrize("name", ["ddpmpp-edm-cond", "edm2-cond"])
def test_a_run_starts_from_an_imported_checkpoint(sims_here, edm_folder, tmp_path, name):
    bring(sims_here, edm_folder, tmp_path, name)
    check_run_from(sims_here, "sims-loop/own-images", LOOP)
    assert not (tmp_path / "owned-by-a-checkpoint").exists()


@pytest.mark.parametrize("later", ["recipe", "fine_tune"])
def test_a_loop_goes_on_from_an_imported_checkpoint(sims_here, edm_folder, tmp_path, later):
    """Two generations, computed: G^2 is another model, which begins at G^1 or does not."""
    bring(sims_here, edm_folder, tmp_path, "ddpmpp-edm-cond")
    texts = [*MEASURED, "generations=2", "pollution_sizes=[8]", "methods=standard", "omegas=0"]
    texts += ["base.imported=theirs", f"base.later={later}", "sims.learning_rate=1e-5"]
    if later == "recipe":
        texts += ["training.kimg=0.016", "training.batch_size=8"]
    else:
        texts += ["base.later_mimg=1.6e-5"]
    done = sims_here("run", "sims-loop/own-images", "--direct", "--json", *parameters(texts))
    assert done.exit_code == 0, done.stderr
    plan = check_run("sims-loop/own-images", texts).plan
    store = Store.open(os.environ["SIMS_STORE"])
    first, second = (plan.arms[0].artifacts(t) for t in (1, 2))
    made = second["train base" if later == "recipe" else "fine-tune base"]
    weights = [
        load_file(store.open_artifact(ref) / "net" / "diffusion_pytorch_model.safetensors")
        for ref in (first["imported base"], made)
    ]
    assert weights[0].keys() == weights[1].keys()
    moved = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert (moved > 0.1) if later == "recipe" else (0 < moved < 1e-3)
    assert store.manifest(made).details["nimg"] == 16
    assert store.manifest(second["generate"]).details["count"] == 8


@pytest.mark.slow
def test_both_flows_start_from_every_checkpoint(sims_here, edm_folder, tmp_path, edm_checkpoint):
    bring(sims_here, edm_folder, tmp_path, edm_checkpoint)
    check_run_from(sims_here, "sims-loop/own-images", LOOP)
    row = "edm2-imagenet512" if edm_checkpoint in LATENTS else "edm-ffhq64"
    check_run_from(sims_here, f"self-improvement/{row}", [*SWEEP, "data.name=own"])
    assert not (tmp_path / "owned-by-a-checkpoint").exists()


def test_what_an_import_says(sims_here, edm_folder):
    path = edm_folder / "ddpmpp-edm-cond.pkl"
    done = sims_here("model", "import", path, "--name", "theirs")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("theirs: 3 x 16 x 16, 10 classes, 0.")
    said = "\n".join(lines[1:])
    for part in (
        "network song: image_size 16, ",
        "preconditioning edm: sigma_data 0.5",
        "noise levels 0 to any",
        "loss edm: P_mean -1.2, P_std 1.2",
        "augment_pipe: AugmentPipe(p=0.12",
        "set training.augment=0.12 to fine-tune with it",
        "dataset_kwargs: ",
        "not used: ",
    ):
        assert part in said
    row = json.loads(sims_here("model", "import", path, "--name", "theirs", "--json").stdout)
    assert row["cached"]
    assert row["network"]["model_channels"] == 16
    assert row["preconditioning"]["kind"] == "edm"
    assert row["loss"] == {"kind": "edm", "P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5}
    assert (row["sigma_min"], row["sigma_max"]) == (0, None)
    assert row["file"]["widened"] is False
    assert row["file"]["augment_pipe"]["arguments"]["p"] == 0.12
    listed = json.loads(sims_here("model", "ls", "--json").stdout)["models"]
    assert listed[0]["file"] == row["file"]


def test_a_fine_tune_has_the_bases_noise_levels_unless_a_user_sets_others(
    sims_here, edm_folder, tmp_path
):
    bring(sims_here, edm_folder, tmp_path, "edm2-uncond")

    def trained(*texts):
        texts = [*MEASURED, *LOOP, "base.imported=theirs", *texts]
        plan = check_run("sims-loop/own-images", texts).plan
        (stage,) = {s.ref: s for s in plan if s.role == "fine-tune auxiliary"}.values()
        config = stage.request.config
        return config["model"]["loss"], config["training"]

    loss, training = trained()
    assert loss == {"kind": "edm2", "P_mean": -0.4, "P_std": 1.0, "sigma_data": 0.5}
    assert (training["P_mean"], training["P_std"]) == (-0.4, 1.0)
    loss, training = trained("training.P_mean=-2")
    assert (loss["P_mean"], loss["P_std"]) == (-2, 1.0)
    assert (training["P_mean"], training["P_std"]) == (-2, 1.0)


def test_a_ve_base_is_sampled_within_its_noise_levels(sims_here, edm_folder, tmp_path):
    bring(sims_here, edm_folder, tmp_path, "ncsnpp-ve-uncond")
    plan = check_run("sims-loop/own-images", [*MEASURED, *LOOP, "base.imported=theirs"]).plan
    sampled = [s.request.config["sampler"] for s in plan if "sampler" in s.request.config]
    assert {(each["sigma_min"], each["sigma_max"]) for each in sampled} == {(0.02, 80)}


def test_classes_that_cannot_be_changed_get_advice_that_can_be_followed(
    sims_here, edm_folder, tmp_path
):
    bring(sims_here, edm_folder, tmp_path, "ddpmpp-edm-cond")
    shutil.rmtree(tmp_path / "pictures" / "class9")
    sims_here("data", "import", tmp_path / "pictures", "--name", "own")
    with pytest.raises(BadInput, match=r"has 9 classes: theirs was trained with its classes"):
        check_run("sims-loop/own-images", [*MEASURED, *LOOP, "base.imported=theirs"])


def test_images_of_another_size_get_advice_that_can_be_followed(sims_here, edm_folder, tmp_path):
    bring(sims_here, edm_folder, tmp_path, "ddpmpp-edm-cond")
    others = ("--name", "own", "--size", 8, "--channels", 3)
    assert sims_here("data", "import", tmp_path / "pictures", *others).exit_code == 0
    advice = "theirs keeps the network that it was trained with, so import the images with `size`"
    with pytest.raises(BadInput, match=f"those of own have 3 x 8 x 8: {advice} and `channels`"):
        check_run("sims-loop/own-images", [*MEASURED, *LOOP, "base.imported=theirs"])


def test_a_hostile_file_is_one_line(sims_here, edm_folder, tmp_path):
    done = sims_here("model", "import", edm_folder / "hostile-system.pkl", "--name", "x")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "posix.system" in done.stderr
    assert not (tmp_path / "owned-by-a-checkpoint").exists()


def test_a_pipe_is_refused_at_once(sims_here, tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    done = sims_here("model", "import", tmp_path / "pipe.pkl", "--name", "x")
    assert done.exit_code == 2
    assert "no folder and no regular file" in done.stderr
