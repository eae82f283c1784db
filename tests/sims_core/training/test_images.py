"""Training of image networks: classes, dropout, augmentation, micro-batches, precision, grids."""

import json

import numpy as np
import pytest
import torch

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, OutOfMemory, TrainingDiverged
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.epochs import batch_indices
from sims_core.data.image_set import read_images, read_index
from sims_core.data.ranges import to_unit_range
from sims_core.data.stages import MIX
from sims_core.engine.execution import Execution
from sims_core.engine.memory import explain_out_of_memory
from sims_core.nets.build import build_net, initialise
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.nets.saved import load_model
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.images import image_labels
from sims_core.sampling.stages import GENERATE
from sims_core.training.batches import draw_batch
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN
from sims_core.training.trainer import Training, train

NET = UNetConfig(
    block_out_channels=(8,), norm_num_groups=4, num_classes=3, dropout=0.2, augment_labels=True
)
MODEL = ModelConfig(net=NET)
RECIPE = TrainingConfig(
    kimg=0.08,
    batch_size=8,
    x_flip=True,
    augment=0.12,
    ema_halflife_kimg=0.02,  # 10 steps
)
EXECUTION = Execution(threads=1)


@pytest.fixture(scope="module")
def data(random_images):
    return torch.from_numpy(random_images(24))


LABELS = torch.arange(24) % 3


def training(data, recipe=RECIPE, model=MODEL, **execution):
    labels = LABELS if model.net.num_classes else None
    how = Execution(threads=1, **execution)
    return Training(model, recipe, data, seed=3, labels=labels, execution=how)


def advance(made, steps):
    for _ in range(steps):
        made.advance()
    return made


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.denoiser.parameters()])


def average(made):
    return torch.cat([p.flatten() for p in made.ema.shadow_params])


def test_resumption_with_classes_dropout_and_flips_is_bit_exact(data, tmp_path):
    whole = advance(training(data), 10)
    advance(training(data), 5).save(tmp_path / "checkpoint.pt")
    torch.manual_seed(4711)
    resumed = training(data)
    resumed.load(tmp_path / "checkpoint.pt")
    advance(resumed, 5)
    assert torch.equal(weights(whole), weights(resumed))
    assert torch.equal(average(whole), average(resumed))


@pytest.mark.parametrize(
    "change",
    [{"x_flip": False}, {"augment": 0.0}, {"precision": "bf16"}],
    ids=lambda change: next(iter(change)),
)
def test_each_part_of_the_recipe_changes_the_result(data, change):
    plain = advance(training(data), 3)
    other = advance(training(data, RECIPE.model_copy(update=change)), 3)
    assert not torch.equal(weights(plain), weights(other))


def test_dropout_and_classes_change_the_result(data):
    plain = advance(training(data), 3)
    without = MODEL.model_copy(update={"net": NET.model_copy(update={"dropout": 0.0})})
    assert not torch.equal(weights(plain), weights(advance(training(data, model=without), 3)))
    shuffled = Training(MODEL, RECIPE, data, 3, labels=LABELS.roll(1), execution=EXECUTION)
    assert not torch.equal(weights(plain), weights(advance(shuffled, 3)))


@pytest.mark.parametrize(("size", "passes"), [(8, 1), (3, 3), (1, 8)])
def test_micro_batches_add_up_to_the_batch(data, size, passes):
    """Dropout, flips and augmentation on: they do not depend on how a batch is split either."""
    whole, split = training(data), training(data, micro_batch_size=size)
    calls = []
    split.denoiser.net.register_forward_hook(lambda *_: calls.append(1))
    losses = [(float(whole.advance()), float(split.advance())) for _ in range(3)]
    assert len(calls) == 3 * passes
    for expected, got in losses:
        assert got == pytest.approx(expected, rel=1e-5)
    # Adam divides by the gradient's size: rounding of a tiny gradient shows in full.
    torch.testing.assert_close(weights(split), weights(whole), rtol=0, atol=2e-4)
    assert (weights(split) - weights(whole)).abs().mean() < 1e-6
    if size == 8:
        assert torch.equal(weights(split), weights(whole))


def test_bf16_is_close_and_keeps_float32_weights(data):
    plain = training(data)
    mixed = training(data, RECIPE.model_copy(update={"precision": "bf16"}))
    # The untrained network predicts zero: the first step's loss is the same in any precision.
    assert float(mixed.advance()) == pytest.approx(float(plain.advance()), rel=1e-6)
    expected, got = float(advance(plain, 4).advance()), float(advance(mixed, 4).advance())
    assert got == pytest.approx(expected, rel=0.02)
    assert got != expected
    finished = mixed.finish()
    assert {p.dtype for p in finished.parameters()} == {torch.float32}
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma, labels = torch.tensor(1.0), torch.tensor([0, 1, 2, 0])
    stored = build_net(NET).eval()
    stored.load_state_dict(finished.net.state_dict())
    with torch.no_grad():  # autocast is gone from the finished network
        assert torch.equal(
            finished.net(x, sigma.expand(4), labels), stored(x, sigma.expand(4), labels)
        )


def test_fp16_on_a_cpu_is_refused(data):
    with pytest.raises(BadInput, match="fp16 needs a GPU: take bf16"):
        training(data, RECIPE.model_copy(update={"precision": "fp16"}))


@pytest.mark.parametrize(
    "how",
    [pytest.param({"compile": "eager"}, marks=pytest.mark.slow), {"channels_last": False}],
    ids=str,
)
def test_compilation_and_memory_format_leave_the_training_alone(data, how):
    plain, other = advance(training(data), 3), advance(training(data, **how), 3)
    torch.testing.assert_close(weights(other), weights(plain), rtol=0, atol=2e-4)
    weight = other.denoiser.net.unet.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous() == ("channels_last" in how)


def test_half_of_the_images_are_mirrored_anew_each_epoch(data):
    seen = []
    for step in range(30):
        batch = draw_batch(data, None, RECIPE.model_copy(update={"augment": 0}), 0, step)
        plain = to_unit_range(data[batch_indices(step, 8, 24, 0)].numpy())
        mirrored = (batch.images != plain).flatten(1).any(1)
        assert torch.equal(batch.images[mirrored], plain.flip(-1)[mirrored])
        seen.append(mirrored)
    # 240 draws: a half with deviation 0.032.
    assert torch.stack(seen).float().mean().item() == pytest.approx(0.5, abs=0.13)
    assert not torch.equal(seen[0], seen[1])


def test_a_batch_without_options_is_as_it_always_was(data):
    """The order of draws is part of every result there is."""
    recipe = TrainingConfig(batch_size=8)
    batch = draw_batch(data, None, recipe, seed=5, step=2)
    from sims_core.diffusion.noise import generator

    own = generator(5, "noise", 2)
    sigma = (recipe.P_mean + recipe.P_std * torch.randn(8, generator=own)).exp()
    assert torch.equal(batch.sigma, sigma)
    assert torch.equal(batch.noise, torch.randn(8, 1, 8, 8, generator=own))
    assert (batch.labels, batch.flips, batch.dropout) == (None, None, None)


# -- classes --------------------------------------------------------------------------------------


def test_labels_follow_from_the_seed_alone_and_are_uniform():
    labels = image_labels(range(6000), 10)
    assert image_labels([17, 4], 10) == [labels[17], labels[4]]
    counts = np.bincount(labels, minlength=10)
    # 600 each with deviation 23: chi-square of 9 degrees below 30 in all but 0.05 % of cases.
    assert ((counts - 600) ** 2 / 600).sum() < 30
    assert image_labels(range(3), 0) is None


@pytest.fixture(scope="module")
def conditional(tmp_path_factory, random_images, put_images):
    """A store with a labelled mix and a conditional base, and requests to make more."""
    from sims_core.store.store import Store

    store = Store.open(tmp_path_factory.mktemp("conditional") / "store")
    real = put_images(store, random_images(24), LABELS.tolist())
    parts = (MixPart(input="kept", synthetic=False),)
    mix = run_stage(store, MIX.request(MixConfig(parts=parts), kept=real), EXECUTION)
    config = TrainStageConfig(model=MODEL, training=RECIPE, seed=3)
    base = run_stage(store, TRAIN.request(config, data=mix), EXECUTION)
    return store, mix, base


def test_stage_trains_on_the_labels_of_its_images(conditional, data):
    store, _, base = conditional
    stored, config = load_model(store.open_artifact(base))
    assert config == MODEL
    by_hand = train(training(data))
    for a, b in zip(stored.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(a, b)


def test_generated_images_carry_the_labels_they_were_drawn_with(conditional):
    store, _, base = conditional
    config = GenerateConfig(sampler={"num_steps": 2}, count=12, first_seed=5, images_per_shard=8)
    folder = store.open_artifact(run_stage(store, GENERATE.request(config, base=base), EXECUTION))
    index = read_index(folder)
    images, labels = read_images([folder / shard.file for shard in index.shards])
    assert labels.tolist() == image_labels(range(5, 17), 3)
    assert {int(c): n for c, n in index.class_histogram.items()} == {
        c: labels.tolist().count(c) for c in set(labels.tolist())
    }
    # The label matters: the same noise under other labels gives other images.
    from sims_core.diffusion.sampler import make_sampler
    from sims_core.sampling.images import sample_images

    denoiser, _ = load_model(folder.parents[1] / "model" / base.digest)
    sample = make_sampler(config.sampler)
    same = sample_images(denoiser, sample, range(5, 17), (1, 8, 8), 256, labels=labels.tolist())
    assert np.abs(same.astype(int) - images.astype(int)).max() <= 1
    other = [(label + 1) % 3 for label in labels.tolist()]
    different = sample_images(denoiser, sample, range(5, 17), (1, 8, 8), 256, labels=other)
    assert (np.abs(different.astype(int) - images.astype(int)) > 1).mean() > 0.005


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "not all training images have labels"), ([5] * 24, r"labels 5\.\.5: they must be 0")],
)
def test_a_conditional_network_needs_fitting_labels(
    store, random_images, put_images, labels, message
):
    real = put_images(store, random_images(24), labels)
    parts = (MixPart(input="kept", synthetic=False),)
    mix = run_stage(store, MIX.request(MixConfig(parts=parts), kept=real), EXECUTION)
    config = TrainStageConfig(model=MODEL, training=RECIPE, seed=3)
    with pytest.raises(BadInput, match=message):
        run_stage(store, TRAIN.request(config, data=mix), EXECUTION)


def test_diffusers_opens_a_conditional_network(conditional):
    from diffusers import UNet2DModel

    store, _, base = conditional
    folder = store.open_artifact(base)
    ours, _ = load_model(folder)
    theirs = UNet2DModel.from_pretrained(folder / "net").eval()
    assert theirs.config.num_class_embeds == 3
    assert theirs.config.dropout == 0.2
    x, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    with torch.no_grad():
        expected = ours.net(x, torch.full((3,), 0.5), labels)
        got = theirs(x, torch.full((3,), 125.0), labels).sample
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_embeddings_are_drawn_from_the_generator():
    net = build_net(UNetConfig(block_out_channels=(8,), norm_num_groups=4, num_classes=1000))
    initialise(net, torch.Generator().manual_seed(1))
    table = net.unet.class_embedding.weight.detach().clone()
    assert table.std().item() == pytest.approx(1, rel=0.02)
    initialise(net, torch.Generator().manual_seed(1))
    assert torch.equal(net.unet.class_embedding.weight, table)


# -- grids of samples -----------------------------------------------------------------------------


def test_grids_are_drawn_on_the_way_and_change_nothing(conditional, data):
    store, mix, base = conditional
    recipe = RECIPE.model_copy(update={"grid_kimg": 0.032})
    config = TrainStageConfig(model=MODEL, training=recipe, seed=3)
    ref = run_stage(store, TRAIN.request(config, data=mix), EXECUTION)
    folder, plain = store.open_artifact(ref), store.open_artifact(base)
    names = sorted(path.name for path in (folder / "samples").iterdir())
    assert names == ["kimg-000000.032.png", "kimg-000000.064.png"]
    for file in ("net/diffusion_pytorch_model.safetensors", "loss.csv"):
        assert (folder / file).read_bytes() == (plain / file).read_bytes()
    assert not (plain / "samples").exists()


def test_an_interrupted_training_has_the_same_grids(conditional):
    from sims_core.store.store import Store

    store, mix, _ = conditional
    recipe = RECIPE.model_copy(update={"grid_kimg": 0.016})
    config = TrainStageConfig(model=MODEL, training=recipe, seed=3)
    request = TRAIN.request(config, data=mix)
    how = Execution(threads=1, checkpoint_kimg=0.016)

    class Killed(Exception):
        pass

    def kill(done, total, unit, **figures):
        if done == 40:
            raise Killed

    with pytest.raises(Killed):
        run_stage(store, request, how, progress=kill)
    ref = run_stage(store, request, how)
    resumed = store.manifest(ref).files
    assert len([name for name in resumed if name.startswith("samples/")]) == 5
    import shutil

    shutil.rmtree(store.path(ref))
    run_stage(Store.open(store.root), request, how)
    assert store.manifest(ref).files == resumed


# -- failures -------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_kimg(data):
    made = training(data)
    with torch.no_grad():
        made.denoiser.net.unet.conv_in.weight.fill_(float("inf"))
    with pytest.raises(TrainingDiverged, match=r"loss is nan at 0\.0 kimg.*checkpoint is kept"):
        train(made)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_halve(error):
    with (
        pytest.raises(OutOfMemory, match=r"with 64 images at a time: set SIMS_X=32, then run"),
        explain_out_of_memory("SIMS_X", 64, "training"),
    ):
        raise error


def test_other_errors_pass_and_one_image_has_no_half():
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory("SIMS_X", 8, "x"):
        raise RuntimeError("shapes differ")
    with pytest.raises(OutOfMemory, match="smaller network"), explain_out_of_memory("X", 1, "x"):
        raise MemoryError


def allocate_too_much(*_):
    torch.empty(2**46, dtype=torch.uint8)  # 64 TiB: no machine has that


def test_what_ran_out_of_memory_goes_on_as_it_is_told_next(conditional, monkeypatch):
    """Elsewhere an interrupted stage keeps what it began with; here that would fail for ever."""
    store, mix, _ = conditional
    config = TrainStageConfig(model=MODEL, training=RECIPE, seed=11)
    request = TRAIN.request(config, data=mix)
    how = Execution(threads=1, checkpoint_kimg=0.016)
    original = Training.advance

    def fail_at_step_5(self):
        return allocate_too_much() if self.step == 5 else original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", fail_at_step_5)
        with pytest.raises(OutOfMemory, match="SIMS_MICRO_BATCH_SIZE=4"):
            run_stage(store, request, how)
    seen = []
    lower = how.model_copy(update={"micro_batch_size": 4})
    run_stage(store, request, lower, progress=lambda done, *_, **__: seen.append(done))
    assert min(seen) == 40, "the checkpoint after 32 images was kept"
    assert store.manifest(request.ref).execution["micro_batch_size"] == 4


def test_sampling_names_its_own_setting(conditional, monkeypatch):
    store, _, base = conditional
    monkeypatch.setattr("sims_core.sampling.images.sample_images", allocate_too_much)
    config = GenerateConfig(sampler={"num_steps": 2}, count=12, first_seed=77)
    how = Execution(threads=1, sampling_batch_size=6)
    with pytest.raises(OutOfMemory, match="6 images at a time: set SIMS_SAMPLING_BATCH_SIZE=3"):
        run_stage(store, GENERATE.request(config, base=base), how)


def test_usual_ways_to_compute_are_not_in_the_manifest(conditional):
    store, _, base = conditional
    assert set(store.manifest(base).execution) == {
        *("device", "instructions", "sampling_batch_size", "threads"),
    }
    assert json.loads((store.path(base) / "model.json").read_text())["net"]["num_classes"] == 3
