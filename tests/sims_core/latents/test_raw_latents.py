"""EDM2's zips of raw latents: what is drawn is what encoding the images draws."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from typer.testing import CliRunner

from infra.cli.main import app
from sims_core.catalog import run_stage
from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.data.config import EncodeConfig, ImportedImages
from sims_core.data.image_set import read_index, read_samples
from sims_core.data.names import DATASETS
from sims_core.data.raw_latents import open_raw_latents
from sims_core.data.stages import data_request, import_request
from sims_core.engine.execution import DataFiles, Execution
from sims_core.latents.autoencoder import find_autoencoder, images_of_raw_latents
from sims_core.latents.stages import ENCODE, IMPORT_AUTOENCODER, decode_request, modelled_by
from sims_core.methods.standard import Standard
from sims_core.reports.images import images_context
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.resolve import resolve_data

COUNT = 11


@pytest.fixture(scope="module")
def images(random_images):
    return random_images(COUNT)


@pytest.fixture(scope="module")
def moments(images, autoencoder_folder):
    """Means over deviations of each image's posterior, as EDM2's dataset tool has them."""
    theirs = AutoencoderKL.from_pretrained(autoencoder_folder / "vae").eval()
    with torch.no_grad():
        found = theirs.encode(torch.from_numpy(images).float() / 127.5 - 1).latent_dist
    return torch.cat([found.mean, found.std], 1).numpy()


def packed(path, arrays, labels=None, **further):
    """A zip as EDM2's dataset tool writes it."""
    names = [f"{i // 4:05d}/img-mean-std-{i:08d}.npy" for i in range(len(arrays))]
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in zip(names, arrays, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(name, buffer.getvalue())
        classes = labels and [[name, label] for name, label in zip(names, labels, strict=True)]
        archive.writestr("dataset.json", json.dumps({"labels": classes}))
        for name, content in further.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, moments, autoencoder_folder):
    """A store in which the command drew from a zip, and what it printed."""
    folder = tmp_path_factory.mktemp("raw")
    file = packed(folder / "raw.zip", moments, [i % 3 for i in range(COUNT)], notes="hello")
    words = ["data", "encode", file, "--autoencoder", autoencoder_folder, "--name", "latents"]
    words += ["--seed", 5, "--store", folder / "store", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMS_DEVICE", "cpu")
        done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.stderr
    return Store.open(folder / "store"), json.loads(done.stdout)


def stored(store, ref):
    folder = store.open_artifact(ref)
    return read_samples([folder / shard.file for shard in read_index(folder).shards])


def test_what_is_drawn_is_what_encoding_the_images_draws(
    encoded, put_images, images, autoencoder_folder
):
    store, row = encoded
    source = put_images(store, images, [i % 3 for i in range(COUNT)])
    autoencoder = IMPORT_AUTOENCODER.request(find_autoencoder(autoencoder_folder))
    request = ENCODE.request(EncodeConfig(seed=5), images=source, autoencoder=autoencoder.ref)
    wanted, labels = stored(store, run_stage(store, request, Execution()))
    found, same = stored(store, modelled_by(DATASETS.find(store, "latents")))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=2e-3, atol=2e-3)
    assert same.tolist() == labels.tolist()
    size = {"count": COUNT, "channels": 1, "height": 8, "width": 8, "num_classes": 3}
    assert size.items() <= row.items()
    assert row["latents"] == {"channels": 2, "height": 4, "width": 4}
    assert row["psnr"] is None  # nothing is known of the images
    assert row["left_out"] == {"no raw latents": {"count": 1, "first": ["notes"]}}


def test_a_run_trains_on_them_and_compares_with_their_decoded_images(encoded, tiny_experiment):
    store, _ = encoded
    net = tiny_experiment.model.net.model_copy(update={"channels": 2, "image_size": 4})
    values = {**dict(tiny_experiment), "data": ImportedImages(name="latents")}
    values["model"] = tiny_experiment.model.model_copy(update={"net": net})
    values["evaluation"] = tiny_experiment.evaluation.model_copy(
        update={"kid_subset_size": 8, "prc_neighborhood": 3, "allow_small_n": True}
    )
    experiment = resolve_data(Experiment.model_validate(values), store)
    arm = Arm(method=Standard(), loop=LoopKind.fully_synthetic, pollution_size=4)
    plan = plan_loop(experiment, (arm,), 1, seed=0)
    decoded = next(stage for stage in plan.setup if stage.role == roles.DECODE_DATA)
    assert decoded.request == decode_request(experiment.data)
    features = next(stage for stage in plan.setup if stage.role == roles.REAL_FEATURES)
    assert features.request.inputs["images"] == decoded.ref
    assert plan.setup[0].request == data_request(experiment.data)
    run_stage(store, decoded.request, Execution())
    real, _ = stored(store, decoded.ref)
    assert real.shape == (COUNT, 1, 8, 8)
    assert images_context(store, experiment, plan.setup[0].ref)["real_grid"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:3], r"means and deviations of shape \[2 C, h, w\], got \[3, 4, 4\]"),
        (lambda a: -np.abs(a) - 1, "a deviation is below 0"),
        (lambda a: a * np.nan, "a number is not finite"),
        (lambda a: (100 * a).astype(np.int32), "want an array of float16 or float32"),
        (lambda a: np.array([{}], dtype=object), "no readable array"),
    ],
)
def test_what_is_no_raw_latents_is_refused(tmp_path, moments, change, message):
    file = packed(tmp_path / "raw.zip", [change(moments[0]), moments[1]])
    with pytest.raises(BadInput, match=message):
        open_raw_latents(file)


def test_one_of_another_shape_stops_the_import(store, tmp_path, moments):
    file = packed(tmp_path / "raw.zip", [moments[0], moments[1][:, :2]])
    request = import_request(open_raw_latents(file).config)
    with pytest.raises(BadInput, match=r"is of shape \[4, 2, 4\], the first of \[4, 4, 4\]"):
        run_stage(store, request, Execution(files=DataFiles(imported=file)))


def test_an_autoencoder_of_other_latents_is_refused(autoencoder_folder):
    autoencoder = find_autoencoder(autoencoder_folder)
    with pytest.raises(BadInput, match="has square latents of 2 channels, these are means and"):
        images_of_raw_latents(autoencoder, 3, 0, (8, 4, 4))


def test_labels_must_be_of_the_arrays(tmp_path, moments):
    file = packed(tmp_path / "raw.zip", moments[:2], [0, 1])
    with zipfile.ZipFile(file, "a") as archive:
        buffer = io.BytesIO()
        np.save(buffer, moments[2])
        archive.writestr("further.npy", buffer.getvalue())
    with pytest.raises(BadInput, match=r"dataset\.json"):
        open_raw_latents(file)


@pytest.mark.parametrize("wrapper", ["./", "img512-sd/", "./img512-sd/"])
def test_labels_are_found_in_archives_of_a_whole_folder(store, tmp_path, moments, wrapper):
    """As `bsdtar -acf set.zip .` and `zip -r set.zip img512-sd` write them: with other names."""
    labels = [i % 3 for i in range(COUNT)]
    plain = packed(tmp_path / "plain.zip", moments, labels)
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(whole, "w") as archive:
        for name in source.namelist():
            archive.writestr(wrapper + name, source.read(name))
    found = open_raw_latents(whole)
    assert found.labels == tuple(labels)
    assert not found.left_out
    files = DataFiles(imported=whole)
    ref = run_stage(store, import_request(found.config), Execution(files=files))
    arrays, stored_labels = stored(store, ref)
    assert np.array_equal(arrays, moments)
    assert stored_labels.tolist() == labels
    assert open_raw_latents(plain).config.labels is None, "named as it ever was"


def test_one_array_under_two_names_but_for_the_dot_is_refused(tmp_path, moments):
    path = packed(tmp_path / "a.zip", moments[:2], None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("./" + archive.namelist()[0], archive.read(archive.namelist()[0]))
    with pytest.raises(BadInput, match="holds two members of one name"):
        open_raw_latents(path)


def test_labels_beside_some_of_the_arrays_are_named(tmp_path, moments):
    path = tmp_path / "b.zip"
    with (
        zipfile.ZipFile(packed(tmp_path / "a.zip", moments[:5])) as source,
        zipfile.ZipFile(path, "w") as archive,
    ):
        for name in source.namelist():
            if name.endswith(".npy"):
                archive.writestr(name, source.read(name))
        labels = [["img-mean-std-00000004.npy", 1]]
        archive.writestr("00001/dataset.json", json.dumps({"labels": labels}))
    with pytest.raises(BadInput, match=r"00001/dataset\.json may hold classes.*: move it to where"):
        open_raw_latents(path)
