"""EDM's augmentation: what is drawn, where pixels go, what the network is told."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sims_core.data.config import GaussianData
from sims_core.diffusion.noise import generator
from sims_core.nets.config import (
    AUGMENT_LABELS,
    BaseConfig,
    DiffusersUNetConfig,
    MLPConfig,
    ModelConfig,
    UNetConfig,
)
from sims_core.studies.experiment import Experiment
from sims_core.training.augmentation import augment, draw_augmentations
from sims_core.training.batches import draw_batch
from sims_core.training.config import TrainingConfig

SIZE = 64


def drawn(count, probability, seed=0):
    return draw_augmentations(count, probability, generator(seed, "augment"))


def forward_map(label):
    """The transformation that labels tell of, as (2 x 2 matrix, shift): written anew, in numpy."""
    mirror_x, mirror_y, scale, cos_1, sin, stretch_c, stretch_s, *shift = label.double().tolist()
    mirrored = np.diag([1 - 2 * mirror_x, 1 - 2 * mirror_y])
    scaled = 2 ** (0.2 * scale) * np.eye(2)
    turned = np.array([[cos_1 + 1, -sin], [sin, cos_1 + 1]])
    stretch = math.hypot(stretch_c, stretch_s)
    along = np.array([stretch_c, stretch_s]) / stretch if stretch else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    s = 2 ** (0.2 * stretch)
    stretched = s * np.outer(along, along) + np.outer(across, across) / s
    return stretched @ turned @ scaled @ mirrored, 2 * 0.125 * np.array(shift)


@given(seed=st.integers(0, 10_000))
def test_labels_tell_the_whole_transformation(seed):
    """A negative stretch along a direction is one along its opposite's perpendicular: the label's
    length is |w|, so the sign is in the direction only up to that; both give the same matrix."""
    affine, labels = drawn(8, 0.999, seed)
    for each, label in zip(affine.double().numpy(), labels, strict=True):
        linear, shift = forward_map(label)
        points = np.random.default_rng(seed).uniform(-1, 1, (2, 5))
        back = each[:, :2] @ (linear @ points + shift[:, None]) + each[:, 2:]
        inverse_stretch, _ = forward_map(_perpendicular(label))
        other = each[:, :2] @ (inverse_stretch @ points + shift[:, None]) + each[:, 2:]
        assert min(np.abs(back - points).max(), np.abs(other - points).max()) < 1e-4


def _perpendicular(label):
    """The labels of a stretch by 1/s along the same axis."""
    changed = label.clone()
    changed[5], changed[6] = -label[6], label[5]
    return changed


def test_each_kind_is_applied_with_its_probability():
    count, p = 20_000, 0.12
    _, labels = drawn(count, p)
    applied = (labels != 0).double().mean(0)
    # Standard deviation of a fraction: at most sqrt(0.25 / 20,000) = 0.0035.
    expected = [0.5, p / 2, p, p, p, p, p, p, p]
    assert applied.tolist() == pytest.approx(expected, abs=0.014)
    assert labels.shape == (count, AUGMENT_LABELS)
    chosen = labels[labels[:, 2] != 0][:, 2]
    assert chosen.std().item() == pytest.approx(1, abs=0.06)
    both = ((labels[:, 2] != 0) & (labels[:, 4] != 0)).double().mean().item()
    assert both == pytest.approx(p * p, abs=0.005)  # independent
    angles = torch.atan2(labels[:, 4], labels[:, 3] + 1)[labels[:, 4] != 0]
    assert angles.std().item() == pytest.approx(math.pi / math.sqrt(3), abs=0.12)
    assert torch.equal(labels[:, 7] != 0, labels[:, 8] != 0)  # shifted in both or in none


def smooth(points):
    """An image without symmetry, at points [..., 2] of -1..1."""
    x, y = points[..., 0], points[..., 1]
    return torch.exp(-4 * ((x - 0.3) ** 2 + (y + 0.15) ** 2)) - 0.5 * torch.exp(
        -6 * ((x + 0.25) ** 2 + (y - 0.2) ** 2)
    )


def centres(size=SIZE):
    at = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], dim=-1)


def test_pixels_come_from_where_the_matrix_says():
    """Of a smooth image between -0.5 and 1; torch's bicubic kernel is off by up to 0.006 there."""
    affine, _ = drawn(40, 0.6, seed=3)
    images = smooth(centres()).expand(40, 2, SIZE, SIZE).clone()
    images[:, 1] *= -1
    got = augment(images, affine)
    moved = affine[:, None, None, :, 2]
    source = torch.einsum("nij,hwj->nhwi", affine[:, :, :2], centres()) + moved
    inside = (source.abs() < 0.95).all(-1)
    assert inside.double().mean() > 0.6
    difference = (got[:, 0] - smooth(source)).abs()
    assert difference[inside].max() < 0.01
    assert difference[inside].mean() < 2e-3
    assert torch.allclose(got[:, 1], -got[:, 0], atol=1e-6)
    assert (got - images).abs().max() > 0.5


def test_mirrors_are_exact_and_others_are_left_alone():
    affine, labels = drawn(60, 0.0, seed=1)
    images = torch.rand(60, 3, 16, 16, generator=generator(0)) * 2 - 1
    got = augment(images, affine)
    mirrored = labels[:, 0] == 1
    assert 15 < mirrored.sum() < 45
    assert (labels[:, 1:] == 0).all()
    assert torch.equal(got[~mirrored], images[~mirrored])
    torch.testing.assert_close(got[mirrored], images[mirrored].flip(-1), rtol=0, atol=1e-5)


def test_beyond_its_edges_an_image_is_mirrored():
    shifted = torch.tensor([[[1.0, 0.0, -0.5], [0.0, 1.0, 0.0]]])  # to the right, by a quarter
    image = torch.arange(8.0).expand(1, 1, 8, 8)
    assert augment(image, shifted)[0, 0, 3].tolist() == pytest.approx(
        [1, 0, 0, 1, 2, 3, 4, 5], abs=0.2
    )


def test_a_batchs_augmentation_is_a_function_of_seed_and_step():
    data = torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8, generator=generator(0))
    recipe = TrainingConfig(batch_size=8, augment=0.3)
    batch = draw_batch(data, None, recipe, seed=5, step=2)
    again = draw_batch(data, None, recipe, seed=5, step=2)
    other = draw_batch(data, None, recipe, seed=5, step=3)
    plain = draw_batch(data, None, TrainingConfig(batch_size=8), seed=5, step=2)
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.affine, other.affine)
    assert torch.equal(batch.noise, plain.noise)  # which the other draws leave alone
    parts = list(batch.micro_batches(3))
    assert torch.equal(torch.cat([part.augment_labels for part in parts]), batch.augment_labels)
    torch.testing.assert_close(
        torch.cat([part.images for part in parts]), batch.images, rtol=0, atol=1e-5
    )
    told = draw_batch(data, None, TrainingConfig(batch_size=8), 5, 2, with_augment_labels=True)
    assert told.affine is None
    assert torch.equal(told.augment_labels, torch.zeros(8, AUGMENT_LABELS))


NET = UNetConfig(augment_labels=True)
RECIPE = TrainingConfig(augment=0.12)


def test_a_network_that_is_told_may_be_augmented_for():
    Experiment(model=ModelConfig(net=NET), training=RECIPE)
    Experiment(model=ModelConfig(net=NET), training=RECIPE, sims={"auxiliary_net": NET})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"set model\.net\.augment_labels=true or training\.augment=0"),
        (
            {"model": ModelConfig(net=NET), "sims": {"auxiliary_net": UNetConfig()}},
            r"sims\.auxiliary_net is not: set sims\.auxiliary_net\.augment_labels=true",
        ),
        (
            {"data": GaussianData(), "model": ModelConfig(net=MLPConfig())},
            r"model\.net is not: set training\.augment=0",
        ),
    ],
)
def test_one_that_is_not_is_refused(changes, message):
    config = {"training": RECIPE, **changes}
    with pytest.raises(ValidationError, match=message):
        Experiment.model_validate(config)


def test_an_imported_base_is_fine_tuned_as_it_can_be():
    theirs = ModelConfig(net=DiffusersUNetConfig(image_size=8, channels=1, config={}))
    base = BaseConfig(imported="mine")
    fine_tuned = Experiment(model=theirs, base=base, training=RECIPE).sims
    assert fine_tuned.auxiliary_training(RECIPE, theirs.net).augment == 0
    assert fine_tuned.auxiliary_training(RECIPE, NET).augment == 0.12
    other = Experiment(model=theirs, base=base, training=RECIPE, sims={"auxiliary_net": NET}).sims
    assert other.auxiliary_training(RECIPE, other.auxiliary_net).augment == 0.12
