"""Fine-tunes of networks that NVIDIA's code wrote, after import, by each network's own loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sims_core.catalog import run_stage
from sims_core.engine.execution import DataFiles, Execution
from sims_core.nets.edm2 import MPWeights
from sims_core.nets.importing import find_model_source
from sims_core.nets.losses import denoising_errors
from sims_core.nets.preconditioning_config import EDM2Loss
from sims_core.nets.saved import load_model
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.store.store import Store
from sims_core.training.batches import Batch
from sims_core.training.config import TrainingConfig
from sims_core.training.trainer import Training

pytestmark = pytest.mark.slow

BATCH = 2
STEP = 1e-5
"""Of a central difference in float64: its error is of the order of STEP squared."""


def fine_tune(store: Store, path: Path, learning_rate: float = 1e-3) -> Training:
    """A training that begins at the network of a file, as the stage `train` begins one."""
    request = IMPORT_MODEL.request(find_model_source(path).imported)
    ref = run_stage(store, request, Execution(files=DataFiles(imported=path)))
    denoiser, model = load_model(store.open_artifact(ref))
    net = model.net
    told = 0.12 if net.is_told_of_augmentation else 0
    recipe = TrainingConfig(
        kimg=1, batch_size=BATCH, learning_rate=learning_rate, decay="constant", augment=told
    )
    shape = (16, net.channels, net.image_size, net.image_size)
    images = 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % net.num_classes if net.num_classes else None
    training = Training(model, recipe, images, seed=0, initial=denoiser, labels=labels)
    assert training.loss == model.loss is not None
    return training


def loss_in_float64(training: Training, batch: Batch) -> Tensor:
    """What `training` minimises, of a batch; the images as float32 augments them."""
    net: Any = training.denoiser.net
    net.tell(batch.dropout, batch.augment_labels)
    clean, sigma, noise = (each.double() for each in (batch.images, batch.sigma, batch.noise))
    assert training.loss is not None
    errors = denoising_errors(training._prepared, training.loss, clean, sigma, noise, batch.labels)
    return errors.mean()


def test_gradient_of_its_own_loss_is_the_finite_difference(
    store: Store, edm_folder: Path, edm_checkpoint: str
) -> None:
    """In training: with dropout, labels of augmentation and EDM2's forced normalisation."""
    training = fine_tune(store, edm_folder / f"{edm_checkpoint}.pkl")
    batch = training._next_batch()
    wanted = float(training._loss(batch).detach())
    net = training.denoiser.net.double()
    is_edm2 = isinstance(training.loss, EDM2Loss)
    for _ in range(5 if is_edm2 else 0):  # to the fixed point of forced normalisation
        net.force_norms()
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    loss = loss_in_float64(training, batch)
    assert math.isclose(float(loss.detach()), wanted, rel_tol=1e-3)
    loss.backward()
    gradients = {
        key: parameter.grad.clone()
        for key, parameter in net.named_parameters()
        if parameter.grad is not None
    }
    assert len(gradients) > 0.9 * len(list(net.parameters()))
    # Normalised twice, EDM2's weights hide 1e-4 of the part along themselves.
    tolerance = 1e-3 if is_edm2 else 1e-5
    parameters = dict(net.named_parameters())
    chance = torch.Generator().manual_seed(1)
    names = list(gradients)
    for index in torch.randperm(len(names), generator=chance)[:4].tolist():
        key = names[index]
        place = int(gradients[key].abs().argmax())
        found = float(gradients[key].view(-1)[place])
        values = []
        for step in (STEP, -STEP):
            with torch.no_grad():
                net.load_state_dict(state)
                parameters[key].view(-1)[place] += step
                values.append(float(loss_in_float64(training, batch)))
        expected = (values[0] - values[1]) / (2 * STEP)
        assert math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-9), key


def magnitude(layer: MPWeights) -> Tensor:
    """Root mean square of the stored weights of every output."""
    return layer.weight.detach().flatten(1).square().mean(1).sqrt()


@pytest.mark.parametrize("name", ["edm2-cond", "edm2-uncond"])
def test_weights_of_edm2_stay_normalised_in_a_fine_tune(
    store: Store, edm_folder: Path, name: str
) -> None:
    training = fine_tune(store, edm_folder / f"{name}.pkl", learning_rate=0.05)
    net = training.denoiser.net
    layers = {key: m for key, m in net.named_modules() if isinstance(m, MPWeights)}
    before = {key: layer.weight.detach().clone() for key, layer in layers.items()}
    used: list[float] = []  # how far from one the weights of a pass are
    drifted: list[float] = []  # and those that a step leaves
    for layer in layers.values():
        layer.register_forward_hook(
            lambda layer, *_: used.append(float((magnitude(layer) - 1).abs().max()))
        )
    for _ in range(8):
        training.advance()
        drifted.append(max(float((magnitude(m) - 1).abs().max()) for m in layers.values()))
    assert len(used) >= 8 * len(layers)
    assert max(used) < 1e-3
    assert min(drifted) > 2e-3
    for key, layer in layers.items():
        same = nn.functional.cosine_similarity(
            layer.weight.detach().flatten(1), before[key].flatten(1)
        )
        assert float(same.min()) < 0.999, key
