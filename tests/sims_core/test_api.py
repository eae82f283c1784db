"""The functions of `sims_core.api` do what the stages of a run do, to the last bit."""

import shutil
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sims_core import api
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.data.config import DigitsData
from sims_core.data.digits import load_digits_uint8
from sims_core.data.image_set import read_images, read_index
from sims_core.data.ranges import to_unit_range
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.classifier import load_classifier
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.training.config import TrainingConfig


def images_of(folder):
    return read_images([folder / shard.file for shard in read_index(folder).shards])[0]


@pytest.fixture(scope="module")
def base(tiny_run):
    return api.load_model(tiny_run.folder(1, 1, "train base"))


@pytest.fixture(scope="module")
def auxiliary(tiny_run):
    return api.load_model(tiny_run.folder(1, 1, "fine-tune auxiliary"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """As the tiny run was made."""
    monkeypatch.setenv("SIMS_THREADS", "1")
    monkeypatch.setenv("SIMS_DEVICE", "cpu")


@pytest.mark.parametrize(("arm", "omega"), [(0, 0.0), (1, 1.0)])
def test_samples_are_the_images_of_the_run(tiny_run, base, auxiliary, arm, omega):
    request = tiny_run.request(arm, 1, "generate")
    config = request.config
    found = api.sample(
        api.guide(base, auxiliary, omega),
        config["count"],
        seed=config["first_seed"],
        sampler=SamplerConfig.model_validate(config["sampler"]),
    )
    assert found.dtype == torch.float32
    stored = images_of(tiny_run.store.open_artifact(request.ref))
    assert api.to_uint8(found).tobytes() == stored.tobytes()


def test_an_image_depends_on_its_own_seed_only(base):
    steps = SamplerConfig(num_steps=3)
    eight = api.sample(base, 8, seed=5, sampler=steps)
    three = api.sample(base, 3, seed=8, sampler=steps)
    assert torch.allclose(eight[3:6], three, atol=1e-5)
    assert not torch.allclose(eight[:3], three, atol=1e-2)


def test_fine_tuning_is_the_auxiliary_of_the_run(tiny_run, base, auxiliary):
    request = tiny_run.request(1, 1, "fine-tune auxiliary")
    before = {name: each.clone() for name, each in base.denoiser.state_dict().items()}
    found = api.fine_tune(
        base,
        images_of(tiny_run.folder(1, 1, "self-synthetic")),
        TrainingConfig.model_validate(request.config["training"]),
        seed=request.config["seed"],
    )
    for name, weights in auxiliary.denoiser.state_dict().items():
        assert torch.equal(weights, found.denoiser.state_dict()[name]), name
    for name, weights in base.denoiser.state_dict().items():
        assert torch.equal(weights, before[name]), name


def test_training_is_the_base_of_the_run(tiny_run, base, tiny_experiment):
    config = tiny_run.request(1, 1, "train base").config
    images, _ = load_digits_uint8(tiny_experiment.data)
    training = TrainingConfig.model_validate(config["training"])
    found = api.train(images, base.config, training, seed=config["seed"])
    for name, weights in base.denoiser.state_dict().items():
        assert torch.equal(weights, found.denoiser.state_dict()[name]), name


def test_a_saved_model_is_the_model(base, auxiliary, tmp_path):
    api.save_model(base, tmp_path / "base")
    again = api.load_model(tmp_path / "base")
    x = torch.randn(2, *base.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(base(x, torch.tensor(0.7)), again(x, torch.tensor(0.7)))
    with pytest.raises(BadInput, match="there already"):
        api.save_model(base, tmp_path / "base")
    with pytest.raises(BadInput, match="no network of its own"):
        api.save_model(api.guide(base, auxiliary, 1.0), tmp_path / "guided")


def frechet(one, other):
    """Fréchet distance of two sets of features, by the eigenvalues of the covariances' product."""
    shift = one.mean(0) - other.mean(0)
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0))
    return shift @ shift + np.trace(sum(covariances)) - 2 * roots.sum()


def test_folders_are_measured(tiny_run, tmp_path):
    """FID is that of its formula in the features of the classifier that the store keeps."""
    images, labels = load_digits_uint8(DigitsData(num_images=256))
    generated = images_of(tiny_run.folder(1, 1, "generate"))
    api.save_images(images, tmp_path / "real", labels)
    api.save_images(generated, tmp_path / "generated")
    asked = {"features": "classifier", "allow_small_n": True, "store": tmp_path / "store"}
    threads = torch.get_num_threads()
    found = api.evaluate(tmp_path / "generated", tmp_path / "real", **asked)
    assert torch.get_num_threads() == threads
    (folder,) = (tmp_path / "store" / "artifacts" / "classifier").iterdir()
    classifier = load_classifier(folder)
    features = [classifier.features(to_unit_range(each)).numpy() for each in (generated, images)]
    assert found["fid"] == pytest.approx(frechet(*map(np.float64, features)), rel=1e-3)
    assert (found["n_generated"], found["n_real"]) == (len(generated), 256)
    itself = api.evaluate(tmp_path / "real", tmp_path / "real", **asked)
    assert abs(itself["fid"]) < 1e-3
    assert itself["precision"] == itself["recall"] == 1


def test_without_a_store_nothing_is_kept(tmp_path, monkeypatch, random_images):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    api.save_images(random_images(8), "images")
    with pytest.raises(BadInput, match="have no class labels"):
        api.evaluate("images", "images", features="classifier")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_pictures_are_the_images(tmp_path, random_images):
    from PIL import Image

    images = random_images(3, channels=3)
    api.save_images(torch.from_numpy(images) / 127.5 - 1, tmp_path / "x", [1, 0, 1])
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert names == ["x/0/000001.png", "x/1/000000.png", "x/1/000002.png"]
    seen = np.asarray(Image.open(tmp_path / "x/1/000002.png"))
    assert np.array_equal(np.moveaxis(seen, -1, 0), images[2])


def test_metrics_are_the_table_of_the_run(tmp_path):
    pq.write_table(api.pa.table({"arm": ["a"], "fid": [1.5]}), tmp_path / "metrics.parquet")
    assert api.read_metrics(tmp_path).to_pylist() == [{"arm": "a", "fid": 1.5}]
    with pytest.raises(BadInput, match="no figures of a run"):
        api.read_metrics(tmp_path / "absent")


def test_what_does_not_fit_is_refused(base, tmp_path, tiny_run):
    with pytest.raises(BadInput, match="no model is there"):
        api.load_model(tmp_path)
    with pytest.raises(BadInput, match="unconditional"):
        api.sample(base, 2, labels=[0, 1])
    with pytest.raises(BadInput, match="at least 1"):
        api.sample(base, 0)
    with pytest.raises(BadInput, match="omega is -1"):
        api.guide(base, base, -1.0)
    with pytest.raises(BadInput, match=r"\[2, 3, 8, 8\], the network's are \[N, \*\[1, 8, 8\]\]"):
        api.fine_tune(base, torch.zeros(2, 3, 8, 8), TrainingConfig(kimg=0.1))
    with pytest.raises(BadInput, match="images need a U-Net"):
        api.train(torch.zeros(2, 1, 8, 8), ModelConfig(net=MLPConfig()), TrainingConfig())
    with pytest.raises(BadInput, match="must be fp32"):
        api.sample(base, 1, sampler=SamplerConfig(precision="bf16"))
    api.save_images(torch.zeros(1, 1, 8, 8), tmp_path / "images")
    with pytest.raises(BadInput, match="size 1 must be 4"):
        api.evaluate(tmp_path / "images", tmp_path / "images", size=1)


def test_a_damaged_model_is_not_loaded(tiny_run, tmp_path):
    store = shutil.copytree(tiny_run.store.root, tmp_path / "store", symlinks=True)
    folder = store / tiny_run.request(0, 1, "train base").ref.location
    api.load_model(folder)
    (folder / "loss.csv").write_text("changed")
    with pytest.raises(DamagedArtifact, match=r"loss\.csv"):
        api.load_model(folder)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, "7"])
def test_a_seed_out_of_bounds_is_refused_before_any_work(base, seed, tmp_path):
    images = torch.zeros(2, *base.shape)
    with pytest.raises(BadInput, match=r"`seed` must be an integer from 0 to 2\*\*64 - 1, got"):
        api.sample(base, 1, seed=seed)
    with pytest.raises(BadInput, match="`seed` must be"):
        api.train(images, base.config, TrainingConfig(), seed=seed)
    with pytest.raises(BadInput, match="`seed` must be"):
        api.fine_tune(base, images, TrainingConfig(), seed=seed)
    with pytest.raises(BadInput, match="`seed` must be"):
        api.evaluate(tmp_path / "absent", tmp_path / "absent", seed=seed)
