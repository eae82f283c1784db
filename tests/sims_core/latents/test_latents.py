"""Images to latents and back: diffusers' own autoencoder is the oracle."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, DamagedArtifact, SimsError
from sims_core.common.seeding import image_seed
from sims_core.data.config import (
    Contents,
    EncodeConfig,
    Encoding,
    ImportConfig,
    ImportedImages,
    ImportedSet,
)
from sims_core.data.image_set import (
    Scaling,
    read_images,
    read_index,
    read_samples,
    scaled_latents,
    stream_samples,
    write_shard,
)
from sims_core.data.mixing import load_training_set, read_first_labelled
from sims_core.data.names import DATASETS, images_of
from sims_core.data.ranges import to_float16
from sims_core.data.stages import IMPORT
from sims_core.diffusion.noise import generator
from sims_core.diffusion.sampler import make_sampler
from sims_core.engine.execution import DataFiles, Execution
from sims_core.evaluation.figures import read_metrics
from sims_core.latents import coding as latents_module
from sims_core.latents.autoencoder import check_images_fit, find_autoencoder
from sims_core.latents.config import DecodeConfig
from sims_core.latents.stages import DECODE, ENCODE, IMPORT_AUTOENCODER, encode_request, modelled_by
from sims_core.methods.standard import Standard
from sims_core.nets.config import BaseConfig, UNetConfig
from sims_core.sampling.images import load_for_sampling, sample_images
from sims_core.studies.comparison import find_images, plan_comparison
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.resolve import resolve_data
from sims_core.studies.self_improvement import Sweep, plan_study

COUNT = 37


@pytest.fixture(scope="module")
def theirs(autoencoder_folder):
    return AutoencoderKL.from_pretrained(autoencoder_folder / "vae").eval()


@pytest.fixture
def encoded(store, put_images, random_images, autoencoder_folder):
    """Encodes random images under a configuration: images, their artifact's ref, the latents'."""

    def encode(config=None, count=COUNT, **execution):
        images = random_images(count)
        source = put_images(store, images, [i % 5 for i in range(count)])
        autoencoder = IMPORT_AUTOENCODER.request(find_autoencoder(autoencoder_folder))
        here = Execution(files=DataFiles(imported=autoencoder_folder))
        run_stage(store, autoencoder, here)
        config = config or EncodeConfig()
        request = ENCODE.request(config, images=source, autoencoder=autoencoder.ref)
        ref = run_stage(store, request, Execution(**execution))
        return images, {"encoded": ref, "autoencoder": autoencoder.ref}

    return encode


def stored_of(store, ref):
    folder = store.open_artifact(ref)
    return read_samples([folder / shard.file for shard in read_index(folder).shards])


def posterior(theirs, images):
    with torch.no_grad():
        return theirs.encode(torch.from_numpy(images).float() / 127.5 - 1).latent_dist


def test_each_latent_is_a_draw_from_its_images_posterior(store, encoded, theirs):
    images, refs = encoded(EncodeConfig(seed=3), sampling_batch_size=10)
    found, labels = stored_of(store, refs["encoded"])
    assert found.dtype == np.float16
    assert labels.tolist() == [i % 5 for i in range(COUNT)]
    wanted = posterior(theirs, images)
    drawn = (torch.from_numpy(found).float() - wanted.mean) / wanted.std
    noise = torch.stack(
        [torch.randn(2, 4, 4, generator=generator(3, "posterior", i)) for i in range(COUNT)]
    )
    # Half precision keeps 11 bits of latents of about 1; the posterior's deviation is about 1 too.
    assert wanted.std.mean() > 0.3
    assert torch.allclose(drawn, noise, atol=2e-2)


def test_standardised_latents_have_mean_0_and_deviation_half(store, encoded):
    _, refs = encoded()
    seen, _ = read_first_labelled(store.open_artifact(refs["encoded"]), None)
    assert np.abs(seen.astype(np.float64).mean((0, 2, 3))).max() < 1e-4
    assert seen.astype(np.float64).std((0, 2, 3)) == pytest.approx([0.5, 0.5], rel=1e-3)
    details = store.manifest(refs["encoded"]).details
    assert details["sigma_data"] == pytest.approx(0.5)
    raw, _ = stored_of(store, refs["encoded"])
    assert details["mean"] == pytest.approx(raw.astype(np.float64).mean((0, 2, 3)), abs=1e-5)
    assert details["std"] == pytest.approx(raw.astype(np.float64).std((0, 2, 3)), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "shift", "scale"),
    [
        ({}, [0, 0], [0.18215, 0.18215]),
        ({"scaling_factor": 0.5, "shift_factor": 0.1}, [0.1, 0.1], [0.5, 0.5]),
        (
            {"scaling_factor": 0.5, "latents_mean": [1, 2], "latents_std": [4, 8]},
            *([1, 2], [0.125, 0.0625]),
        ),
    ],
)
def test_the_autoencoders_own_scaling_is_that_of_pipelines(
    store, encoded, autoencoder_folder, tmp_path, monkeypatch, changes, shift, scale
):
    own = latents_module.own_scaling
    config = AutoencoderKL.load_config(autoencoder_folder / "vae")
    changed = AutoencoderKL.from_config({**config, **changes})
    assert own(changed) == Scaling(shift=tuple(shift), scale=tuple(scale))
    monkeypatch.setattr(latents_module, "own_scaling", lambda _: own(changed))
    _, refs = encoded(EncodeConfig(scaling="autoencoder"))
    raw, _ = stored_of(store, refs["encoded"])
    seen, _ = read_first_labelled(store.open_artifact(refs["encoded"]), None)
    expected = (raw - np.array(shift)[:, None, None]) * np.array(scale)[:, None, None]
    assert np.allclose(seen, expected, rtol=1e-3)
    sigma_data = np.sqrt((expected.std((0, 2, 3)) ** 2).mean())
    assert store.manifest(refs["encoded"]).details["sigma_data"] == pytest.approx(
        sigma_data, rel=1e-3
    )


def test_batches_only_group_the_work(store, encoded, monkeypatch):
    _, refs = encoded()
    whole, _ = stored_of(store, refs["encoded"])
    monkeypatch.setattr(latents_module, "PIXELS_AT_ONCE", 3 * 64)
    shutil.rmtree(store.path(refs["encoded"]))
    _, again = encoded()
    assert again == refs
    parts, _ = stored_of(store, refs["encoded"])
    assert np.allclose(whole, parts, atol=2e-3)  # two halves' last bits


@pytest.mark.parametrize("stage", ["encode", "decode"])
def test_interrupted_ends_in_the_same_bytes(store, encoded, monkeypatch, bytes_of, stage):
    monkeypatch.setattr(latents_module, "IMAGES_PER_SHARD", 8)
    monkeypatch.setattr(latents_module, "PIXELS_AT_ONCE", 3 * 64)

    def compute():
        _, refs = encoded()
        request = DECODE.request(DecodeConfig(count=30), latents=refs["encoded"], **refs)
        return {"encode": refs["encoded"], "decode": run_stage(store, request, Execution())}

    ref = compute()[stage]
    whole = bytes_of(store.root)
    shutil.rmtree(store.path(ref))
    done = []

    class Killed(Exception):
        pass

    def kill(*arguments):
        done.append(arguments)
        if len(done) == 3:
            raise Killed
        return write(*arguments)

    from sims_core.data import sharded as sharding

    write = sharding.write_shard
    monkeypatch.setattr(sharding, "write_shard", kill)
    with pytest.raises(Killed):
        compute()
    assert not store.path(ref).exists()
    assert len(list((store.progress_path(ref) / "state").glob("*.tar"))) == 2
    assert compute()[stage] == ref
    assert len(done) == {"encode": 5, "decode": 4}[stage] + 1  # the two finished ones were kept
    assert bytes_of(store.root) == whole


def test_decoded_images_are_diffusers_own(store, encoded, theirs):
    _, refs = encoded()
    request = DECODE.request(DecodeConfig(), latents=refs["encoded"], **refs)
    folder = store.open_artifact(run_stage(store, request, Execution(sampling_batch_size=10)))
    images, labels = read_images([folder / shard.file for shard in read_index(folder).shards])
    assert labels.tolist() == [i % 5 for i in range(COUNT)]
    index = read_index(folder)
    assert (index.count, index.channels, index.height, index.width) == (COUNT, 1, 8, 8)
    assert index.class_histogram == {"0": 8, "1": 8, "2": 7, "3": 7, "4": 7}
    raw, _ = stored_of(store, refs["encoded"])
    with torch.no_grad():
        wanted = theirs.decode(torch.from_numpy(raw).float()).sample
    levels = ((wanted + 1) * 127.5).round().clamp(0, 255).numpy()
    assert levels.std() > 5
    # The way through the networks' scale in half precision costs the last grey level.
    assert np.abs(images - levels).max() <= 1
    assert (images != levels).mean() < 0.1


def test_psnr_and_grid_are_of_the_decoded_images(store, encoded):
    images, refs = encoded()
    request = DECODE.request(DecodeConfig(), latents=refs["encoded"], **refs)
    folder = store.open_artifact(run_stage(store, request, Execution()))
    again, _ = read_images([folder / shard.file for shard in read_index(folder).shards])
    mse = ((images.astype(float) - again) ** 2).mean()
    details = store.manifest(refs["encoded"]).details
    assert details["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
    grids = [store.path(refs["encoded"]), folder]
    assert len({(path / "grid.png").read_bytes() for path in grids}) == 1


def test_latents_in_a_shard_come_back(tmp_path):
    latents = np.random.default_rng(0).standard_normal((5, 4, 3, 3)).astype(np.float16)
    write_shard(tmp_path / "a.tar", latents, 7, [1, 2, 3, 4, 5], [10, 11, 12, 13, 2**32 - 1])
    again, labels = read_samples([tmp_path / "a.tar"])
    assert again.dtype == np.float16
    assert np.array_equal(again, latents)
    assert labels.tolist() == [1, 2, 3, 4, 5]


def test_an_npy_that_would_be_unpickled_is_refused(tmp_path, monkeypatch):
    from sims_core.data import image_set as shards

    monkeypatch.setattr(np, "save", lambda file, array, **_: np.lib.format.write_array(file, array))
    write_shard(tmp_path / "a.tar", np.array([[{"a": 1}]], dtype=object), 0)
    with pytest.raises(DamagedArtifact, match="allow_pickle"):
        shards.read_samples([tmp_path / "a.tar"])


def test_scaling_is_channel_by_channel_and_images_are_left_alone():
    stored = np.ones((2, 2, 1, 1), dtype=np.float16)
    scaling = Scaling(shift=(0.5, -1.0), scale=(2.0, 0.25))
    assert scaled_latents(stored, scaling).tolist() == [[[[1.0]], [[0.5]]]] * 2
    assert scaled_latents(stored[0], scaling).tolist() == [[[1.0]], [[0.5]]]
    assert scaled_latents(stored, None) is stored


# Loops and studies


@pytest.fixture
def experiment(store, tiny_experiment, autoencoder_folder, random_images, monkeypatch):
    """The tiny experiment on latents of 96 images with ten classes."""
    from sims_core.data.image_writer import ImageWriter

    config = ImportConfig(content="0" * 64, layout="folder")
    request = IMPORT.request(config)
    folder = store.progress_path(request.ref)
    folder.mkdir()
    writer = ImageWriter(folder)
    for number, image in enumerate(random_images(96)):
        writer.add(image // (1 + number % 10), number % 10)
    store.commit(request, folder, execution={}, libraries={}, details=writer.finish())
    autoencoder = find_autoencoder(autoencoder_folder)
    here = Execution(files=DataFiles(imported=autoencoder_folder))
    run_stage(store, IMPORT_AUTOENCODER.request(autoencoder), here)
    contents = Contents(count=96, channels=1, height=8, width=8, num_classes=10)
    encoding = Encoding(autoencoder=autoencoder, encode=EncodeConfig())
    dataset = ImportedSet(config=config, contents=contents, encoding=encoding)
    data = ImportedImages(name="latents", imported=dataset)
    net = tiny_experiment.model.net.model_copy(
        update={"image_size": 4, "channels": 2, "num_classes": 10}
    )
    return Experiment.model_validate(
        {
            **dict(tiny_experiment),
            "data": data,
            "model": {"net": net},
            "training": {"kimg": 1, "batch_size": 32, "grid_kimg": 0.5},
        }
    )


def run_all(store, stages):
    for stage in stages:
        run_stage(store, stage.request, Execution(threads=1))


def test_a_loop_on_latents(store, experiment):
    arms = tuple(
        Arm(method=method, loop=LoopKind.synthetic_augmentation, pollution_size=70)
        for method in (Standard(), experiment.sims)
    )
    plan = plan_loop(experiment, arms, generations=2, seed=1)
    run_all(store, plan)
    setup = {stage.role: stage.ref for stage in plan.setup}
    sims = plan.arms[1]
    first, second = sims.artifacts(1), sims.artifacts(2)
    # What G^1 sampled, with the networks' own labels and seeds.
    base, _ = load_for_sampling(store.open_artifact(first["train base"]), Execution())
    folder = store.open_artifact(first["self-synthetic"])
    samples = list(stream_samples(folder, 0, 8))
    request = next(s.request for s in sims.stages if s.ref == first["self-synthetic"])
    seeds = [image_seed(request.config["first_seed"], i) for i in range(8)]
    assert [sample.seed for sample in samples] == seeds
    drawn = sample_images(
        base,
        make_sampler(experiment.sampler),
        seeds,
        (2, 4, 4),
        8,
        labels=[sample.label for sample in samples],
        finish=to_float16,
    )
    stored = np.stack([sample.content for sample in samples])
    assert np.allclose(stored, drawn, atol=2e-3)
    # The training set of G^2: the real latents as networks see them, then those of G^1 as sampled.
    images, labels = load_training_set(store, store.open_artifact(second["mix"]))
    real, _ = read_first_labelled(store.open_artifact(setup["encode data"]), None)
    pollution, _ = read_first_labelled(store.open_artifact(first["generate latents"]), 70)
    assert np.array_equal(images[torch.arange(len(images))], np.concatenate([real, pollution]))
    assert len(labels) == 96 + 70
    # What is measured and shown is the decoded images, against the real images.
    features = next(s.request for s in sims.stages if (s.t, s.role) == (2, "features"))
    assert features.inputs["images"] == second["generate"]
    for latents, decoded in (("generate latents", "generate"), ("preview latents", "preview")):
        folder = store.open_artifact(second[decoded])
        index = read_index(folder)
        count = read_index(store.open_artifact(second[latents])).count
        assert (index.count, index.channels, index.height, index.width) == (count, 1, 8, 8)
        seeds = [
            [s.seed for s in stream_samples(store.open_artifact(second[role]), 0, count)]
            for role in (latents, decoded)
        ]
        assert seeds[0] == seeds[1]
        assert None not in seeds[0]


def test_grids_on_the_way_are_decoded(store, experiment):
    arm = Arm(method=Standard(), loop=LoopKind.synthetic_augmentation, pollution_size=64)
    plan = plan_loop(experiment, (arm,), generations=1, seed=1)
    run_all(store, [*plan.setup, *plan.arms[0].stages[:2]])
    grids = sorted((store.open_artifact(plan.arms[0].stages[1].ref) / "samples").glob("*.png"))
    assert len(grids) == 2
    with Image.open(grids[0]) as grid:
        assert grid.size == (8 * 8 + 7, 2 * 8 + 1)


def test_a_study_on_latents(store, experiment):
    sweep = Sweep(
        methods=(experiment.sims.model_copy(update={"n_s": 32}),),
        budgets_mimg=(0.000256,),
        n_s=32,
        select_images=64,
        final_images=64,
        finalists=1,
    )
    plan = plan_study(experiment, sweep, seed=2)
    run_all(store, plan)
    whole = plan.completed(store)
    assert len(list(whole)) == len(list(plan)) + plan.undecided
    run_all(store, whole)
    seeds = {each.candidate.name: each.first_seed for each in whole.finals}
    assert len(set(seeds.values())) == 1
    assert plan.selection[0].first_seed not in seeds.values()


def test_images_keep_their_digests():
    """Neither plans nor artifacts of images know of latents."""
    from sims_core.sampling.config import GenerateConfig
    from sims_core.sampling.stages import GENERATE

    config = GenerateConfig(sampler={}, count=4, first_seed=5)
    assert set(GENERATE.request(config).config) == {
        *("sampler", "omega", "count", "first_seed", "images_per_shard")
    }


def test_an_encoded_set_is_evaluated_as_decoded(store, experiment):
    """What the autoencoder costs: its rFID, against the images themselves."""
    encoded = experiment.data.imported
    DATASETS.give(store, "latents", encoded)
    DATASETS.give(store, "images", encoded.model_copy(update={"encoding": None}))
    run_stage(store, encode_request(images_of(encoded), encoded.encoding), Execution())
    comparison = plan_comparison(
        find_images(store, "latents"),
        find_images(store, "images"),
        DataFiles(),
        features="classifier",
        allow_small_n=True,
    )
    run_all(store, comparison.stages)
    assert read_metrics(store, comparison.stages[-1].ref)["fid"] > 0.1
    decoded = store.open_artifact(comparison.images.ref)
    grids = [decoded / "grid.png", store.path(modelled_by(encoded)) / "grid.png"]
    assert grids[0].read_bytes() == grids[1].read_bytes()


# Bad input


def test_sigma_data_of_other_latents_is_refused(store, experiment):
    encoded = experiment.data.imported
    own = encoded.encoding.model_copy(update={"encode": EncodeConfig(scaling="autoencoder")})
    dataset = encoded.model_copy(update={"encoding": own})
    DATASETS.give(store, "latents", dataset)
    run_stage(store, encode_request(images_of(dataset), own), Execution())
    found = store.manifest(modelled_by(dataset)).details["sigma_data"]
    assert found < 0.4
    with pytest.raises(BadInput, match=f"set model.sigma_data={found:g}"):
        resolve_data(experiment, store)
    of_theirs = experiment.model_copy(update={"base": BaseConfig(imported="theirs")})
    with pytest.raises(BadInput, match=f"theirs was trained on data of .* have {found:g}: encode"):
        resolve_data(of_theirs, store)
    model = experiment.model.model_copy(update={"sigma_data": 1.1 * found})
    right = experiment.model_copy(update={"model": model})
    assert resolve_data(right, store).data.imported == dataset


def test_a_network_of_other_latents_is_refused(experiment):
    net = UNetConfig(image_size=8, channels=1, block_out_channels=(8, 16), norm_num_groups=4)
    with pytest.raises(
        ValidationError, match=r"is for latents of 1 x 8 x 8 .*those of latents have 2 x 4 x 4"
    ):
        Experiment.model_validate({**dict(experiment), "model": {"net": net}})


def test_latents_are_not_mirrored(experiment):
    training = experiment.training.model_copy(update={"x_flip": True})
    with pytest.raises(ValidationError, match=r"training\.x_flip must be false for latents"):
        Experiment.model_validate({**dict(experiment), "training": training})


@pytest.fixture
def broken(autoencoder_folder, tmp_path):
    """A copy of the autoencoder's folder with changes to its configuration."""

    def make(**changes):
        folder = shutil.copytree(autoencoder_folder / "vae", tmp_path / "broken")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return make


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "VQModel"}, "describes a VQModel: only AutoencoderKL"),
        ({"latent_chanels": 4}, "AutoencoderKL has no argument 'latent_chanels'"),
        ({"norm_num_groups": 3}, "no network can be built of it"),
        ({"out_channels": 3}, "out_channels 3 are not in_channels 1"),
    ],
)
def test_what_is_no_fitting_autoencoder_is_refused(broken, changes, message):
    with pytest.raises(BadInput, match=message):
        find_autoencoder(broken(**changes))


def test_folders_without_one_are_refused(tmp_path, broken):
    with pytest.raises(BadInput, match=r"neither vae/config\.json nor config\.json"):
        find_autoencoder(tmp_path / "nothing")
    folder = broken()
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(BadInput, match="is of pickles"):
        find_autoencoder(folder)


def test_weights_of_another_architecture_are_refused(broken):
    folder = broken()
    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["quant_conv.weight"]
    save_file(weights, path)
    with pytest.raises(BadInput, match=r"another architecture: quant_conv\.weight is missing"):
        find_autoencoder(folder)


def test_names_of_old_diffusers_are_understood(store, broken, theirs):
    """Stable Diffusion's own files call attention's parts query, key, value and proj_attn."""
    folder = broken()
    path = folder / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    for new, name in old.items():
        weights = {
            key.replace(f".attentions.0.{new}.", f".attentions.0.{name}."): tensor
            for key, tensor in weights.items()
        }
    assert any(".query." in key for key in weights)
    save_file(weights, path)
    request = IMPORT_AUTOENCODER.request(find_autoencoder(folder))
    ref = run_stage(store, request, Execution(files=DataFiles(imported=folder)))
    opened = AutoencoderKL.from_pretrained(store.open_artifact(ref))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor)


def test_an_autoencoder_that_is_gone_says_how_to_get_it(store, autoencoder_folder):
    request = IMPORT_AUTOENCODER.request(find_autoencoder(autoencoder_folder))
    with pytest.raises(BadInput, match="store it again by `sims data encode`"):
        run_stage(store, request, Execution())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 8), "1 channels, these have 3: import them with `channels` 1"),
        ((1, 9, 9), "a multiple of 2 pixels, these have 9 x 9: import them with `size`"),
        ((1, 8, 10), "square images"),
    ],
)
def test_images_that_do_not_fit_are_refused(autoencoder_folder, shape, message):
    channels, height, width = shape
    contents = Contents(count=1, channels=channels, height=height, width=width, num_classes=0)
    with pytest.raises(BadInput, match=message):
        check_images_fit(find_autoencoder(autoencoder_folder), contents)


def test_latents_that_tell_nothing_apart_are_refused(store, put_images, encoded, monkeypatch):
    monkeypatch.setattr(
        latents_module, "to_float16", lambda z, _: np.ones(z.shape, dtype=np.float16)
    )
    with pytest.raises(SimsError, match="channel 0 of the latents is the same everywhere"):
        encoded()


def test_decoding_wants_the_encoded_set(store, encoded, put_images, random_images):
    _, refs = encoded()
    other = put_images(store, random_images(3))
    request = DECODE.request(DecodeConfig(), latents=refs["encoded"], **{**refs, "encoded": other})
    with pytest.raises(BadInput, match="holds no encoded images"):
        run_stage(store, request, Execution())


def test_the_plan_encodes_what_was_imported(experiment):
    arm = Arm(method=Standard(), loop=LoopKind.synthetic_augmentation, pollution_size=64)
    plan = plan_loop(experiment, (arm,), generations=1, seed=1)
    roles = {stage.role: stage.request for stage in plan.setup}
    assert roles["encode data"] == encode_request(
        roles["prepare data"].ref, experiment.data.imported.encoding
    )
    assert roles["real features"].inputs["images"] == roles["prepare data"].ref
