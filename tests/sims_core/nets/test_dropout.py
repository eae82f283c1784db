"""Dropout: masks that are functions of (key, layer, place), with the right statistics."""

import pytest
import torch
from torch import nn

from sims_core.nets.dropout import DropoutKeys, SeededDropout, mixed, seed_dropouts


def keys(count, seed=0):
    low, high = -(2**31), 2**31
    own = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count,), dtype=torch.int32, generator=own)


def layer(p, number=0, count=128, seed=0):
    made = SeededDropout(p, number, DropoutKeys())
    made.shared.keys = keys(count, seed)
    return made


def dropped(made, count=128):
    return (made(torch.ones(count, 16, 16, 16)) == 0).float().flatten(1)


@pytest.mark.parametrize("p", [0.13, 0.5, 0.9])
def test_masks_drop_the_right_share_and_keep_the_mean(p):
    made = layer(p)
    mask = dropped(made)
    assert mask.mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / mask.numel()) ** 0.5)
    kept = made(torch.full((128, 4), 3.0))
    assert set(kept.unique().tolist()) <= {0.0, torch.tensor(3.0).div(1 - p).item()}


def test_masks_of_images_layers_and_places_are_independent():
    """Correlations of 4,096 independent draws have deviation 1/64; 8,128 pairs know it to 1 %."""
    mask = dropped(layer(0.5))
    upper = torch.triu_indices(128, 128, 1)
    pairs = torch.corrcoef(mask)[upper[0], upper[1]]
    assert pairs.std().item() * 64 == pytest.approx(1, abs=0.05)
    assert pairs.abs().max() * 64 < 6
    other = dropped(layer(0.5, number=1))
    assert abs(torch.corrcoef(torch.stack([mask.flatten(), other.flatten()]))[0, 1]) < 0.01
    places = mask.mean(0).std().item()  # each place's share over 128 images
    assert places == pytest.approx((0.25 / 128) ** 0.5, rel=0.05)
    by_image = mask.mean(1).std().item()
    assert by_image == pytest.approx((0.25 / 4096) ** 0.5, rel=0.3)


def test_the_hash_is_a_bijection():
    # Shifts that copy the sign would map two words to one, and none to a negative one.
    words = torch.cat([torch.arange(-(1 << 18), 1 << 18, dtype=torch.int32)])
    hashed = mixed(words)
    assert len(hashed.unique()) == len(words)
    assert (hashed < 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_mask_depends_on_its_images_key_alone():
    whole = layer(0.3, count=8)
    x = torch.ones(8, 3, 5)
    part = layer(0.3, count=8)
    part.shared.keys = whole.shared.keys[3:6]
    torch.manual_seed(99)
    assert torch.equal(part(x[3:6]), whole(x)[3:6])
    assert not torch.equal(layer(0.3, count=8, seed=1)(x), whole(x))


def test_evaluation_drops_nothing():
    x = torch.randn(4, 3)
    made = layer(0.5, count=4)
    assert made.eval()(x) is x
    with pytest.raises(RuntimeError, match="one key for each image"):
        layer(0.5, count=3)(x)


def test_every_dropout_is_replaced_and_numbered():
    net = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)))
    shared = seed_dropouts(net)
    layers = [m for m in net.modules() if isinstance(m, SeededDropout)]
    assert sorted((m.p, m.layer) for m in layers) == [(0.1, 0), (0.2, 1)]
    assert all(m.shared is shared for m in layers)
