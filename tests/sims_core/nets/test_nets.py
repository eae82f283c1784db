"""Networks: reproducible initialisation, and files that diffusers opens."""

import json

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file
from torch import nn

from sims_core.diffusion.denoiser import EDMDenoiser
from sims_core.nets.build import build_net, initialise
from sims_core.nets.config import AUGMENT_LABELS, MLPConfig, ModelConfig, UNetConfig
from sims_core.nets.saved import load_model, save_model
from sims_core.nets.unet import C_NOISE_SCALE

UNET = UNetConfig(block_out_channels=(8, 16), norm_num_groups=4, attention_levels=(1,))
CONFIGS = [MLPConfig(dim=3), UNET]
IDS = ["mlp", "unet"]


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def build(config, seed=1):
    net = build_net(config)
    initialise(net, seeded(seed))
    return net


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def example(config, count=4):
    shape = (3,) if isinstance(config, MLPConfig) else (1, 8, 8)
    x = torch.randn(count, *shape, generator=seeded(2))
    return x, torch.linspace(-1.5, 1.0, count)


def disturb(net):
    """Random weights in the last layer too, which initialise() sets to zero."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(9)))
    return net


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_initialisation_comes_from_its_generator_alone(config):
    torch.manual_seed(1)
    first = build_net(config)
    torch.manual_seed(2)
    second = build_net(config)
    assert not same_weights(first, second)  # torch's own weights do depend on the global state
    before = torch.get_rng_state()
    initialise(first, seeded())
    initialise(second, seeded())
    assert same_weights(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert not same_weights(first, build(config, seed=2))


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_every_random_parameter_is_drawn_anew(config):
    net = build_net(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(7.0)
    initialise(net, seeded())
    assert not any((parameter == 7.0).any() for parameter in net.parameters())


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_training_starts_at_a_zero_network(config):
    net = build(config)
    x, c_noise = example(config)
    assert torch.equal(net(x, c_noise), torch.zeros_like(x))
    # Only the last layer: the layers before it must have something to learn from.
    weights = [p for name, p in net.named_parameters() if name.endswith("weight") and p.dim() > 1]
    assert sum(int(p.abs().sum() == 0) for p in weights) == 1


def test_weights_have_torchs_default_spread():
    # Uniform in +-1/sqrt(fan_in): deviation 1/sqrt(3 fan_in); 9,216 draws know it to about 0.5 %.
    layer = nn.Sequential(nn.Linear(96, 96))
    initialise(layer, seeded())
    weight = layer[0].weight
    assert weight.abs().max().item() <= 96**-0.5
    assert weight.std().item() == pytest.approx((3 * 96) ** -0.5, rel=0.02)


def test_unknown_layer_is_refused():
    with pytest.raises(TypeError, match=r"1: PReLU"):
        initialise(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), seeded())


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_networks_tell_noise_levels_apart(config):
    net = disturb(build(config)).eval()
    x, _ = example(config, 2)
    with torch.no_grad():
        low, high = (net(x, torch.full((2,), c)) for c in (-1.5, -1.0))
    assert (low - high).abs().max() > 1e-3


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_round_trip(config, tmp_path):
    model = ModelConfig(net=config, sigma_data=0.3)
    denoiser = EDMDenoiser(disturb(build(config)), model.sigma_data).eval()
    save_model(denoiser, model, tmp_path)
    loaded, loaded_config = load_model(tmp_path)
    assert loaded_config == model
    assert same_weights(loaded.net, denoiser.net)
    assert loaded.sigma_data == 0.3
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    x, _ = example(config)
    assert torch.equal(loaded(x, torch.tensor(0.7)), denoiser(x, torch.tensor(0.7)))


def test_diffusers_opens_a_saved_unet(tmp_path):
    model = ModelConfig(net=UNET)
    denoiser = EDMDenoiser(disturb(build(UNET)), model.sigma_data).eval()
    save_model(denoiser, model, tmp_path)
    theirs = UNet2DModel.from_pretrained(tmp_path / "net").eval()
    x, c_noise = example(UNET)
    with torch.no_grad():
        expected = denoiser.net(x, c_noise)
        got = theirs(x, c_noise * C_NOISE_SCALE).sample
    assert expected.std() > 0.01
    # The same weights in another memory format: float32 rounding.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_labels_of_augmentation_count_in_training_only(tmp_path):
    """Sampled, and opened by diffusers, the network is as it is told of none."""
    config = UNET.model_copy(update={"augment_labels": True})
    net = disturb(build(config)).train()
    x, c_noise = example(config)
    own = torch.Generator().manual_seed(0)
    told = torch.randn(len(x), AUGMENT_LABELS, generator=own)
    with torch.no_grad():
        net.told.labels = told
        some = net(x, c_noise)
        net.told.labels = torch.zeros_like(told)
        none = net(x, c_noise)
        net.told.labels = told
        sampled = net.eval()(x, c_noise)
    assert (some - none).abs().max() > 1e-3
    assert torch.equal(none, sampled)
    model = ModelConfig(net=config)
    save_model(EDMDenoiser(net, model.sigma_data), model, tmp_path)
    loaded, _ = load_model(tmp_path)
    assert same_weights(loaded.net, net)
    theirs = UNet2DModel.from_pretrained(tmp_path / "net").eval()
    with torch.no_grad():
        got = theirs(x, c_noise * C_NOISE_SCALE).sample
    torch.testing.assert_close(got, sampled, rtol=1e-5, atol=5e-6)  # another memory format


def test_residual_blocks_keep_their_format_in_training_and_dropouts_drop():
    """diffusers' own mode gives the same values; only it copies."""
    net = build(UNET.model_copy(update={"block_out_channels": (8, 16)})).train()
    x, c_noise = example(UNET)
    disturb(net)
    got = net(x, c_noise)
    for module in net.unet.modules():
        module.training = True
    torch.testing.assert_close(net(x, c_noise), got, rtol=1e-5, atol=1e-6)
    dropping = build(UNET.model_copy(update={"dropout": 0.5})).train()
    with pytest.raises(RuntimeError, match="dropout needs one key"):
        dropping(x, c_noise)
    assert dropping.eval()(x, c_noise).shape == x.shape


def test_equal_models_are_equal_files(tmp_path):
    model = ModelConfig(net=UNET)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(EDMDenoiser(build(UNET), 0.5), model, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert json.loads((tmp_path / "a/model.json").read_text()) == model.model_dump(mode="json")
    weights = load_file(tmp_path / "a/net/diffusion_pytorch_model.safetensors")
    assert weights["conv_in.weight"].shape == (8, 1, 3, 3)
