"""Shapes, sizes and options of EDM's and EDM2's networks."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sims_core.nets.edm_config import ADMConfig, EDM2Config, EDMNet, SongUNetConfig, edm_net_config
from sims_core.nets.edm_networks import build_edm_network
from sims_core.nets.edm_pickles import read_network_pickle

PUBLISHED: dict[str, tuple[EDMNet, float]] = {
    # EDM's: DDPM++ with augmentation, ADM with ImageNet's classes.
    "cifar10-ddpmpp": (
        SongUNetConfig(image_size=32, channels=3, channel_mult=(2, 2, 2), augment_dim=9), 55.7
    ),
    "ffhq64-ddpmpp": (SongUNetConfig(image_size=64, channels=3, augment_dim=9), 61.8),
    "imagenet64-adm": (ADMConfig(image_size=64, channels=3, num_classes=1000), 295.9),
    # EDM2's, of ImageNet-512's latents.
    "edm2-xs": (
        EDM2Config(image_size=64, channels=4, num_classes=1000, model_channels=128), 124.7
    ),
    "edm2-s": (EDM2Config(image_size=64, channels=4, num_classes=1000), 280.2),
    "edm2-xxl": (
        EDM2Config(image_size=64, channels=4, num_classes=1000, model_channels=448), 1523.2
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_published_size(name: str) -> None:
    config, millions = PUBLISHED[name]
    net = build_edm_network(config, device="meta")
    assert sum(parameter.numel() for parameter in net.parameters()) == config.parameters
    assert round(config.parameters / 1e6, 1) == millions


@pytest.mark.parametrize(
    "name",
    [
        "cifar10-ddpmpp",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("ffhq64-ddpmpp", "imagenet64-adm", "edm2-xs", "edm2-s")
        ),
    ],
)
@torch.no_grad()
def test_published_networks_run_on_a_processor(name: str) -> None:
    config, _ = PUBLISHED[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    net = build_edm_network(config).eval()
    x = torch.randn(1, config.channels, config.image_size, config.image_size)
    assert net(x, torch.zeros(1)).shape == x.shape
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < 4 * config.parameters + 2**30


def song_variants() -> Iterator[SongUNetConfig]:
    """Every combination of DDPM++'s and NCSN++'s choices."""
    choices = itertools.product(
        ("positional", "fourier"),
        ("standard", "skip", "residual"),
        ("standard", "skip"),
        ((1, 1), (1, 3, 3, 1)),
        (0, 3),
        (0, 9),
    )
    for embedding, encoder, decoder, taps, classes, augment in choices:
        yield SongUNetConfig(
            image_size=8, channels=2, model_channels=4, channel_mult=(1, 3, 2), num_blocks=1,
            attn_resolutions=(8, 2), embedding_type=embedding, encoder_type=encoder,
            decoder_type=decoder, resample_filter=taps, num_classes=classes, augment_dim=augment,
            label_dropout=0.5 if classes else 0, channel_mult_noise=2, dropout=0.2,
        )  # fmt: skip


OTHERS: tuple[EDMNet, ...] = (
    SongUNetConfig(image_size=8, channels=1, model_channels=4, channel_mult=(2,), num_blocks=3,
                   out_channels=5, channel_mult_emb=2, attn_resolutions=()),
    SongUNetConfig(image_size=16, channels=3, model_channels=4, channel_mult=(1, 1, 1, 1, 1),
                   num_blocks=2, resample_filter=(1, 4, 6, 6, 4, 1), encoder_type="residual",
                   decoder_type="skip", attn_resolutions=(1, 2, 8)),
    ADMConfig(image_size=8, channels=3, model_channels=64, channel_mult=(1, 2), num_blocks=1,
              attn_resolutions=(8, 4)),
    ADMConfig(image_size=8, channels=3, model_channels=8, channel_mult=(2, 1, 4), num_blocks=2,
              attn_resolutions=(8,), num_classes=5, augment_dim=9, label_dropout=1.0),
    ADMConfig(image_size=12, channels=3, model_channels=4, channel_mult=(1, 3), num_blocks=1,
              out_channels=6, channel_mult_emb=1),
    EDM2Config(image_size=16, channels=4, model_channels=8, channel_mult=(1, 2, 3), num_blocks=2,
               channels_per_head=8, attn_resolutions=(16, 8), num_classes=4, dropout=0.1),
    EDM2Config(image_size=8, channels=3, model_channels=6, channel_mult=(2, 1), num_blocks=1,
               resample_filter=(1, 3, 3, 1), clip_act=None, channel_mult_noise=3,
               channel_mult_emb=2, label_balance=0.2, concat_balance=0.7, res_balance=0.1,
               attn_balance=0.6, channels_per_head=3, attn_resolutions=(8,), logvar_channels=5),
    EDM2Config(image_size=4, channels=1, model_channels=8, channel_mult=(1,), num_blocks=1),
)  # fmt: skip
VARIANTS = (*song_variants(), *OTHERS)


def is_in_the_fraction(config: EDMNet) -> bool:
    """Whether it is among the 24 of 96 that have every pair of the other choices with each encoder:
    a fraction of resolution III of the five choices of two."""
    if not isinstance(config, SongUNetConfig) or config in OTHERS:
        return True
    embedding = config.embedding_type == "fourier"
    decoder, taps = config.decoder_type == "skip", config.resample_filter == (1, 1)
    told = bool(config.augment_dim)
    return bool(config.num_classes) == (embedding ^ decoder) and told == (embedding ^ taps)


def test_the_fraction_has_every_pair_of_choices_with_each_encoder() -> None:
    quick = [each for each in song_variants() if is_in_the_fraction(each)]
    assert len(quick) == 24
    names = ("embedding_type", "decoder_type", "resample_filter", "num_classes", "augment_dim")
    for pair in itertools.combinations(names, 2):
        found = {tuple(getattr(each, n) for n in ("encoder_type", *pair)) for each in quick}
        assert len(found) == 12


def inputs(config: EDMNet) -> tuple[Tensor, Tensor, Tensor | None]:
    """Three noisy images, their noise levels and classes."""
    generator = torch.Generator().manual_seed(1)
    size = config.image_size
    x = torch.randn(3, config.channels, size, size, generator=generator)
    labels = torch.arange(3) % config.num_classes if config.num_classes else None
    return x, torch.tensor([-1.0, 0.1, 0.7]), labels


def prepare(net: Any, config: EDMNet, seed: int = 0) -> None:
    """What training tells a network of each batch."""
    net.dropout.keys = torch.arange(seed, seed + 3, dtype=torch.int32)
    if getattr(config, "augment_dim", 0):
        generator = torch.Generator().manual_seed(2)
        net.told.labels = torch.randn(3, config.augment_dim, generator=generator)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(each, id=str(n), marks=() if is_in_the_fraction(each) else pytest.mark.slow)
        for n, each in enumerate(VARIANTS)
    ],
)
def test_every_choice_builds_runs_trains_and_is_counted(config: EDMNet, random_net: Any) -> None:
    net = random_net(config)
    assert sum(parameter.numel() for parameter in net.parameters()) == config.parameters
    x, c_noise, labels = inputs(config)
    outputs = config.channels if isinstance(config, EDM2Config) else config.outputs
    net.eval()
    first = net(x, c_noise, labels)
    assert first.shape == (3, outputs, config.image_size, config.image_size)
    assert torch.equal(first, net(x, c_noise, labels))
    each = [slice(i, i + 1) for i in range(3)]
    alone = torch.cat([net(x[i], c_noise[i], None if labels is None else labels[i]) for i in each])
    torch.testing.assert_close(
        first, alone, rtol=1e-4, atol=1e-4 * float(first.detach().abs().max())
    )

    net.train()
    prepare(net, config)
    trained = net(x, c_noise, labels)
    loss = trained.square().mean()
    if isinstance(config, EDM2Config):
        loss = loss + net.log_variance(c_noise).mean()
    loss.backward()
    hidden = getattr(config, "label_dropout", 0) == 1
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        reached = bool(parameter.grad.abs().sum() > 0)
        assert reached != (hidden and name.startswith("map_label")), name
    # Forced weight normalisation is not idempotent to the last digit.
    tolerance = 2e-3 if isinstance(config, EDM2Config) else 0.0
    torch.testing.assert_close(net(x, c_noise, labels), trained, rtol=tolerance, atol=tolerance)


IN_DENOISERS = [
    config
    for config in (*VARIANTS[:96:9], *OTHERS)
    if isinstance(config, EDM2Config) or config.outputs == config.channels
]


@pytest.mark.parametrize("config", IN_DENOISERS, ids=range(len(IN_DENOISERS)))
def test_every_choice_comes_back_from_a_pickle(
    config: EDMNet, random_net: Any, checkpoint_of: Any, write: Any
) -> None:
    net = random_net(config)
    denoiser = "Precond" if isinstance(config, EDM2Config) else "EDMPrecond"
    found = read_network_pickle(write(checkpoint_of(net, denoiser)))
    again = build_edm_network(found.net)
    again.load_state_dict(found.weights)
    x, c_noise, labels = inputs(config)
    assert torch.equal(again.eval()(x, c_noise, labels), net.eval()(x, c_noise, labels))


@pytest.mark.parametrize("config", [VARIANTS[3], OTHERS[3], OTHERS[5]], ids=["song", "adm", "edm2"])
def test_training_draws_of_the_keys_alone(config: EDMNet, random_net: Any) -> None:
    net = random_net(config.model_copy(update={"dropout": 0.4}))
    x, c_noise, labels = inputs(config)
    net.train()
    prepare(net, config, seed=0)
    first = net(x, c_noise, labels)
    prepare(net, config, seed=7)
    assert not torch.equal(first, net(x, c_noise, labels))
    prepare(net, config, seed=0)
    torch.manual_seed(99)
    tolerance = 2e-3 if isinstance(config, EDM2Config) else 0.0
    torch.testing.assert_close(first, net(x, c_noise, labels), rtol=tolerance, atol=tolerance)


def test_label_dropout_hides_whole_classes(random_net: Any) -> None:
    config = SongUNetConfig(
        image_size=8, channels=1, num_classes=3, label_dropout=0.3, dropout=0.0,
        model_channels=4, channel_mult=(1,), num_blocks=1,
    )  # fmt: skip
    net = random_net(config).train()
    count = 2000
    rows = torch.eye(3)[torch.arange(count) % 3]
    net.dropout.keys = torch.arange(count, dtype=torch.int32)
    kept = net.label_dropout(rows)
    hidden = kept.sum(dim=1) == 0
    assert torch.equal(kept[~hidden], rows[~hidden])
    assert abs(float(hidden.float().mean()) - 0.3) < 4 * (0.21 / count) ** 0.5
    assert torch.equal(net.eval().label_dropout(rows), rows)


@pytest.mark.parametrize("config", [VARIANTS[1], OTHERS[3]], ids=["song", "adm"])
def test_augmentation_labels_count_in_training_alone(config: EDMNet, random_net: Any) -> None:
    config = config.model_copy(update={"augment_dim": 9, "dropout": 0.0, "label_dropout": 0.0})
    net = random_net(config)
    x, c_noise, labels = inputs(config)
    sampled = net.eval()(x, c_noise, labels)
    net.train().dropout.keys = torch.arange(3, dtype=torch.int32)
    net.told.labels = torch.zeros(3, 9)
    untouched = net(x, c_noise, labels)
    net.told.labels = torch.ones(3, 9)
    told = net(x, c_noise, labels)
    torch.testing.assert_close(untouched, sampled)
    assert not torch.allclose(told, sampled, rtol=1e-2)
    assert torch.equal(net.eval()(x, c_noise, labels), sampled)


@pytest.mark.parametrize("config", [VARIANTS[0], *OTHERS[:1]], ids=["conditional", "without"])
def test_labels_of_the_wrong_form_are_errors(config: EDMNet, random_net: Any) -> None:
    net = random_net(config).eval()
    x, c_noise, _ = inputs(config)
    with pytest.raises(ValueError, match="class labels"):
        net(x, c_noise, torch.zeros(3, 77))


@pytest.mark.parametrize(
    "config", [VARIANTS[-9], OTHERS[3], OTHERS[6]], ids=["song", "adm", "edm2"]
)
def test_initial_weights_are_those_of_the_generator(config: EDMNet) -> None:
    states = []
    for seed in (1, 1, 2):
        net = build_edm_network(config)
        net.initialise(torch.Generator().manual_seed(seed))
        states.append(net.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_networks_start_almost_silent() -> None:
    for config in (VARIANTS[0], OTHERS[3], OTHERS[6]):
        net = build_edm_network(config)
        net.initialise(torch.Generator().manual_seed(0))
        x, c_noise, labels = inputs(config)
        assert float(net.eval()(x, c_noise, labels).detach().abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_channels": 16384, "channel_mult": (64, 64)}, "larger than"),
        ({"model_channels": 6}, "normalised in groups"),
        ({"model_channels": 132}, "132 channels cannot be normalised"),
        ({"image_size": 12, "channel_mult": (1, 1, 1, 1)}, "cannot be halved 3 times"),
        ({"resample_filter": (1, 2, 1)}, "even number"),
        ({"resample_filter": (1, -1)}, "whose sum is not 0"),
        ({"num_blocks": 65}, "num_blocks"),
        ({"channel_mult": (1,) * 11}, "channel_mult"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"image_size": 8192}, "image_size"),
        ({"num_classes": 10**7}, "num_classes"),
        ({"dropout": 1.0}, "dropout"),
        ({"kind": "adm", "model_channels": 224, "attn_resolutions": (16,)}, "attention heads"),
        ({"kind": "edm2", "model_channels": 224, "attn_resolutions": (16,)}, "attention heads"),
        ({"kind": "edm3"}, "kind"),
        ({"novel": 1}, "novel"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(fields: dict[str, Any], message: str) -> None:
    plain = {"kind": "song", "image_size": 16, "channels": 3, "channel_mult": (1, 2)}
    with pytest.raises(ValidationError, match=message):
        edm_net_config(plain | fields)


def test_configurations_come_back_from_json() -> None:
    for config in VARIANTS:
        assert edm_net_config(config.model_dump(mode="json")) == config


def test_forward_needs_no_gradient_memory_in_sampling(random_net: Any) -> None:
    net: nn.Module = random_net(OTHERS[5]).eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x, c_noise, labels = inputs(OTHERS[5])
    assert not net(x, c_noise, labels).requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
