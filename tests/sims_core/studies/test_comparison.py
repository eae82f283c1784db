"""Two stored sets compared: which sets, in which features, and the figures of torch-fidelity."""

import os
import re
import shutil

import numpy as np
import pytest
import torch_fidelity

from sims_core.catalog import run_stage
from sims_core.common.digest import digest_of
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.data.config import Contents, DigitsData, ImportConfig, ImportedSet
from sims_core.data.digits import load_digits_uint8
from sims_core.data.image_set import read_images, stream_picked
from sims_core.data.names import DATASETS, images_of
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import DataFiles, Execution
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.evaluation.extractors import CLASSIFIER_EXTRACTOR
from sims_core.evaluation.figures import read_metrics
from sims_core.evaluation.images import RGBDataset
from sims_core.evaluation.weights import INCEPTION_WITHOUT_LOGITS, OFFICIAL_INCEPTION, RESNET_SHA256
from sims_core.methods.standard import Standard
from sims_core.store.store import Store
from sims_core.studies.comparison import Comparison, ImageSource, find_images, plan_comparison
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop

NO_FILES = DataFiles()
SMALL = {"allow_small_n": True, "features": "classifier"}


def import_as(store, name, count=80, num_classes=10):
    """A name for something that was imported, which here nobody ever opens."""
    contents = Contents(count=count, channels=1, height=8, width=8, num_classes=num_classes)
    config = ImportConfig(content="0" * 64, layout="folder")
    DATASETS.give(store, name, ImportedSet(config=config, contents=contents))


def compare(store, images, reference, **options):
    return plan_comparison(
        find_images(store, images), find_images(store, reference), NO_FILES, **options
    )


def run(store, comparison, **execution):
    for stage in comparison.stages:
        run_stage(store, stage.request, Execution(threads=1, **execution))
    return read_metrics(store, comparison.stages[-1].ref)


@pytest.mark.parametrize(
    ("name", "full", "count"),
    [
        ("cifar10", "cifar10:train", 50_000),
        ("cifar10:test", "cifar10:test", 10_000),
        ("mnist:train", "mnist:train", 60_000),
        ("fashion:test", "fashion:test", 10_000),
        ("digits", "digits:train", 1797),
    ],
)
def test_public_sets_are_those_of_the_presets(name, full, count, tmp_path):
    found = find_images(Store(tmp_path / "absent"), name)
    assert (found.name, found.contents.count) == (full, count)
    assert found.request is not None
    assert (found.request.ref, found.request.config["source"]) == (found.ref, full.split(":")[0])
    assert not list(tmp_path.iterdir())


def test_digits_are_those_of_a_run(store):
    planned = plan_loop(
        Experiment(),
        (Arm(method=Standard(), loop=LoopKind.fully_synthetic, pollution_size=9),),
        generations=1,
        seed=0,
    )
    assert find_images(store, "digits").request == planned.setup[0].request


def test_an_imported_set_goes_by_its_name(store):
    import_as(store, "faces")
    found = find_images(store, "faces")
    assert (found.ref, found.contents.count) == (images_of(DATASETS.find(store, "faces")), 80)


def test_an_artifact_goes_by_its_digest_and_by_every_path_to_it(
    store, put_images, random_images, tmp_path, monkeypatch
):
    ref = put_images(store, random_images(7, channels=3), labels=[0, 1, 2, 3, 0, 1, 4])
    link = store.root / "runs" / "mine" / "arms" / "a" / "t=01" / "generate"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(store.path(ref), link.parent))
    monkeypatch.chdir(tmp_path)
    names = [
        f"images/{ref.digest}",
        f"images/{ref.digest[:12]}",
        f"images/{ref.digest[:6]}",
        ref.location,
        str(store.path(ref)),
        str(link),
        os.path.relpath(link, tmp_path),
        "runs/mine/arms/a/t=01/generate",
    ]
    for name in names:
        found = find_images(store, name)
        assert (found.ref, found.request) == (ref, None), name
    assert found.contents == Contents(count=7, channels=3, height=8, width=8, num_classes=5)


def other_store(tmp_path, put_images, images):
    store = Store.open(tmp_path / "other")
    return str(store.path(put_images(store, images)))


def test_what_is_no_set_of_this_store_is_one_line(
    store, put_images, random_images, tmp_path, tiny_run, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    import_as(store, "digits")
    import_as(store, "faces")
    (tmp_path / "pictures").mkdir()
    refs = [put_images(store, random_images(3, seed=seed)) for seed in range(2)]
    # two digests with one beginning
    twin = refs[0].digest[:7] + ("0" if refs[0].digest[7] != "0" else "1") + refs[0].digest[8:]
    shutil.copytree(store.path(refs[0]), store.path(refs[0]).with_name(twin))
    (store.root / "artifacts" / "model").mkdir()
    model = store.root / "artifacts" / "model" / ("a" * 64)
    model.mkdir()
    cases = {
        "nope": r"no images 'nope': want digits, cifar10, cifar10:test, .*\(digits, faces\)",
        "digits:test": "no images 'digits:test': want digits, cifar10",
        "": "no images ''",
        "digits": r"a public set and a name given by .*: pass digits:train",
        f"images/{refs[1].digest[:5]}": "at least 6 digits",
        "images/000000": r"no artifact images/000000 in the store .*sims store ls",
        f"images/{refs[0].digest[:7]}": "is the beginning of images/.* and images/.*more digits",
        "pictures": r"pictures is no images artifact of the store .*`store`.*sims data import",
        "/": "/ is no images artifact",
        "x" * 5000: "no images 'xxx",
        "gone/away": "no images 'gone/away'",
        str(store.root / "artifacts" / "images"): "is no images artifact",
        str(model): "is an artifact of kind model, not images",
        other_store(tmp_path, put_images, random_images(3)): "pass the `store` that it is of",
    }
    for name, message in cases.items():
        with pytest.raises(BadInput, match=message) as error:
            find_images(store, name)
        assert len(str(error.value).splitlines()) == 1


def test_a_damaged_set_is_not_measured(store, put_images, random_images):
    ref = put_images(store, random_images(7))
    (store.path(ref) / "images-00001.tar").write_bytes(b"")
    with pytest.raises(DamagedArtifact, match=r"images-00001.tar: 0 bytes.* made these images"):
        find_images(store, f"images/{ref.digest[:12]}")


@pytest.mark.parametrize(
    ("images", "reference", "options", "message"),
    [
        ("digits", "digits", {}, r"1797 images of digits:train are too few .* inception .*2049, or "
         r"other `features` \(at least 65\), or `allow_small_n`"),
        ("cifar10", "cifar10:test", {"count": 64, "features": "resnet20"},
         "64 images of cifar10:train are too few .* at least 65, or `allow_small_n`"),
        ("cifar10", "cifar10:test", {"reference_count": 2000}, "2000 images of cifar10:test are"),
        ("cifar10", "cifar10:test", {"count": 50_001}, "`count` 50001 must be from 1 to 50000"),
        ("cifar10", "cifar10:test", {"reference_count": 0}, "`reference_count` 0 must be from 1"),
        ("cifar10", "cifar10:test", {"kid_subset_size": 10_001}, "10001 must be from 2 to 10000"),
        ("cifar10", "cifar10:test", {"kid_subset_size": 1}, "1 must be from 2 to 10000"),
        ("digits", "digits", {"count": 3, **SMALL}, "3 images are too few: want at least 4"),
        ("cifar10", "mnist", {"features": "resnet20"},
         "cifar10:train are 3 x 32 x 32 .* mnist:train 1 x 28 x 28: only `features` inception"),
        ("digits", "unlabelled", SMALL, "the images of unlabelled have no class labels"),
        ("digits", "digits", {"inception_score": True, **SMALL}, "needs `features` inception"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_before_any_work(
    images, reference, options, message, store
):
    import_as(store, "unlabelled", num_classes=0)
    with pytest.raises(BadInput, match=message) as error:
        compare(store, images, reference, **options)
    assert len(str(error.value).splitlines()) == 1
    assert store.artifacts() == []


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 500), ({"count": 300}, 300), ({"reference_count": 100}, 100), ({"count": 4}, 4)],
)
def test_kids_subsets_fit_the_smaller_set(options, size, store):
    comparison = compare(store, "digits", "digits", **SMALL, **options)
    assert comparison.evaluation.kid_subset_size == size
    assert comparison.stages[-1].request.config["kid_subset_size"] == size


def test_inception_score_wants_weights_that_have_it(store, monkeypatch):
    pinned = {"sha256": OFFICIAL_INCEPTION}
    monkeypatch.setattr(
        "sims_core.studies.comparison.pin_weights",
        lambda evaluation, files: evaluation.model_copy(
            update={"weights_sha256": pinned["sha256"]}
        ),
    )
    planned = compare(store, "cifar10", "cifar10:test", inception_score=True)
    assert planned.stages[0].request.config == {
        **{"features": "inception", "sha256": OFFICIAL_INCEPTION, "inception_score": True}
    }
    pinned["sha256"] = INCEPTION_WITHOUT_LOGITS
    with pytest.raises(BadInput, match=r"no logits layer.*leave `inception_score` out"):
        compare(store, "cifar10", "cifar10:test", inception_score=True)


def test_missing_weights_are_noticed_first(store, monkeypatch):
    planned = compare(store, "cifar10", "cifar10:test", features="resnet20").stages
    assert [stage.role for stage in planned] == [
        *("load extractor", "prepare reference", "prepare images"),
        *("reference features", "features", "evaluate"),
    ]
    with pytest.raises(BadInput, match=r"no weights for .*=resnet20"):
        run_stage(store, planned[0].request, Execution(threads=1))


def directly(generated, real, config, **extractor):
    return torch_fidelity.calculate_metrics(
        input1=RGBDataset(generated),
        input2=RGBDataset(real),
        cuda=False,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=config["kid_subsets"],
        kid_subset_size=config["kid_subset_size"],
        prc_neighborhood=config["prc_neighborhood"],
        rng_seed=config["seed"],
        save_cpu_ram=True,
        verbose=False,
        **extractor,
    )


def assert_same_figures(got, expected):
    for ours, theirs in [
        ("fid", "frechet_inception_distance"),
        ("kid", "kernel_inception_distance_mean"),
        ("kid_std", "kernel_inception_distance_std"),
        ("precision", "precision"),
        ("recall", "recall"),
    ]:
        assert got[ours] == pytest.approx(expected[theirs], rel=1e-4, abs=1e-6), ours
    assert got["fid"] > 0.01


def sampled(planned, role, available, count):
    """Which images a sample has, said anew."""
    drawn = np.random.default_rng(planned.sample_seed(role)).choice(available, count, replace=False)
    return sorted(drawn.tolist())


def test_a_part_of_a_set_is_a_sample_of_all_of_it(store, put_images, random_images):
    """Not the first so many, which of a set that is sorted by class are of a few classes."""
    ref = put_images(store, random_images(200), [i // 20 for i in range(200)], per_shard=70)
    name = f"images/{ref.digest[:12]}"
    planned = compare(store, name, name, count=60, seed=3, **SMALL)
    assert planned.sample_seed("reference") is None, "all of it"
    chosen = sampled(planned, "images", 200, 60)
    assert len({index // 20 for index in chosen}) == 10, "every class is in it"
    whole, _ = read_images(sorted(store.path(ref).glob("*.tar")))
    assert np.array_equal(
        np.stack([each.content for each in stream_picked(store.path(ref), chosen)]), whole[chosen]
    )
    others = [
        compare(store, name, name, count=60, seed=seed, **SMALL).stages[-1].ref for seed in (3, 4)
    ]
    assert planned.stages[-1].ref == others[0] != others[1]


def given_import(store, name, formats, sides):
    """A name for images whose import noted what they were encoded as and how large."""
    config = ImportConfig(content=digest_of(name), layout="folder")
    contents = Contents(count=70, channels=1, height=8, width=8, num_classes=0)
    dataset = ImportedSet(config=config, contents=contents)
    request = IMPORT.request(config)
    folder = store.progress_path(request.ref)
    folder.mkdir()
    (folder / "x").write_bytes(b"")
    details = {"formats": formats, "original_sides": sides}
    store.commit(request, folder, execution={}, libraries={}, details=details)
    DATASETS.give(store, name, dataset)


@pytest.mark.parametrize(
    ("formats", "sides", "warned"),
    [
        ({"PNG": 60, "JPEG": 10}, [32, 40], []),
        ({"JPEG": 69, "WEBP": 1}, [32, 40], ["JPEG"]),
        ({"PNG": 70}, [256, 256], ["sides of 8 to 32 pixels.*256 to 256"]),
        ({"MPO": 70}, [256, 300], ["JPEG", "sides"]),
    ],
)
def test_sets_of_other_encodings_or_sizes_are_warned_of(formats, sides, warned, store):
    given_import(store, "a", {"PNG": 70}, [8, 32])
    given_import(store, "b", formats, sides)
    options = {"allow_small_n": True, "features": "resnet20"}
    warnings = compare(store, "a", "b", **options).warnings
    assert len(warnings) == len(warned)
    for text, pattern in zip(warnings, warned, strict=True):
        assert re.search(pattern, text)


def test_figures_are_torch_fidelitys_in_a_classifiers_features(store, put_images):
    """Of a noisy copy of some digits against others, a sample of each that the seed names."""
    digits, labels = load_digits_uint8(DigitsData(num_images=300))
    noise = np.random.default_rng(0).integers(0, 60, digits.shape, dtype=np.uint8)
    noisy = np.maximum(digits, noise)[:100]
    generated = put_images(store, noisy, per_shard=30)
    real = put_images(store, digits[100:], labels[100:].tolist(), per_shard=70)
    # A classifier that costs less than the default.
    planned = compare(
        store,
        *(f"images/{ref.digest[:12]}" for ref in (generated, real)),
        count=90,
        reference_count=150,
        **SMALL,
    )
    evaluation = planned.evaluation.model_copy(
        update={"classifier": ClassifierConfig(channels=(8, 16), num_features=16, kimg=2)}
    )
    planned = Comparison(planned.images, planned.reference, 150, evaluation, seed=3)
    got = run(store, planned)
    trained = next(stage.ref for stage in planned.stages if stage.role == "train classifier")
    expected = directly(
        noisy[sampled(planned, "images", 100, 90)],
        digits[100:][sampled(planned, "reference", 200, 150)],
        planned.stages[-1].request.config,
        feature_extractor=CLASSIFIER_EXTRACTOR,
        feature_extractor_weights_path=str(store.open_artifact(trained)),
    )
    assert_same_figures(got, expected)
    assert (got["n_generated"], got["n_real"]) == (90, 150)


def test_figures_are_torch_fidelitys_in_a_resnets_features(
    store, data_folder, put_images, random_images
):
    generated, real = random_images(70, 3, 32), 2 * (random_images(66, 3, 32, seed=1) // 2)
    refs = [put_images(store, images, per_shard=40) for images in (generated, real)]
    names = [f"images/{ref.digest[:12]}" for ref in refs]
    planned = compare(store, *names, features="resnet20")
    got = run(store, planned, files=DataFiles(source=data_folder))
    expected = directly(
        generated,
        real,
        planned.stages[-1].request.config,
        feature_extractor="sims-resnet20",
        feature_extractor_weights_path=str(store.open_artifact(planned.stages[0].ref)),
    )
    assert_same_figures(got, expected)


def test_a_set_is_itself(tiny_run):
    """And is extracted once. FID's square root of a matrix leaves float noise."""
    evaluation = tiny_run.plan.experiment.evaluation.model_copy(update={"num_images": 256})
    source = find_images(tiny_run.store, tiny_run.plan.setup[0].ref.location)
    planned = Comparison(source, source, 256, evaluation, seed=7)
    assert [stage.role for stage in planned.stages] == ["train classifier", "features", "evaluate"]
    metrics = run(tiny_run.store, planned)
    assert abs(metrics["fid"]) < 1e-3
    assert (metrics["precision"], metrics["recall"]) == (1, 1)


def test_nothing_that_a_run_has_is_computed_again(tiny_run):
    """Of the run's images against its real ones: not even the metrics."""
    generated = find_images(tiny_run.store, str(tiny_run.folder(0, 2, "generate")))
    real = find_images(tiny_run.store, tiny_run.plan.setup[0].ref.location)
    evaluation = tiny_run.plan.experiment.evaluation
    shared = Comparison(generated, real, 256, evaluation, seed=7)
    assert {stage.ref for stage in shared.stages} < {stage.ref for stage in tiny_run.plan}
    assert shared.stages[-1].ref == tiny_run.request(0, 2, "evaluate").ref
    other = Comparison(generated, real, 200, evaluation, seed=7)
    new = [stage.role for stage in other.stages if not tiny_run.store.is_whole(stage.ref)]
    assert new == ["reference features", "evaluate"]


def test_a_plain_comparison_shares_all_with_a_run_of_the_same_seed(store):
    """Neither says more than the features: one classifier, one set of features, one figure."""
    evaluation = EvaluationConfig(features="resnet20", weights_sha256=RESNET_SHA256["resnet20"])
    arms = (Arm(method=Standard(), loop=LoopKind.fully_synthetic, pollution_size=9),)
    for experiment in (Experiment(), Experiment(evaluation=evaluation)):
        plan = plan_loop(experiment, arms, generations=1, seed=5)
        generated = plan.arms[0].artifacts(1)["generate"]
        digits = find_images(store, "digits")
        images = ImageSource("made", generated, digits.contents)
        features = experiment.evaluation.features
        planned = plan_comparison(images, digits, NO_FILES, features=features, seed=5)
        assert {stage.ref for stage in planned.stages} < {stage.ref for stage in plan}
