"""Metrics equal torch-fidelity called directly, and mean what their names say."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch_fidelity
from safetensors.torch import load_file
from torch_fidelity.metric_fid import fid_features_to_statistics

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, SimsError
from sims_core.data.digits import load_digits_uint8
from sims_core.data.image_set import read_images, read_index
from sims_core.data.mixing import read_first_labelled
from sims_core.engine.execution import Execution
from sims_core.evaluation.classifier import load_classifier
from sims_core.evaluation.config import ClassifierStageConfig, EvaluateConfig, FeaturesConfig
from sims_core.evaluation.extractors import CLASSIFIER_EXTRACTOR
from sims_core.evaluation.images import RGBDataset
from sims_core.evaluation.measuring import standard_figures
from sims_core.evaluation.metric import MeasuredSet
from sims_core.evaluation.stages import CLASSIFIER, FEATURES

CONFIG = EvaluateConfig(kid_subsets=20, kid_subset_size=100, prc_neighborhood=3, seed=0)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def metrics_of_features(generated, real, config):
    sets = [
        MeasuredSet(
            {"features": each.numpy(), "statistics": fid_features_to_statistics(each.nan_to_num())}
        )
        for each in (generated, real)
    ]
    return standard_figures(*sets, config)


@pytest.mark.parametrize("arm", [0, 1])
def test_stored_metrics_equal_torch_fidelity_called_directly(tiny_run, arm):
    """The documented way to check any artifact from outside: same images, their own entry point."""
    request = tiny_run.request(arm, 2, "evaluate")
    config = EvaluateConfig.model_validate(request.config)
    setup = {stage.role: stage.ref for stage in tiny_run.plan.setup}
    generated = read_first_labelled(tiny_run.folder(arm, 2, "generate"), 64)[0]
    real = read_first_labelled(tiny_run.store.open_artifact(setup["prepare data"]), None)[0]
    expected = torch_fidelity.calculate_metrics(
        input1=RGBDataset(generated),
        input2=RGBDataset(real),
        cuda=False,
        fid=True,
        kid=True,
        prc=True,
        feature_extractor=CLASSIFIER_EXTRACTOR,
        feature_extractor_weights_path=str(tiny_run.store.open_artifact(setup["train classifier"])),
        kid_subsets=config.kid_subsets,
        kid_subset_size=config.kid_subset_size,
        prc_neighborhood=config.prc_neighborhood,
        rng_seed=config.seed,
        save_cpu_ram=True,
        verbose=False,
    )
    got = tiny_run.store.manifest(request.ref).details
    for ours, theirs in [
        ("fid", "frechet_inception_distance"),
        ("kid", "kernel_inception_distance_mean"),
        ("kid_std", "kernel_inception_distance_std"),
        ("precision", "precision"),
        ("recall", "recall"),
    ]:
        # Their batches are of 64, ours of 256: float32 features differ in the last digits.
        assert got[ours] == pytest.approx(expected[theirs], rel=1e-5, abs=1e-9), ours
    assert got["fid"] > 0
    assert (got["n_generated"], got["n_real"]) == (64, 256)


def test_metrics_are_stored_alike_in_every_form(tiny_run):
    folder = tiny_run.folder(0, 1, "evaluate")
    details = tiny_run.store.manifest(tiny_run.request(0, 1, "evaluate").ref).details
    assert json.loads((folder / "metrics.json").read_text()) == details
    assert pq.read_table(folder / "metrics.parquet").to_pylist() == [details]
    assert details["seed"] == tiny_run.request(0, 1, "evaluate").config["seed"]


def test_stored_features_are_the_classifiers(tiny_run):
    setup = {stage.role: stage.ref for stage in tiny_run.plan.setup}
    network = load_classifier(tiny_run.store.open_artifact(setup["train classifier"]))
    images = read_first_labelled(tiny_run.folder(0, 1, "generate"), 64)[0]
    with torch.no_grad():
        expected = network.features(torch.from_numpy(images).float() / 127.5 - 1)
    got = load_file(tiny_run.folder(0, 1, "features") / "features.safetensors")["features"]
    assert got.shape == (64, 16)
    assert got.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_precision_is_fidelity_and_recall_is_coverage():
    """A tight cluster inside the real data is faithful and covers nearly nothing; and turned."""
    real, cluster = randn(500, 4), 0.05 * randn(500, 4, seed=1)
    narrow = metrics_of_features(cluster, real, CONFIG)
    assert narrow["precision"] > 0.95
    assert narrow["recall"] < 0.05
    wide = metrics_of_features(real, cluster, CONFIG)
    assert wide["precision"] < 0.05
    assert wide["recall"] > 0.95


def test_fid_of_two_gaussians_is_near_the_closed_form():
    first, second = torch.tensor([1.0, 2.0, 0.5, 1.0]), torch.tensor([2.0, 1.0, 1.5, 1.0])
    shift = torch.tensor([1.0, 0.0, -1.0, 0.0])
    generated = randn(4000, 4) * first.sqrt() + shift
    real = randn(4000, 4, seed=1) * second.sqrt()
    # |difference of means|^2 + sum (sqrt l1 - sqrt l2)^2 for commuting covariances
    expected = shift.square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    got = metrics_of_features(generated, real, CONFIG)["fid"]
    # The means' sampling error, 2 * |shift| * sqrt(2.4 / 4000) = 0.07 of 2.6, dominates; 2.5 times.
    assert got == pytest.approx(expected.item(), rel=0.065)


def test_kid_of_one_distribution_is_zero_within_its_spread():
    same = metrics_of_features(randn(1000, 4), randn(1000, 4, seed=1), CONFIG)
    # Unbiased: 20 subsets, 3 standard errors.
    assert abs(same["kid"]) < 3 * same["kid_std"] / math.sqrt(20) + 1e-6
    other = metrics_of_features(randn(1000, 4), randn(1000, 4, seed=1) + 1, CONFIG)
    assert other["kid"] > 10 * same["kid_std"]


def test_kid_subsets_come_from_the_seed():
    features = randn(300, 4), randn(300, 4, seed=1)

    def kid(seed):
        return metrics_of_features(*features, CONFIG.model_copy(update={"seed": seed}))["kid"]

    first = kid(1)
    np.random.seed(5)
    assert kid(1) == first
    assert kid(2) != first


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_of_a_diverged_model_are_one_clear_error(value):
    bad = randn(200, 4)
    bad[3] = value
    with pytest.raises(SimsError, match="not finite"):
        metrics_of_features(bad, randn(200, 4, seed=1), CONFIG)


def test_one_image_over_and_over_is_measured():
    """Full collapse is a result, not an error: no precision to speak of, no recall."""
    metrics = metrics_of_features(torch.full((200, 4), 9.0), randn(200, 4, seed=1), CONFIG)
    assert metrics["recall"] == 0
    assert metrics["fid"] > 4 * 8**2


def test_grey_images_become_rgb_and_the_extractor_reads_the_first_channel(random_images):
    dataset = RGBDataset(random_images(3))
    assert len(dataset) == 3
    assert dataset[1].shape == (3, 8, 8)
    assert dataset[1].dtype == torch.uint8
    assert all(
        torch.equal(channel, torch.from_numpy(random_images(3)[1, 0])) for channel in dataset[1]
    )


def test_extractor_needs_its_weights():
    with pytest.raises(ValueError, match="feature_extractor_weights_path"):
        torch_fidelity.utils.create_feature_extractor(
            CLASSIFIER_EXTRACTOR, ["penultimate"], cuda=False, verbose=False
        )


def test_classifier_learns(tiny_run):
    classifier = next(s.ref for s in tiny_run.plan.setup if s.role == "train classifier")
    accuracy = tiny_run.store.manifest(classifier).details["train_accuracy"]
    images, labels = load_digits_uint8(tiny_run.plan.experiment.data)
    network = load_classifier(tiny_run.store.open_artifact(classifier))
    predicted = network(torch.from_numpy(images).float() / 127.5 - 1).argmax(1).numpy()
    assert accuracy == pytest.approx((predicted == labels).mean(), abs=1 / 256)
    assert accuracy > 0.5  # ten classes; after 4,000 images seen


def test_classifier_does_not_depend_on_global_randomness(tiny_run, tmp_path):
    from sims_core.store.store import Store

    setup = {stage.role: stage.request for stage in tiny_run.plan.setup}
    torch.manual_seed(77)
    other = Store.open(tmp_path / "other")
    for role in ("prepare data", "train classifier"):
        run_stage(other, setup[role], Execution(threads=1))
        ref = setup[role].ref
        assert other.manifest(ref) == tiny_run.store.manifest(ref)


def test_classifier_needs_labels(store, put_images, random_images, tiny_experiment):
    images = put_images(store, random_images(6))
    config = ClassifierStageConfig(classifier=tiny_experiment.evaluation.classifier, seed=0)
    with pytest.raises(BadInput, match="no labels"):
        run_stage(store, CLASSIFIER.request(config, images=images), Execution(threads=1))


def test_features_of_the_first_images_only(tiny_run):
    setup = {stage.role: stage.ref for stage in tiny_run.plan.setup}
    inputs = {"images": setup["prepare data"], "classifier": setup["train classifier"]}
    request = FEATURES.request(FeaturesConfig(count=10), **inputs)
    ref = run_stage(tiny_run.store, request, Execution(threads=1))
    few, full = (
        load_file(tiny_run.store.open_artifact(r) / "features.safetensors")["features"]
        for r in (ref, setup["real features"])
    )
    assert few.shape == (10, 16)
    torch.testing.assert_close(few, full[:10], rtol=1e-4, atol=1e-5)


def test_real_data_are_the_seventeen_grey_levels_of_scikit_learn(tiny_run):
    from sklearn.datasets import load_digits

    folder = tiny_run.store.open_artifact(tiny_run.plan.setup[0].ref)
    index = read_index(folder)
    images, labels = read_images([folder / shard.file for shard in index.shards])
    digits = load_digits()
    assert images.shape == (256, 1, 8, 8)
    assert np.array_equal(np.rint(images[:, 0] / 255 * 16), digits.images[:256])
    assert (images.min(), images.max(), len(np.unique(images))) == (0, 255, 17)
    assert np.array_equal(labels, digits.target[:256])
    assert sum(index.class_histogram.values()) == 256
