"""EDM's and EDM2's networks as this project's models: stored, trained, sampled."""

from __future__ import annotations

import math
import os
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.common.frozen import WHOLE
from sims_core.diffusion.config import NoiseSchedule, SamplerConfig
from sims_core.diffusion.ddpm import noise_levels
from sims_core.diffusion.sampler import make_sampler
from sims_core.engine.execution import DataFiles, Execution
from sims_core.nets.build import build_net, initialise, make_denoiser, round_to_known
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.nets.edm_config import ADMConfig, EDM2Config, SongUNetConfig
from sims_core.nets.importing import find_model_source
from sims_core.nets.losses import loss_weight, model_loss
from sims_core.nets.preconditioning import iddpm_levels, precondition
from sims_core.nets.preconditioning_config import (
    EDM2Loss,
    EDM2Preconditioning,
    EDMLoss,
    EDMPreconditioning,
    IDDPMPreconditioning,
    VELoss,
    VEPreconditioning,
    VPLoss,
    VPPreconditioning,
)
from sims_core.nets.saved import load_model, save_model
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.sampling.images import load_for_sampling
from sims_core.training.config import TrainingConfig
from sims_core.training.trainer import Training, train

SONG = SongUNetConfig(
    image_size=8, channels=3, model_channels=8, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), augment_dim=9, num_classes=3, label_dropout=0.2,
)  # fmt: skip
ADM = ADMConfig(
    image_size=8, channels=3, model_channels=8, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(), num_classes=3,
)  # fmt: skip
EDM2 = EDM2Config(
    image_size=8, channels=3, model_channels=8, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), channels_per_head=8, num_classes=3, logvar_channels=8,
)  # fmt: skip
NETS = [SONG, ADM, EDM2]
PRECONDITIONINGS = [
    EDMPreconditioning(sigma_min=0.01, sigma_max=50),
    EDM2Preconditioning(),
    VPPreconditioning(),
    VEPreconditioning(),
    IDDPMPreconditioning(),
]


def kinds(configs):
    return [config.kind for config in configs]


def test_imported_into_a_store_a_checkpoint_answers_as_the_original(
    store, edm_folder, canary, edm_checkpoint
):
    path = edm_folder / f"{edm_checkpoint}.pkl"
    request = IMPORT_MODEL.request(find_model_source(path).imported)
    ref = run_stage(store, request, Execution(files=DataFiles(imported=path)))
    answers = load_file(edm_folder / f"{edm_checkpoint}.answers.safetensors")
    denoiser, model = load_model(store.open_artifact(ref))

    def error(denoiser):
        labels = answers.get("class_labels")
        found = denoiser(answers["x"], answers["sigma"], labels)
        missed = (found - answers["denoised"]).flatten(1).norm(dim=1)
        return float((missed / answers["denoised"].flatten(1).norm(dim=1)).max())

    assert error(denoiser) < 1e-5
    half, _ = load_for_sampling(store.open_artifact(ref), Execution(), "bf16")
    assert 1e-5 < error(half) < 0.1  # 8 bits, through a network with random weights
    assert not canary.exists()
    details = store.manifest(ref).details
    assert details["parameters"] == model.net.parameters
    assert details["file"]["widened"] is False


def test_models_without_the_new_fields_have_the_json_that_they_had():
    plain = ModelConfig(net=UNetConfig())
    assert list(plain.model_dump(mode="json")) == ["net", "sigma_data", "schedule"]
    whole = plain.model_dump(mode="json", context={WHOLE: True})
    assert list(whole) == ["net", "sigma_data", "schedule", "preconditioning", "loss"]
    assert ModelConfig.model_validate(whole) == plain


@pytest.mark.parametrize("net", NETS, ids=kinds(NETS))
def test_a_model_is_read_as_it_was_written(net, tmp_path):
    config = ModelConfig(net=net)
    torch_net = build_net(net)
    initialise(torch_net, torch.Generator().manual_seed(1))
    denoiser = make_denoiser(torch_net, config).eval()
    with torch.no_grad():
        for parameter in torch_net.parameters():
            parameter.add_(0.1)
    save_model(denoiser, config, tmp_path)
    again, found = load_model(tmp_path)
    assert found == config
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    assert torch.equal(again(x, torch.tensor(0.5), labels), denoiser(x, torch.tensor(0.5), labels))


@pytest.mark.parametrize("net", NETS, ids=kinds(NETS))
def test_initial_weights_depend_on_the_generator_alone(net):
    states = []
    for seed in (3, 3, 4):
        built = build_net(net)
        initialise(built, torch.Generator().manual_seed(seed))
        states.append(built.state_dict())
    first, same, other = states
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("net", NETS, ids=kinds(NETS))
def test_training_from_scratch_learns(net):
    """The loss of a constant image falls, with dropout, hidden classes and augmentation told."""
    images = torch.zeros(32, 3, 8, 8)
    images[:, 0] = 0.8
    told = 0.1 if net.is_told_of_augmentation else 0
    rate = 0.05 if net.kind == "edm2" else 5e-3  # weights of unit magnitude turn slowly
    recipe = TrainingConfig(kimg=0.4, batch_size=8, learning_rate=rate, augment=told)
    labels = torch.arange(32) % 3
    training = Training(ModelConfig(net=net), recipe, images, seed=0, labels=labels)
    train(training)
    losses = [loss for _, loss in training.log]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_edm2s_weights_have_unit_magnitude_in_every_step():
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
    recipe = TrainingConfig(kimg=1, batch_size=8, learning_rate=0.05)
    training = Training(
        ModelConfig(net=EDM2), recipe, images, seed=0, labels=torch.zeros(16, dtype=torch.long)
    )
    layer = training.denoiser.net.out_conv
    for _ in range(3):
        training.advance()
    drifted = layer.weight.detach().square().mean(dim=(1, 2, 3)).sqrt()
    assert (drifted - 1).abs().max() > 1e-3  # an optimiser's step changes the magnitude
    used = []
    hook = layer.register_forward_hook(
        lambda module, *_: used.append(module.weight.detach().square().mean(dim=(1, 2, 3)).sqrt())
    )
    training.advance()
    hook.remove()
    assert torch.allclose(used[0], torch.ones_like(used[0]), atol=1e-3)


def test_what_a_model_is_trained_with():
    def of(**fields):
        return model_loss(ModelConfig(**{"net": SONG, **fields}), -0.7, 0.9)

    assert of() is None
    assert of(net=EDM2) == EDM2Loss(P_mean=-0.7, P_std=0.9)
    assert of(preconditioning={"kind": "vp"}) == VPLoss()
    assert of(preconditioning={"kind": "ve"}) == VELoss()
    own = EDMLoss(P_mean=-2, P_std=0.1)
    assert of(loss=own) == own


def test_a_training_draws_its_losss_noise_and_weights():
    """Of VE: ln(sigma) is uniform between its ends, and errors count as 1 / sigma^2."""
    model = ModelConfig(net=SONG, preconditioning={"kind": "ve"})
    recipe = TrainingConfig(kimg=2, batch_size=1000)
    images = torch.zeros(1000, 3, 8, 8)
    labels = torch.zeros(1000, dtype=torch.long)
    training = Training(model, recipe, images, seed=0, labels=labels)
    batch = training._next_batch()
    levels = (batch.sigma / 0.02).log() / math.log(100 / 0.02)
    assert levels.min() >= 0
    assert levels.max() <= 1
    assert levels.sort().values == pytest.approx((torch.arange(1000) + 0.5) / 1000, abs=0.06)
    small = batch.map(lambda part: part[:4])
    training.denoiser.eval()
    training._prepared.eval()
    noisy = small.images + small.sigma.view(-1, 1, 1, 1) * small.noise
    error = training.denoiser(noisy, small.sigma, small.labels) - small.images
    wanted = (error**2).mean(dim=(1, 2, 3)) * loss_weight(VELoss(), small.sigma)
    assert float(training._loss(small).detach()) == pytest.approx(
        float(wanted.mean().detach()), rel=1e-5
    )


@pytest.mark.parametrize("config", PRECONDITIONINGS, ids=kinds(PRECONDITIONINGS))
def test_the_range_of_noise_levels_is_the_denoisers(config):
    denoiser = precondition(torch.nn.Identity(), config)
    low, high = config.sigma_range
    # iDDPM's own table is made step by step in float32: off by a thousandth at its least level.
    assert low == pytest.approx(denoiser.sigma_min, rel=2e-3)
    assert high == pytest.approx(denoiser.sigma_max, rel=1e-4)


@pytest.mark.parametrize(
    "beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_the_largest_level_of_a_schedule_is_its_tables(beta_schedule, zero_snr):
    schedule = NoiseSchedule(
        prediction_type="v_prediction",  # epsilon has no zero terminal SNR
        beta_schedule=beta_schedule,
        rescale_betas_zero_snr=zero_snr,
        num_train_timesteps=400,
    )
    levels = noise_levels(schedule)
    wanted = float(levels[levels.isfinite()][-1])
    assert schedule.sigma_max == pytest.approx(wanted, rel=1e-2 if zero_snr else 1e-3)


def test_a_sampler_is_kept_within_what_the_network_knows():
    sampler = SamplerConfig()

    def ends(**fields):
        found = ModelConfig(**{"net": SONG, **fields}).sampler_for(sampler)
        return found.sigma_min, found.sigma_max

    assert ends() == (0.002, 80)
    assert ends(preconditioning={"kind": "ve"}) == (0.02, 80)
    assert ends(preconditioning={"kind": "ve", "sigma_max": 50}) == (0.02, 50)
    stable_diffusion = {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012}
    low, high = ends(net=UNetConfig(), schedule=stable_diffusion)
    assert (low, high) == (0.002, pytest.approx(14.6146, rel=1e-4))
    with pytest.raises(ValueError, match="beyond those"):
        ends(preconditioning={"kind": "ve", "sigma_min": 90})


def test_a_sampler_for_iddpm_steps_through_levels_that_it_knows():
    net = SONG.model_copy(update={"out_channels": 6})
    model = ModelConfig(net=net, preconditioning={"kind": "iddpm", "M": 50})
    asked = []

    def denoiser(x, sigma, labels=None):
        asked.append(float(sigma))
        return torch.zeros_like(x)

    sampler = model.sampler_for(SamplerConfig(num_steps=5))
    make_sampler(sampler, round_to_known(model))(denoiser, torch.ones(1, 3, 8, 8))
    levels = iddpm_levels(0.001, 0.008, 50)
    assert all(float((levels - sigma).abs().min()) < 1e-6 for sigma in asked)
    assert asked[0] == pytest.approx(float(levels[(levels - 80).abs().argmin()]))
    assert all(a >= b for a, b in pairwise(asked))
    assert len(set(asked)) > 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": EDM2, "preconditioning": {"kind": "vp"}}, "edm2 network cannot be preconditioned"),
        ({"net": SONG, "preconditioning": {"kind": "edm2"}}, "song network cannot be precond"),
        ({"net": SONG, "loss": {"kind": "edm2"}}, r"carries u\(sigma\)"),
        ({"net": SONG, "preconditioning": {"kind": "iddpm"}}, "out_channels is 3, .* wants 6"),
        ({"preconditioning": {"kind": "ve"}, "schedule": {}}, "not both"),
        ({"net": SONG, "sigma_data": 0.6, "preconditioning": {"kind": "edm"}}, "must be equal"),
        ({"net": {"kind": "mlp"}, "preconditioning": {"kind": "ve"}}, "of image networks"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(fields)


def test_pipes_devices_and_nothing_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    (tmp_path / "endless.pkl").symlink_to("/dev/zero")
    (tmp_path / "circle.pkl").symlink_to(tmp_path / "circle.pkl")
    for name in ("pipe.pkl", "endless.pkl", "circle.pkl", "nothing.pkl"):
        with pytest.raises(BadInput, match="is no folder and no regular file"):
            find_model_source(tmp_path / name)
    (tmp_path / "folder.pkl").mkdir()
    with pytest.raises(BadInput, match="save_pretrained"):
        find_model_source(tmp_path / "folder.pkl")
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(BadInput, match="cannot be read"):
        find_model_source(tmp_path / "empty.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": 1, "optimizer_state": {}}, "training state"),
        ({"G": 1}, "no averaged network 'ema'"),
    ],
)
def test_other_files_are_said_what_they_are(write, content, message):
    with pytest.raises(BadInput, match=message):
        find_model_source(write(content))


def test_a_training_state_of_torch_save_is_said_to_be_one(tmp_path):
    torch.save({"net": torch.zeros(3)}, tmp_path / "training-state-000100.pt")
    with pytest.raises(BadInput, match=r"torch\.save.*network-snapshot"):
        find_model_source(tmp_path / "training-state-000100.pt")
