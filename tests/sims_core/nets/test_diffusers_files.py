"""Every scheduler of DDPM's and EDM's noise, every way in which diffusers stores a network.

Oracles: what diffusers' own schedulers make of the network's answer, and its own network.
"""

import json

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from sims_core.common.errors import BadInput
from sims_core.diffusion.config import NoiseSchedule
from sims_core.diffusion.ddpm import noise_levels
from sims_core.nets.build import make_denoiser
from sims_core.nets.diffusers_files import find_weights, read_weights
from sims_core.nets.diffusers_schedules import DDPM_SCHEDULERS, EDM_SCHEDULERS, read_training_noise
from sims_core.nets.importing import find_model_source
from sims_core.nets.saved import load_weights, stored_module
from sims_core.nets.unet import UNet

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
"""Of diffusers' schedulers, which make NumPy arrays of tensors."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


def network(**changes):
    """A network as small as they come, of images [1, 8, 8]."""
    torch.manual_seed(0)
    arguments = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8,),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "norm_num_groups": 4,
        "add_attention": False,
    }
    return UNet2DModel(**{**arguments, **changes}).eval()


@pytest.fixture(scope="module")
def theirs():
    return network().double()


def saved(folder, scheduler=None, net=None, **how):
    """A pipeline's folder as diffusers writes it."""
    (net or network()).save_pretrained(folder / "unet", **how)
    (scheduler or DDPMScheduler()).save_pretrained(folder / "scheduler")
    return folder


def denoiser(folder, **options):
    """What is imported, float64."""
    source = find_model_source(folder, **options)
    net = UNet(source.model.net)
    load_weights(stored_module(net), source.read(), "")
    return make_denoiser(net, source.model).double().eval(), source


def scheduler_of(kind, **config):
    """A scheduler that stops at whole timesteps."""
    return getattr(diffusers, kind)(**{"timestep_spacing": "leading", **config})


STEPPED = {
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},  # its betas by default are others than DDPM's
    "KDPM2DiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
}
CONVERTED = {
    "DPMSolverMultistepScheduler": {},
    "DPMSolverSinglestepScheduler": {"timestep_spacing": None},
    "UniPCMultistepScheduler": {},
    "DEISMultistepScheduler": {},
    "SASolverScheduler": {},
}


@pytest.mark.parametrize("predicted", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", STEPPED)
def test_the_denoiser_is_what_schedulers_of_sigma_predict(tmp_path, theirs, kind, predicted):
    scheduler = scheduler_of(kind, prediction_type=predicted, beta_schedule="scaled_linear")
    ours, _ = denoiser(saved(tmp_path, scheduler))
    scheduler.set_timesteps(10)
    t, sigma = scheduler.timesteps[0], scheduler.sigmas[0].double()
    x = sigma * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        raw = theirs(scheduler.scale_model_input(x, t), t).sample
        expected = scheduler.step(raw, t, x).pred_original_sample
        got = ours(x, sigma)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("predicted", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("kind", "config"), CONVERTED.items(), ids=CONVERTED)
def test_the_denoiser_is_what_solvers_predict(tmp_path, theirs, kind, config, predicted):
    config = {name: value for name, value in config.items() if value is not None}
    single = kind == "DPMSolverSinglestepScheduler"
    make = getattr(diffusers, kind) if single else lambda **c: scheduler_of(kind, **c)
    scheduler = make(prediction_type=predicted, **config)
    ours, _ = denoiser(saved(tmp_path, scheduler))
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[3]
    scheduler._init_step_index(t)
    a = scheduler.alphas_cumprod[t].double()
    noisy = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        raw = theirs(noisy, t).sample
        expected = scheduler.convert_model_output(raw, sample=noisy)
        if kind == "DEISMultistepScheduler":  # gives the noise
            expected = (noisy - (1 - a).sqrt() * expected) / a.sqrt()
        got = ours(noisy / a.sqrt(), ((1 - a) / a).sqrt())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("predicted", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", EDM_SCHEDULERS)
def test_the_denoiser_is_what_edm_schedulers_predict(tmp_path, theirs, kind, predicted):
    scheduler = getattr(diffusers, kind)(prediction_type=predicted, sigma_data=0.4)
    ours, source = denoiser(saved(tmp_path, scheduler))
    assert (source.model.sigma_data, source.model.schedule) == (0.4, None)
    for sigma in torch.tensor([0.01, 0.7, 60.0]).double():
        x = sigma * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            c_noise = scheduler.precondition_noise(sigma).repeat(2)
            raw = theirs(scheduler.precondition_inputs(x, sigma), c_noise).sample
            expected = scheduler.precondition_outputs(x, raw, sigma)
            torch.testing.assert_close(ours(x, sigma), expected)


@pytest.mark.parametrize("kind", DDPM_SCHEDULERS)
def test_the_noise_of_a_scheduler_is_its_own_table_also_where_a_file_leaves_it_out(tmp_path, kind):
    """Defaults differ: Heun's and KDPM2's betas are Stable Diffusion's."""
    if kind == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    scheduler = getattr(diffusers, kind)()
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": kind}))
    schedule = read_training_noise(tmp_path).schedule
    kept = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(noise_levels(schedule), ((1 - kept) / kept).sqrt())


@pytest.mark.parametrize(
    "betas",
    [{"beta_schedule": "sigmoid"}, {"trained_betas": [0.001, 0.1, 0.2, 0.3]}],
    ids=["sigmoid", "trained"],
)
def test_further_betas(tmp_path, betas):
    scheduler = DDPMScheduler(**betas)
    schedule = find_model_source(saved(tmp_path, scheduler)).model.schedule
    kept = scheduler.alphas_cumprod.double()
    levels = ((1 - kept) / kept).sqrt()
    torch.testing.assert_close(noise_levels(schedule), levels)
    assert schedule.sigma_max == pytest.approx(float(levels[-1]), rel=1e-3)


def test_younger_fields_are_in_no_digest_of_older_schedules():
    assert "trained_betas" not in NoiseSchedule().model_dump()
    with pytest.raises(ValueError, match="trained_betas are 2, num_train_timesteps 1000"):
        NoiseSchedule(trained_betas=(0.1, 0.2))


def test_what_is_not_used_of_a_scheduler_is_said(tmp_path):
    scheduler = DDPMScheduler(thresholding=True, clip_sample=True)
    said = find_model_source(saved(tmp_path, scheduler)).details["said"]
    assert said == [
        "DDPMScheduler: the training noise is taken from it (betas linear from 0.0001 to 0.02 over "
        "1000 timesteps), its sampling steps are not",
        "clip_sample of the scheduler is ignored: the predicted image is not clipped",
        "thresholding of the scheduler is ignored: the predicted image is not clipped",
    ]
    plain = DDPMScheduler(clip_sample=False)
    assert len(find_model_source(saved(tmp_path, plain)).details["said"]) == 1


# -- networks -------------------------------------------------------------------------------------


def test_of_a_learned_variance_the_mean_is_used_and_it_is_said(tmp_path):
    net = network(out_channels=2)
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    ours, source = denoiser(saved(tmp_path, scheduler, net))
    assert "of its 2 channels the first 1 are used, the mean" in source.details["said"][-1]
    t, x = 400, torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    kept = scheduler.alphas_cumprod.double()[t]
    with torch.no_grad():
        raw = net.double()(x, t).sample
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        expected = scheduler.step(raw, t, x).pred_original_sample
        got = ours(x / kept.sqrt(), ((1 - kept) / kept).sqrt())
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "options", "classes"),
    [
        ({"num_class_embeds": 3}, {}, 3),
        ({"num_class_embeds": 3}, {"num_classes": 2}, 2),  # the third is that of no class
        ({"class_embed_type": "timestep"}, {"num_classes": 3}, 3),
        ({"class_embed_type": "timestep", "num_class_embeds": 3}, {}, 3),
    ],
)
def test_classes_by_a_table_and_by_projection(tmp_path, changes, options, classes):
    net = network(**changes)
    ours, source = denoiser(
        saved(tmp_path, DDPMScheduler(prediction_type="sample"), net), **options
    )
    ours = ours.float()  # what projects classes makes float32 of them
    assert source.model.net.num_classes == classes
    labels = torch.tensor([0, 1])
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    kept = DDPMScheduler().alphas_cumprod[400]
    level = ((1 - kept) / kept).sqrt()
    with torch.no_grad():
        expected = net(x, 400, labels).sample
        got = ours(x / kept.sqrt(), level, labels)
        other = ours(x / kept.sqrt(), level, labels.flip(0))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert (other - got).abs().max() > 1e-3


def test_more_classes_than_the_network_has_are_refused(tmp_path):
    folder = saved(tmp_path, net=network(num_class_embeds=3))
    with pytest.raises(BadInput, match="the network has 3 classes, not 4"):
        find_model_source(folder, num_classes=4)


# -- files ----------------------------------------------------------------------------------------


def same_weights(folder, net):
    weights = read_weights(find_weights(folder / "unet"))
    wanted = net.state_dict()
    assert weights.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert weights[name].dtype == torch.float32
        assert torch.equal(weights[name], tensor.float()), name


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("parts", [False, True])
def test_half_precision_and_parts_as_diffusers_writes_them(tmp_path, variant, parts):
    net = network().to(torch.float16 if variant else torch.float32)
    size = "10KB" if parts else "1GB"
    folder = saved(tmp_path, net=net, variant=variant, max_shard_size=size)
    files = find_weights(folder / "unet")
    assert (len(files) > 1) is parts
    same_weights(folder, net)
    source = find_model_source(folder)
    imported = source.imported
    said = [line for line in source.details["said"] if "F16: they were widened" in line]
    assert bool(said) is (variant == "fp16")
    if parts:  # what is imported is every part's content
        changed = load_file(files[-1])
        name, tensor = next(iter(changed.items()))
        save_file({**changed, name: tensor + 1}, files[-1])
        assert find_model_source(folder).imported != imported
        files[-1].unlink()
        with pytest.raises(BadInput, match=rf"names {files[-1].name}, which is not there"):
            find_model_source(folder)


def test_full_precision_goes_before_half_and_two_halves_are_for_the_user_to_choose(tmp_path):
    folder = saved(tmp_path)
    unet = folder / "unet"
    network().half().save_pretrained(unet, variant="fp16")
    assert find_weights(unet) == (unet / WEIGHTS,)
    (unet / WEIGHTS).rename(unet / "diffusion_pytorch_model.ema.safetensors")
    with pytest.raises(BadInput, match=r"has .*\.ema\.safetensors and .*\.fp16\..*: leave one"):
        find_weights(unet)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../../stolen.safetensors"}, "want safetensors files of the same folder"),
        ({"a": "weights.bin"}, "want safetensors files of the same folder"),
        ({"a": 3}, "no weight_map that names files"),
        ({}, "weight_map is empty"),
        (None, "no weight_map that names files"),
    ],
)
def test_an_index_names_parts_beside_it(tmp_path, weight_map, message):
    (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BadInput, match=message):
        find_weights(tmp_path)


def test_a_tensor_in_two_parts_is_refused(tmp_path):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        save_file({"w": torch.zeros(2)}, file)
    with pytest.raises(BadInput, match=r"b\.safetensors: w is in another part, too"):
        read_weights(files)
