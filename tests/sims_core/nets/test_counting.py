"""Parameters counted from a configuration are those that the built network has."""

from __future__ import annotations

from pkgutil import resolve_name

import pytest

from sims_core.nets.config import ExactGaussianConfig, MLPConfig, SongUNetConfig, UNetConfig
from sims_core.nets.counting import count_parameters


@pytest.mark.parametrize(
    "net",
    [
        UNetConfig(),
        UNetConfig(
            block_out_channels=(8, 16, 16),
            layers_per_block=2,
            attention_levels=(1,),
            channels=3,
            num_classes=10,
        ),
        UNetConfig(block_out_channels=(16,), num_classes=3, label_dropout=0.1, augment_labels=True),
        MLPConfig(replicates=3, hidden_layers=2),
        SongUNetConfig(image_size=8, channels=1, model_channels=8),
    ],
    ids=lambda net: net.kind,
)
def test_as_many_as_the_network_has(net):
    built = resolve_name(net.BUILT_BY)(net)
    assert count_parameters(net) == sum(each.numel() for each in built.parameters())


def test_of_a_model_without_parameters_nothing_is_said():
    assert count_parameters(ExactGaussianConfig()) is None
