"""Precision and recall are torch-fidelity's, to the last image."""

import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from sims_core import precision_recall
from sims_core.precision_recall import precision_and_recall


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(300, 200), (64, 333), (4, 5)])
@pytest.mark.parametrize("dim", [3, 40])
@pytest.mark.parametrize("block", [1, 7, 64, 512])
def test_as_torch_fidelity_counts(n, m, dim, block, monkeypatch):
    monkeypatch.setattr(precision_recall, "BLOCK", block)
    generated, real = randn(n, dim, seed=0), 1.3 * randn(m, dim, seed=1) + 0.2
    got = precision_and_recall(generated, real, neighborhood=3)
    assert got == pytest.approx(calculate_precision_recall_full(generated, real, 3), abs=1e-7)
    if n > 4:
        assert 0 < got[0] < 1
        assert 0 < got[1] < 1
        assert got[0] != got[1]


def test_neighbours_do_not_count_the_point_itself():
    """On a line, by hand: with one neighbour the balls of 0, 1, 3 reach 1, 1, 2 far."""
    generated, real = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[-2.0], [1.5], [5.5]])
    # of the real ones 1.5 alone lies in a ball; their own radii are 3.5, 3.5, 4
    assert precision_and_recall(generated, real, neighborhood=1) == (1, 1 / 3)
