"""Training on mapped parts equals training on one tensor to the last bit; so does the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sims_core.common import purposes
from sims_core.data.epochs import batch_indices, epoch_order
from sims_core.data.parts import ImageParts
from sims_core.diffusion.noise import generator
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.training.config import TrainingConfig
from sims_core.training.trainer import Training, train

MODEL = ModelConfig(net=UNetConfig(block_out_channels=(8, 16), norm_num_groups=4, dropout=0.1))
RECIPE = TrainingConfig(kimg=0.16, batch_size=16, learning_rate=4e-3, x_flip=True)


def test_losses_and_weights_are_the_same(random_images, tmp_path):
    images = random_images(50)
    np.save(tmp_path / "a.npy", images[:23])
    np.save(tmp_path / "b.npy", images[23:])
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("a.npy", "b.npy")]
    plain = Training(MODEL, RECIPE, torch.from_numpy(images), 3)
    parts = Training(MODEL, RECIPE, ImageParts(mapped), 3)
    expected, got = train(plain).state_dict(), train(parts).state_dict()
    assert len(plain.log) == 10
    assert parts.log == plain.log
    assert all(torch.equal(got[name], value) for name, value in expected.items())


def drawn_anew(step, batch_size, count, seed):
    """As the order is defined: a permutation of each epoch's own generator."""
    chosen = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        own = generator(seed, purposes.EPOCH, epoch)
        chosen.append(int(torch.randperm(count, generator=own)[place]))
    return chosen


@pytest.mark.parametrize(("batch_size", "count"), [(4, 10), (10, 10), (7, 3), (1, 5), (25, 10)])
def test_an_order_that_is_kept_is_the_order_drawn_anew(batch_size, count):
    for step in (0, 1, 2, 5, 1, 0):
        for seed in (0, 1):
            got = batch_indices(step, batch_size, count, seed)
            assert got.tolist() == drawn_anew(step, batch_size, count, seed)
            got.zero_()  # what is given is a copy


def test_an_epochs_order_is_made_once():
    epoch_order.cache_clear()
    for step in range(6):
        batch_indices(step, 5, 30, seed=9)
    assert epoch_order.cache_info().misses == 1
