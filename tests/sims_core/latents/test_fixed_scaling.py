"""Latents scaled by fixed numbers."""

import numpy as np
import pytest

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import EncodeConfig
from sims_core.data.image_set import read_index, read_samples
from sims_core.data.mixing import read_first_labelled
from sims_core.engine.execution import DataFiles, Execution
from sims_core.latents.autoencoder import find_autoencoder
from sims_core.latents.fixed_scaling import check_channels, edm2_scaling
from sims_core.latents.stages import ENCODE, IMPORT_AUTOENCODER


def test_edm2_takes_its_raw_mean_and_deviation_to_0_and_a_half():
    mean = np.array([5.81, 3.25, 0.12, -2.15])
    std = np.array([4.17, 4.62, 3.71, 3.28])
    config = edm2_scaling(seed=4)
    shift, scale = np.array(config.shift), np.array(config.scale)
    assert ((mean - shift) * scale).tolist() == [0, 0, 0, 0]
    assert (mean + 2 * std - shift) * scale == pytest.approx(np.ones(4))
    assert config.seed == 4


def test_fixed_numbers_scale_what_is_encoded(store, put_images, random_images, autoencoder_folder):
    images = put_images(store, random_images(9))
    autoencoder = IMPORT_AUTOENCODER.request(find_autoencoder(autoencoder_folder))
    run_stage(store, autoencoder, Execution(files=DataFiles(imported=autoencoder_folder)))
    config = EncodeConfig(scaling="fixed", shift=(0.5, -1.0), scale=(2.0, 0.25))
    inputs = {"images": images, "autoencoder": autoencoder.ref}
    folder = store.open_artifact(run_stage(store, ENCODE.request(config, **inputs), Execution()))
    raw, _ = read_samples([folder / shard.file for shard in read_index(folder).shards])
    seen, _ = read_first_labelled(folder, None)
    expected = (raw - np.array([0.5, -1.0])[:, None, None]) * np.array([2, 0.25])[:, None, None]
    assert np.allclose(seen, expected, rtol=1e-3, atol=1e-3)
    # The same draws under another scaling: the same images when they are decoded.
    plain = store.manifest(run_stage(store, ENCODE.request(EncodeConfig(), **inputs), Execution()))
    found = read_index(folder)
    assert plain.details["psnr"] == pytest.approx(
        store.manifest(ENCODE.request(config, **inputs).ref).details["psnr"], abs=0.1
    )
    assert found.scaling is not None


def test_a_scaling_of_other_channels_is_refused(autoencoder_folder):
    with pytest.raises(BadInput, match="latents of 4 channels, the autoencoder's have 2"):
        check_channels(edm2_scaling(), find_autoencoder(autoencoder_folder))


@pytest.mark.parametrize(
    "fields",
    [
        {"scaling": "fixed"},
        {"shift": (1.0,), "scale": (1.0,)},
        {"scaling": "fixed", "shift": (1.0,), "scale": (1.0, 2.0)},
        {"scaling": "fixed", "shift": (1.0,), "scale": (0.0,)},
    ],
)
def test_a_scaling_is_whole(fields):
    with pytest.raises(ValueError, match=r"wants shift and scale|a scale of 0"):
        EncodeConfig(**fields)


def test_younger_fields_are_in_no_digest_of_older_encodings():
    assert EncodeConfig().model_dump() == {"scaling": "standardized", "seed": 0}
