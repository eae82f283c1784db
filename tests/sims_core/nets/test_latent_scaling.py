"""A checkpoint that carries an encoder says how its network's latents are scaled."""

import numpy as np
import pytest

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.engine.execution import DataFiles, Execution
from sims_core.latents.fixed_scaling import edm2_scaling, scaling_of
from sims_core.nets.importing import find_model_source
from sims_core.nets.names import MODELS
from sims_core.nets.stages import IMPORT_MODEL


def imported(store, file, name):
    model = find_model_source(file).imported
    run_stage(store, IMPORT_MODEL.request(model), Execution(files=DataFiles(imported=file)))
    MODELS.give(store, name, model)


def test_the_encoder_of_a_checkpoint_is_read(
    store, write, checkpoint_of, recorded, random_net, tiny_song
):
    net = random_net(tiny_song)
    mean = np.float32([5.81, 3.25, 0.12, -2.15])
    scale = np.float32(0.5) / np.float32([4.17, 4.62, 3.71, 3.28])
    content = checkpoint_of(net)
    content["encoder"] = recorded("StabilityVAEEncoder", {"scale": scale, "bias": -mean * scale})
    imported(store, write(content), "theirs")
    found, own = scaling_of(store, "theirs", seed=3), edm2_scaling(seed=3)
    assert found.scale == pytest.approx(own.scale, rel=1e-6)
    assert found.shift == pytest.approx(own.shift, rel=1e-6)
    assert (found.scaling, found.seed) == ("fixed", 3)


def test_one_without_an_encoder_of_latents_is_refused(
    store, write, checkpoint_of, random_net, tiny_song
):
    imported(store, write(checkpoint_of(random_net(tiny_song))), "pixels")
    with pytest.raises(BadInput, match="`scaling_of` pixels: its file has no encoder that scales"):
        scaling_of(store, "pixels")
