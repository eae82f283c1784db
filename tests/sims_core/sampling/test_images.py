"""Image i is a function of (models, sampler, omega, seed i) alone."""

import numpy as np
import pytest
import torch

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.common.seeding import image_seed
from sims_core.data.image_set import read_images, read_index
from sims_core.data.ranges import to_uint8
from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.gaussian import GaussianDenoiser
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.sampler import make_sampler
from sims_core.engine.execution import Execution
from sims_core.nets.saved import load_model
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.images import load_for_sampling, sample_images, seeded_noise
from sims_core.sampling.stages import GENERATE

SHAPE = (1, 8, 8)
SAMPLE = make_sampler(SamplerConfig(num_steps=4))


@pytest.fixture(scope="module")
def guided(tiny_run):
    base, _ = load_model(tiny_run.folder(1, 1, "train base"))
    auxiliary, _ = load_model(tiny_run.folder(1, 1, "fine-tune auxiliary"))
    return negative_guidance(base, auxiliary, 1.0)


@pytest.fixture(scope="module")
def at_64(guided):
    images = sample_images(guided, SAMPLE, range(64), SHAPE, 64)
    assert images.std() > 10  # or equality would mean little
    assert len({image.tobytes() for image in images}) == 64
    return images


def test_batches_only_group_the_work(guided, at_64):
    """Another batch size moves the last digits: one grey level in under 1 of 1,000 pixels."""
    images = sample_images(guided, SAMPLE, range(64), SHAPE, 7)
    difference = np.abs(images.astype(int) - at_64.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_batches_of_one_and_of_a_hundred_are_equal(guided):
    """But for a few of 6,400 pixels at most, which lie so near to the edge of a grey level."""
    one, hundred = (sample_images(guided, SAMPLE, range(100), SHAPE, n) for n in (1, 100))
    difference = np.abs(one.astype(int) - hundred.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).sum() <= 6
    assert len({image.tobytes() for image in one}) == 100


def test_one_batch_size_gives_the_same_bytes(guided, at_64):
    torch.manual_seed(4711)
    np.random.default_rng(0).random(10)
    again = sample_images(guided, SAMPLE, range(64), SHAPE, 64)
    assert again.tobytes() == at_64.tobytes()


def test_an_image_depends_on_its_own_seed_only(guided, at_64):
    other = sample_images(guided, SAMPLE, [*range(1000, 1032), *range(32, 64)], SHAPE, 64)
    assert (other[32:] == at_64[32:]).mean() > 0.999
    assert (other[:32] == at_64[:32]).mean() < 0.9


def test_sampling_leaves_the_global_random_state_alone(guided):
    before = torch.get_rng_state()
    sample_images(guided, SAMPLE, [1, 2], SHAPE, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_standard_normal_with_one_generator_a_seed():
    noise = seeded_noise([3, 5, 3], (4, 50, 50))
    expected = torch.randn(4, 50, 50, generator=torch.Generator().manual_seed(5))
    assert torch.equal(noise[1], expected)
    assert torch.equal(noise[0], noise[2])
    # 10,000 draws: mean to 0.01, deviation to 0.7 %; correlation of two seeds' noise to 0.01.
    assert abs(noise[0].mean()) < 0.05
    assert noise[0].std().item() == pytest.approx(1, rel=0.04)
    assert abs(torch.corrcoef(noise[:2].flatten(1))[0, 1]) < 0.05


def test_pixels_are_rounded_and_clamped():
    x = torch.tensor([-1.5, -1.0, -0.9999, 0.0, 0.0039, 1.0, 1.7, 0.5]).reshape(1, 1, 2, 4)
    # (x + 1) * 127.5: 0 / 0 / 0.01 / 127.5 (to even) / 127.997 / 255 / 255 / 191.25
    assert to_uint8(x).flatten().tolist() == [0, 0, 0, 128, 128, 255, 255, 191]


def test_progress_counts_images():
    done = []
    denoiser = GaussianDenoiser(torch.zeros(64), torch.eye(64))

    def sample(_, noise, labels):
        return SAMPLE(denoiser, noise.flatten(1)).reshape(noise.shape)

    sample_images(denoiser, sample, range(10), SHAPE, 4, after_batch=done.append)
    assert done == [4, 8, 10]


def generate(run, **changes):
    request = run.request(1, 1, "generate")
    config = GenerateConfig.model_validate({**request.config, **changes})
    request = GENERATE.request(config, **request.inputs)
    ref = run_stage(run.store, request, Execution(threads=1, sampling_batch_size=8))
    folder = run.store.open_artifact(ref)
    return read_images([folder / shard.file for shard in read_index(folder).shards])[0]


def test_stage_samples_the_guided_model_from_consecutive_seeds(tiny_run, guided):
    images = generate(tiny_run, count=20, first_seed=2**32 - 10, images_per_shard=8)
    seeds = [image_seed(2**32 - 10, i) for i in range(20)]
    assert seeds[10] == 0
    # Shards of 8 in batches of 8: the same batches as here, so the same bytes.
    expected = np.concatenate(
        [sample_images(guided, SAMPLE, seeds[i : i + 8], SHAPE, 8) for i in (0, 8, 16)]
    )
    assert np.array_equal(images, expected)


def test_omega_zero_ignores_the_auxiliary(tiny_run):
    base, _ = load_model(tiny_run.folder(1, 1, "train base"))
    images = generate(tiny_run, count=8, omega=0.0, first_seed=0)
    assert np.array_equal(images, sample_images(base, SAMPLE, range(8), SHAPE, 8))


def test_a_longer_set_begins_with_the_shorter_one(tiny_run):
    short = generate(tiny_run, count=8, first_seed=5)
    long = generate(tiny_run, count=16, first_seed=5)
    assert np.array_equal(long[:8], short)


@pytest.mark.parametrize(
    ("interval", "auxiliary"), [(None, 7), ((0.1, 20.0), 4), ((9.0, 90.0), 3), ((70.0, 90.0), 1)]
)
def test_outside_of_its_interval_the_auxiliary_is_not_called(
    tiny_run, monkeypatch, interval, auxiliary
):
    """Heun at 80, 9.7, 0.47 and 0.002: once, then twice each. Calls of the networks themselves."""
    calls = []

    def counting(folder, *options):
        denoiser, model = load_for_sampling(folder, *options)
        name = "base" if folder == tiny_run.folder(1, 1, "train base") else "auxiliary"
        denoiser.net.register_forward_hook(lambda net, given, made: calls.append((name, len(made))))
        return denoiser, model

    monkeypatch.setattr("sims_core.sampling.images.load_for_sampling", counting)
    changes = {"count": 12, "first_seed": 11 + auxiliary, "interval": interval}
    request = tiny_run.request(1, 1, "generate")
    config = GenerateConfig.model_validate({**request.config, **changes})
    request = GENERATE.request(config, **request.inputs)
    ref = run_stage(tiny_run.store, request, Execution(threads=1, sampling_batch_size=8))
    batches = {"base": [8, 4] * 7, "auxiliary": [8, 4] * auxiliary}
    for name, sizes in batches.items():
        assert sorted(size for who, size in calls if who == name) == sorted(sizes)
    assert tiny_run.store.manifest(ref).details["nfe"] == 7 + auxiliary


def test_an_interval_changes_what_is_sampled_and_the_whole_range_does_not(tiny_run):
    whole, wide, narrow = (
        generate(tiny_run, count=8, first_seed=5, interval=interval)
        for interval in (None, (0.002, 80.0), (0.1, 20.0))
    )
    assert np.array_equal(whole, wide)
    assert not np.array_equal(whole, narrow)


def test_evaluations_are_in_the_manifest(tiny_run):
    nfe = {
        arm: tiny_run.store.manifest(tiny_run.request(arm, 1, "generate").ref).details["nfe"]
        for arm in (0, 1)
    }
    assert nfe == {0: 7, 1: 14}  # Heun with 4 steps; SIMS evaluates two networks


def test_points_cannot_be_stored_as_images(store):
    from sims_core.diffusion.denoiser import EDMDenoiser
    from sims_core.nets.config import MLPConfig, ModelConfig
    from sims_core.nets.mlp import MLP
    from sims_core.nets.saved import save_model
    from sims_core.store.artifacts import StageRequest

    request = StageRequest(stage="train", version=1, kind="model", config={"test": 1})
    folder = store.progress_path(request.ref)
    folder.mkdir()
    save_model(EDMDenoiser(MLP(MLPConfig()), 0.5), ModelConfig(net=MLPConfig()), folder)
    base = store.commit(request, folder, execution={}, libraries={}, details={})
    config = GenerateConfig(sampler=SamplerConfig(), count=1, first_seed=0)
    with pytest.raises(BadInput, match="U-Net"):
        run_stage(store, GENERATE.request(config, base=base), Execution(threads=1))


def test_grid_shows_the_first_images_whatever_the_shard_size(tiny_run):
    from io import BytesIO

    from PIL import Image

    request = tiny_run.request(1, 1, "preview")
    sizes = []
    for per_shard in (1024, 4):
        config = GenerateConfig.model_validate({**request.config, "images_per_shard": per_shard})
        ref = run_stage(
            tiny_run.store, GENERATE.request(config, **request.inputs), Execution(threads=1)
        )
        png = (tiny_run.store.open_artifact(ref) / "grid.png").read_bytes()
        sizes.append(Image.open(BytesIO(png)).size)
    assert sizes[0] == sizes[1] == (16 * 9 - 1, 8)


def test_bf16_is_close_to_fp32_and_no_more(tiny_run):
    """bf16 has 8 bits: a few grey levels after 7 evaluations, and float32 outside the networks."""
    sampler = {"num_steps": 4}
    whole = generate(tiny_run, count=16, first_seed=0, sampler=sampler)
    half = generate(tiny_run, count=16, first_seed=0, sampler={**sampler, "precision": "bf16"})
    difference = np.abs(whole.astype(int) - half.astype(int))
    assert whole.std() > 10
    assert 0 < difference.mean() < 2
    base, _ = load_for_sampling(tiny_run.folder(1, 1, "train base"), Execution(), "bf16")
    seen = []
    base.net.net.unet.conv_in.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    x = seeded_noise([1, 2], SHAPE)
    assert base(x, torch.tensor(1.0)).dtype == torch.float32
    assert seen == [torch.bfloat16]
    exact, _ = load_model(tiny_run.folder(1, 1, "train base"))
    # c_skip x is exact: at sigma 1e-3 the network hardly counts.
    sigma = torch.tensor(1e-3)
    assert torch.allclose(base(x, sigma), exact(x, sigma), rtol=0, atol=1e-4)


def test_fp16_sampling_on_a_cpu_is_refused(tiny_run):
    with pytest.raises(BadInput, match=r"sampler\.precision fp16 needs a GPU: take bf16"):
        generate(tiny_run, count=8, sampler={"precision": "fp16"})
