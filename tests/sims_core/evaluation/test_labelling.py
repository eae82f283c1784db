"""Halves for two classifiers, and shares of labelled samples with their intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sims_core.data.groups import GroupMix
from sims_core.data.reweighing import write_labels
from sims_core.engine.execution import Execution
from sims_core.engine.stage import StageContext, no_progress
from sims_core.evaluation.classifier import members_of
from sims_core.evaluation.config import Half, SharesConfig
from sims_core.evaluation.labelling import shares
from sims_core.store.artifacts import ArtifactRef


class OneArtifact:
    """A store that has only the labels."""

    def __init__(self, folder):
        self.folder = folder

    def open_artifact(self, ref):
        return self.folder


@pytest.fixture
def measured(tmp_path):
    """The figures of labels, by shares of the odd ones."""

    def measure(labels, odd):
        write_labels(tmp_path, np.array(labels))
        config = SharesConfig(
            names=("odd", "even"),
            target=GroupMix(groups=((1, 3), (0, 2)), shares=(odd, 1 - odd)),
        )
        ref = ArtifactRef(kind="labels", digest="0" * 64)
        folders = {"directory": tmp_path, "state": tmp_path}
        context = StageContext(
            **{"stage": "shares", "config": config, "inputs": {"labels": ref}},
            **{"store": OneArtifact(tmp_path), "execution": Execution(), "progress": no_progress},
            **folders,
        )
        found = shares(context)
        assert json.loads((tmp_path / "metrics.json").read_text()) == found
        return found

    return measure


@pytest.mark.parametrize("count", [1797, 1000])
def test_halves_are_apart_and_are_all(count):
    first, second = (members_of(Half(number=n, seed=3), count) for n in (0, 1))
    assert (first ^ second).all()
    assert first.sum() == -(-count // 2)
    assert (first != members_of(Half(number=0, seed=4), count)).any()


def test_shares_of_images_have_wilsons_interval(measured):
    found = measured([1] * 30 + [3] * 10 + [0] * 50 + [2] * 10, odd=0.7)
    p, n, z = 0.4, 100, 1.959963984540054
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found["share_odd"] == p
    assert found["share_odd_low"] == pytest.approx(middle - reach, rel=1e-9)
    assert found["share_odd_high"] == pytest.approx(middle + reach, rel=1e-9)
    assert found["share_even"] == 0.6
    assert found["tv"] == pytest.approx(0.3)
    assert found["acceptance_least"] == pytest.approx(0.4 / 0.7)
    assert found["n_labelled"] == 100


def test_shares_of_points_are_means_over_replicates(measured):
    found = measured([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], odd=0.5)
    assert found["share_odd"] == pytest.approx(0.5)
    assert found["share_odd_low"] < 0.5 < found["share_odd_high"]
    assert found["tv"] == pytest.approx((0 + 0.25 + 0.25) / 3), "a replicate's own, not the mean's"
    assert found["acceptance_least"] == pytest.approx(0.5)
    assert found["n_labelled"] == 4
