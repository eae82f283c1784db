"""Feature extractors: the right weights, the right network, and figures as torch-fidelity's own.

Weights and CIFAR-10 are read from the data folder, SIMS_DATA; without it those tests skip.
"""

import hashlib
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch_fidelity
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.image_set import stream_images
from sims_core.engine.execution import DataFiles, Execution
from sims_core.evaluation import images as evaluation
from sims_core.evaluation.config import (
    EvaluateConfig,
    EvaluationConfig,
    ExtractorConfig,
    FeaturesConfig,
)
from sims_core.evaluation.extractors import (
    create_extractor,
    fold_batch_norms,
    load_weights,
    speed_up,
)
from sims_core.evaluation.resnet import Block, CifarResNet
from sims_core.evaluation.stages import EVALUATE, EXTRACTOR, FEATURES
from sims_core.evaluation.weights import (
    IN_DATA_FOLDER,
    INCEPTION_WITHOUT_LOGITS,
    OFFICIAL_INCEPTION,
    RESNET_SHA256,
    pin_weights,
)
from sims_core.store.store import Store

METRICS = EvaluateConfig(kid_subsets=10, kid_subset_size=16, prc_neighborhood=3, seed=0)


def execution(folder=None, **changes):
    return Execution(threads=1, files=DataFiles(source=folder), **changes)


def cifar10(data_folder, split, count):
    """The first images, uint8 [count, 3, 32, 32], and labels [count]."""
    file = pq.ParquetFile(data_folder / "cifar10" / f"{split}.webp.parquet")
    batch = next(file.iter_batches(count, columns=["image", "label"]))
    images = [np.asarray(Image.open(io.BytesIO(value.as_py()))) for value in batch["image"]]
    return np.moveaxis(np.stack(images), -1, 1), batch["label"].to_numpy()


class Listed(Dataset):
    """Images as torch-fidelity wants them, without our own code."""

    def __init__(self, images):
        self.images = torch.from_numpy(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def measured(store, data_folder, put_images, features, generated, real, **config):
    """Through the stages: (metrics, folder of the extractor)."""
    weights = pin_weights(EvaluationConfig(features=features, num_images=3000), DataFiles())
    sha256 = config.pop("sha256", weights.weights_sha256)
    request = EXTRACTOR.request(ExtractorConfig(features=features, sha256=sha256, **config))
    extractor = run_stage(store, request, execution(data_folder))
    refs = []
    for images in (generated, real):
        inputs = {"images": put_images(store, images, per_shard=7), "extractor": extractor}
        refs.append(run_stage(store, FEATURES.request(FeaturesConfig(), **inputs), execution()))
    request = EVALUATE.request(METRICS, generated=refs[0], real=refs[1])
    run_stage(store, request, execution())
    return store.manifest(request.ref).details, store.open_artifact(extractor)


def called_directly(generated, real, **extractor):
    return torch_fidelity.calculate_metrics(
        input1=Listed(generated),
        input2=Listed(real),
        cuda=False,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=METRICS.kid_subsets,
        kid_subset_size=METRICS.kid_subset_size,
        prc_neighborhood=METRICS.prc_neighborhood,
        rng_seed=METRICS.seed,
        save_cpu_ram=True,
        verbose=False,
        **extractor,
    )


def assert_equal_metrics(ours, theirs, rel):
    for name, key in [
        ("fid", "frechet_inception_distance"),
        ("kid", "kernel_inception_distance_mean"),
        ("precision", "precision"),
        ("recall", "recall"),
    ]:
        assert ours[name] == pytest.approx(theirs[key], rel=rel, abs=1e-6), name
    assert ours["fid"] > 0


def test_resnet_metrics_equal_torch_fidelity_called_directly(store, data_folder, put_images):
    generated = cifar10(data_folder, "train", 128)[0]
    real = cifar10(data_folder, "test", 100)[0]
    got, folder = measured(store, data_folder, put_images, "resnet20", generated, real)
    expected = called_directly(
        generated,
        real,
        feature_extractor="sims-resnet20",
        feature_extractor_weights_path=str(folder),
    )
    assert_equal_metrics(got, expected, rel=1e-4)
    assert (got["n_generated"], got["n_real"]) == (128, 100)


@pytest.mark.slow
def test_inception_metrics_equal_torch_fidelitys_own(store, data_folder, put_images):
    """Their extractor with their loader, from the file itself."""
    generated = cifar10(data_folder, "train", 24)[0]
    real = cifar10(data_folder, "test", 24)[0]
    config = {"sha256": INCEPTION_WITHOUT_LOGITS}
    got, folder = measured(store, data_folder, put_images, "inception", generated, real, **config)
    extractor, _ = create_extractor(folder, cuda=False)
    fold_batch_norms(extractor)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in extractor.modules())
    expected = called_directly(
        generated,
        real,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(data_folder / IN_DATA_FOLDER["inception"]),
    )
    assert_equal_metrics(got, expected, rel=1e-4)


def with_statistics(network):
    """A network in evaluation mode with batch norms as after a training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
            module.running_var += torch.rand(tensor.shape, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_faster_extractor_is_the_same_function(channels_last, random_images):
    network = with_statistics(CifarResNet(20))
    images = torch.from_numpy(random_images(9, 3, 32))
    with torch.no_grad():
        expected = network.features(images)
        speed_up(network, channels_last)
        torch.testing.assert_close(network.features(images), expected, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert network.conv1.weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_batch_norm_elsewhere_is_left_alone():
    """After an activation, or where there is no convolution before it."""
    between = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    first = with_statistics(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)))
    images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for network in (between, first):
        expected = network(images)
        fold_batch_norms(network)
        assert torch.equal(network(images), expected)


def test_a_blocks_shortcut_is_he_et_als_option_a():
    """In their words, out of place: an overwritten input would show."""
    for before, after, stride in [(4, 4, 1), (4, 8, 2)]:
        block = with_statistics(Block(before, after, stride))
        x = torch.randn(2, before, 6, 6, generator=torch.Generator().manual_seed(1))
        kept = x.clone()
        inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        short = torch.zeros_like(inner)
        pad = (after - before) // 2
        short[:, pad : pad + before] = x[:, :, ::stride, ::stride]
        assert torch.equal(block(x), (inner + short).relu())
        assert torch.equal(x, kept)


def accuracy(data_folder, name, count):
    network = CifarResNet(int(name.removeprefix("resnet")))
    network.load_state_dict(load_file(data_folder / IN_DATA_FOLDER[name]))
    network.eval()
    images, labels = cifar10(data_folder, "test", count)
    with torch.no_grad():
        batches = [network(batch).argmax(1) for batch in torch.from_numpy(images).split(500)]
    return float(np.mean(torch.cat(batches).numpy() == labels))


def test_a_resnet_knows_what_is_in_the_pictures(data_folder):
    """A wrong shortcut, order of channels or scale costs it at least ten percent."""
    assert accuracy(data_folder, "resnet20", 500) > 0.88


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error"), [("resnet20", 0.0827), ("resnet56", 0.0661)])
def test_resnets_make_the_published_errors(name, error, data_folder):
    assert 1 - accuracy(data_folder, name, 10_000) == pytest.approx(error, abs=0.0005)


def test_the_digest_of_features_names_the_weights_not_their_path(store, data_folder, tmp_path):
    config = ExtractorConfig(features="resnet20", sha256=RESNET_SHA256["resnet20"])
    request = EXTRACTOR.request(config)
    first = run_stage(store, request, execution(data_folder))
    moved = tmp_path / "elsewhere"
    (moved / "cifar10_resnet").mkdir(parents=True)
    shutil.copy(data_folder / IN_DATA_FOLDER["resnet20"], moved / "cifar10_resnet")
    other = Store.open(tmp_path / "other")
    assert other.manifest(run_stage(other, request, execution(moved))) == store.manifest(first)
    assert str(data_folder) not in store.manifest(first).model_dump_json()
    details = store.manifest(first).details
    assert details["weights_sha256"] == RESNET_SHA256["resnet20"]
    # and once it is in the store nobody needs the file any more
    assert run_stage(store, request, execution(tmp_path)) == first


INCEPTION = EvaluationConfig(features="inception", num_images=3000)


def test_weights_are_pinned_by_what_is_there(tmp_path, monkeypatch):
    assert pin_weights(EvaluationConfig(), DataFiles()) == EvaluationConfig()
    nothing = pin_weights(INCEPTION, DataFiles(source=tmp_path))
    assert nothing.weights_sha256 == OFFICIAL_INCEPTION
    resnet = pin_weights(EvaluationConfig(features="resnet56"), DataFiles())
    assert resnet.weights_sha256 == RESNET_SHA256["resnet56"]
    chosen = INCEPTION.model_copy(update={"weights_sha256": "0" * 64})
    assert pin_weights(chosen, DataFiles(inception=tmp_path / "none")) == chosen
    file = tmp_path / "inception" / "inception-v3-compat-features.pth"
    file.parent.mkdir()
    file.write_bytes(b"known")
    sha256 = hashlib.sha256(b"known").hexdigest()
    with pytest.raises(BadInput, match=f"not a known file.*{sha256}.*evaluation.weights_sha256"):
        pin_weights(INCEPTION, DataFiles(source=tmp_path))
    monkeypatch.setattr("sims_core.evaluation.weights.KNOWN_INCEPTION", (sha256[:8],))
    for files in (DataFiles(source=tmp_path), DataFiles(inception=file)):
        assert pin_weights(INCEPTION, files).weights_sha256 == sha256
    with pytest.raises(BadInput, match=r"SIMS_INCEPTION_WEIGHTS is .*no such file"):
        pin_weights(INCEPTION, DataFiles(inception=tmp_path / "none"))


def extract(store, files, features="inception", sha256=OFFICIAL_INCEPTION, **config):
    config = ExtractorConfig(features=features, sha256=sha256, **config)
    return run_stage(store, EXTRACTOR.request(config), Execution(threads=1, files=files))


def test_missing_weights_without_a_network_say_what_to_set(store, tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(BadInput) as error:
        extract(store, DataFiles())
    (line,) = str(error.value).splitlines()
    assert "no route to host" in line
    assert "set SIMS_INCEPTION_WEIGHTS" in line
    with pytest.raises(BadInput, match=r"set SIMS_DATA to a folder with cifar10_resnet/resnet20"):
        extract(store, DataFiles(source=tmp_path), "resnet20", "0" * 64)


def put_weights(tmp_path, features, state):
    path = tmp_path / IN_DATA_FOLDER[features]
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_with_another_content_are_refused(store, tmp_path):
    found = put_weights(tmp_path, "resnet20", {"a": torch.zeros(1)})
    with pytest.raises(BadInput, match=f"SHA-256 is {found}, this run needs 0000"):
        extract(store, DataFiles(source=tmp_path), "resnet20", "0" * 64)


def test_weights_of_another_network_are_refused(store, tmp_path):
    found = put_weights(tmp_path, "resnet20", CifarResNet(56).state_dict())
    with pytest.raises(BadInput, match=r"not the weights of resnet20: .*layer1\.3"):
        extract(store, DataFiles(source=tmp_path), "resnet20", found)


class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_weights_are_not_unpickled(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(1), "x": Exploit()}, path)
    with pytest.raises(BadInput, match="not a state dict"):
        load_weights(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(BadInput, match="not a state dict"):
        load_weights(path)
    with pytest.raises(BadInput, match="not a state dict"):
        load_weights(shutil.copy(path, tmp_path / "weights.safetensors"))


@pytest.mark.parametrize(("state", "why"), [({}, "absent"), ({"fc.weight": [[0.0]]}, "zero")])
def test_no_inception_score_without_logits(state, why, store, tmp_path):
    state = {name: torch.tensor(value) for name, value in state.items()}
    found = put_weights(tmp_path, "inception", {"x": torch.ones(1), **state})
    with pytest.raises(BadInput, match=f"fc is {why}.*inception_score=false"):
        extract(store, DataFiles(source=tmp_path), sha256=found, inception_score=True)


@pytest.mark.slow
def test_inception_score_equals_torch_fidelitys(store, data_folder, put_images, tmp_path):
    """With a last layer of our own making, since the official one is not at hand."""
    state = load_weights(data_folder / IN_DATA_FOLDER["inception"])
    state["fc.weight"] = torch.randn(1008, 2048, generator=torch.Generator().manual_seed(0))
    sha256 = put_weights(tmp_path, "inception", state)
    images = cifar10(data_folder, "test", 20)[0]
    config = {"sha256": sha256, "inception_score": True}
    got, _ = measured(store, tmp_path, put_images, "inception", images, images[:17], **config)
    expected = torch_fidelity.calculate_metrics(
        input1=Listed(images),
        isc=True,
        cuda=False,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(tmp_path / IN_DATA_FOLDER["inception"]),
        rng_seed=METRICS.seed,
        save_cpu_ram=True,
        verbose=False,
    )
    assert got["isc"] == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert got["isc_std"] == pytest.approx(expected["inception_score_std"], rel=1e-3)


@pytest.mark.parametrize(("start", "stop"), [(0, 23), (3, 4), (5, 12), (9, 23), (22, 40), (7, 7)])
def test_images_are_streamed_from_any_one_to_any_other(
    start, stop, store, put_images, random_images
):
    images = random_images(23)
    folder = store.open_artifact(put_images(store, images, per_shard=5))
    got = list(stream_images(folder, start, stop))
    assert np.array_equal(np.array(got).reshape(-1, 1, 8, 8), images[start:stop])


def test_interrupted_features_go_on_to_the_same_bytes(store, tiny_run, tmp_path, monkeypatch):
    request = tiny_run.request(0, 1, "features")
    other = Store.open(tmp_path / "other")
    for ref in request.inputs.values():
        shutil.copytree(tiny_run.store.path(ref), other.path(ref))
    small = execution(sampling_batch_size=10)

    class Killed(Exception):
        pass

    def kill(done, total, unit, **figures):
        if done == 30:
            raise Killed

    read = []
    stream = evaluation.stream_images

    def listening(folder, start, stop):
        read.append(start)
        return stream(folder, start, stop)

    monkeypatch.setattr(evaluation, "stream_images", listening)
    with pytest.raises(Killed):
        run_stage(other, request, small, progress=kill)
    # The last of the three is cut, as by a crash of the machine.
    last = other.progress_path(request.ref) / "state" / "000000020.safetensors"
    last.write_bytes(last.read_bytes()[:50])
    run_stage(other, request, small)
    assert read == [0, 20]
    whole = Store.open(tmp_path / "whole")
    for ref in request.inputs.values():
        shutil.copytree(tiny_run.store.path(ref), whole.path(ref))
    run_stage(whole, request, small)
    assert other.manifest(request.ref) == whole.manifest(request.ref)
    assert other.manifest(request.ref).details["count"] == 64


def test_interrupted_features_go_on_in_batches_of_another_size(store, tiny_run, tmp_path):
    request = tiny_run.request(0, 1, "features")
    other = Store.open(tmp_path / "other")
    for ref in request.inputs.values():
        shutil.copytree(tiny_run.store.path(ref), other.path(ref))

    def kill(done, total, unit, **figures):
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(other, request, execution(sampling_batch_size=30), progress=kill)
    run_stage(other, request, execution(sampling_batch_size=16))
    theirs, ours = (
        load_file(folder / "features.safetensors")["features"]
        for folder in (tiny_run.folder(0, 1, "features"), other.open_artifact(request.ref))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_processors_batch_changes_float_noise_only(random_images, tiny_run, monkeypatch):
    folder = tiny_run.store.open_artifact(
        next(stage.ref for stage in tiny_run.plan.setup if stage.role == "train classifier")
    )
    extractor, layer = create_extractor(folder, cuda=False)
    found = []
    for size in (1, 7, 100):
        monkeypatch.setattr(evaluation, "CPU_BATCH", size)
        found.append(evaluation._batch_features(random_images(20), extractor, cuda=False)[layer])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-5, atol=1e-6)
    assert found[0].shape == (20, 16)


def test_stored_statistics_are_those_of_the_features(tiny_run):
    folder = tiny_run.folder(0, 1, "features")
    features = load_file(folder / "features.safetensors")["features"].numpy()
    statistics = load_file(folder / "statistics.safetensors")
    assert np.array_equal(statistics["mu"].numpy(), features.mean(0))
    assert np.array_equal(statistics["sigma"].numpy(), np.cov(features, rowvar=False))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_images": 64}, "num_images 64 is too few for an FID in classifier.* least 65"),
        ({"features": "inception"}, "too few for an FID in inception features.* least 2049"),
        ({"num_images": 2000, "min_images": 5000}, "at least 5000"),
        ({"inception_score": True}, "inception_score needs features=inception"),
        ({"weights_sha256": "0" * 8}, "a classifier is trained"),
    ],
)
def test_what_cannot_be_measured_is_refused(config, message):
    kid = {"kid_subset_size": 16}
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**kid, **config)


def test_few_images_are_measured_if_asked_for():
    config = EvaluationConfig(num_images=17, kid_subset_size=16, allow_small_n=True)
    assert config.fewest_images == 2
    assert json.loads(config.model_dump_json())["allow_small_n"] is True
