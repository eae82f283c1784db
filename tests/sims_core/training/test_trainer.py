"""Training: resumes bit for bit, learns, and says when it diverges."""

import itertools
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, TrainingDiverged
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.epochs import batch_indices
from sims_core.data.ranges import to_unit_range
from sims_core.data.stages import MIX
from sims_core.diffusion.denoiser import edm_loss
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.store.store import Store
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN
from sims_core.training.trainer import Training, learning_rate_factor, train

MLP = ModelConfig(net=MLPConfig(dim=2, hidden_features=16, hidden_layers=2))
RECIPE = TrainingConfig(kimg=0.1, batch_size=10, ema_halflife_kimg=0.02)  # 10 steps
CORRELATED = torch.tensor([[0.25, 0.24], [0.24, 0.25]])  # eigenvalues 0.49 and 0.01


def correlated_points(count=64, seed=0):
    root = torch.linalg.cholesky(CORRELATED)
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) @ root.T


def everything(training):
    """All tensors and numbers of a training's state, in order."""

    def flat(value):
        if isinstance(value, dict):
            return [x for key in sorted(value, key=str) for x in flat(value[key])]
        if isinstance(value, list | tuple):
            return [x for item in value for x in flat(item)]
        return [value]

    return flat(
        [
            training.denoiser.state_dict(),
            training.optimizer.state_dict(),
            training.schedule.state_dict(),
            training.ema.state_dict(),
            training.step,
        ]
    )


def same(first, second):
    pairs = zip(everything(first), everything(second), strict=True)
    return all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in pairs)


def advance(training, steps):
    for _ in range(steps):
        training.advance()
    return training


def test_five_and_five_steps_are_ten(tmp_path):
    data = correlated_points()
    whole = advance(Training(MLP, RECIPE, data, seed=3), 10)
    half = advance(Training(MLP, RECIPE, data, seed=3), 5)
    assert not same(half, whole)
    half.save(tmp_path / "checkpoint.pt")
    torch.manual_seed(12345)
    resumed = Training(MLP, RECIPE, data, seed=3)
    resumed.load(tmp_path / "checkpoint.pt")
    assert same(resumed, half)
    assert same(advance(resumed, 5), whole)
    for a, b in zip(whole.finish().parameters(), resumed.finish().parameters(), strict=True):
        assert torch.equal(a, b)


def test_comparison_of_states_notices_the_average_alone(tmp_path):
    # The check above must not pass when only the EMA was lost.
    first, second = (advance(Training(MLP, RECIPE, correlated_points(), seed=3), 5) for _ in "ab")
    assert same(first, second)
    second.ema.shadow_params[0].add_(1e-6)
    assert not same(first, second)


def test_interrupted_train_ends_as_an_undisturbed_one(tmp_path):
    data = correlated_points()
    whole = Training(MLP, RECIPE, data, seed=3)
    expected = train(whole)

    class Killed(Exception):
        pass

    def kill(done, total, unit, **figures):
        if done == 70:
            raise Killed

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train(Training(MLP, RECIPE, data, seed=3), path, 0.03, kill)  # checkpoints at 30, 60
    seen = []
    resumed = Training(MLP, RECIPE, data, seed=3)
    got = train(resumed, path, 0.03, lambda done, *rest, **figures: seen.append(done))
    assert seen == [70, 80, 90, 100]
    assert resumed.log == whole.log
    for a, b in zip(expected.parameters(), got.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [0, 100, -100])
def test_unreadable_checkpoint_starts_again(tmp_path, size):
    """As after a power cut, which can leave a renamed file without its content."""
    data, path = correlated_points(), tmp_path / "checkpoint.pt"
    expected = train(Training(MLP, RECIPE, data, seed=3))
    advance(Training(MLP, RECIPE, data, seed=3), 5).save(path)
    path.write_bytes(path.read_bytes()[:size])
    got = train(Training(MLP, RECIPE, data, seed=3), path)
    for a, b in zip(expected.parameters(), got.parameters(), strict=True):
        assert torch.equal(a, b)


def test_trained_denoiser_comes_close_to_the_best_possible_one():
    """The loss of the exact Gaussian denoiser is the least there is; a zero network has 1."""
    config = TrainingConfig(kimg=120, batch_size=128, learning_rate=5e-3, ema_halflife_kimg=5)
    model = ModelConfig(net=MLPConfig(dim=2, hidden_features=32, hidden_layers=2))
    training = Training(model, config, correlated_points(20_000), seed=0)
    fresh = correlated_points(100_000, seed=1)

    def loss(denoiser):
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            return edm_loss(denoiser, fresh, generator, config.P_mean, config.P_std).item()

    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    sigma2 = np.exp(2 * (config.P_mean + config.P_std * nodes))
    weights = weights / weights.sum()
    best = np.mean(
        [np.sum(weights * (sigma2 + 0.25) * lam / (0.25 * (lam + sigma2))) for lam in (0.49, 0.01)]
    )
    assert loss(training.denoiser) == pytest.approx(1, rel=0.02)
    trained = loss(train(training))
    # 200,000 terms: 1 % of sampling error. A small network within 10 % of the optimum.
    assert 0.98 * best < trained < 1.1 * best
    assert 1.1 * best < 0.9  # or an untrained network would pass as well


def test_ema_halves_in_its_halflife_of_images():
    config = TrainingConfig(kimg=1, batch_size=10, ema_halflife_kimg=0.2)
    training = Training(MLP, config, correlated_points(), seed=0)
    parameters = list(training.denoiser.parameters())

    def hold(value, steps):
        with torch.no_grad():
            for parameter in parameters:
                parameter.fill_(value)
        for _ in range(steps):
            training.ema.step(parameters)

    # diffusers' average has a warm-up, decay min(0.5^(batch/half-life), (1 + n) / (10 + n)),
    # which is over after 260 steps here.
    hold(1.0, 400)
    hold(0.0, 20)  # 200 images: one half-life
    shadow = training.ema.shadow_params[0].flatten()
    torch.testing.assert_close(shadow, torch.full_like(shadow, 0.5), rtol=1e-4, atol=0)
    hold(0.0, 40)
    torch.testing.assert_close(shadow, torch.full_like(shadow, 0.125), rtol=1e-4, atol=0)


def test_finish_gives_the_averaged_weights():
    training = advance(Training(MLP, RECIPE, correlated_points(), seed=0), 10)
    live = [p.detach().clone() for p in training.denoiser.parameters()]
    average = [p.clone() for p in training.ema.shadow_params]
    finished = list(training.finish().parameters())
    assert all(torch.equal(a, b) for a, b in zip(finished, average, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(finished, live, strict=True))


def test_learning_rate_ramps_over_images_seen():
    config = TrainingConfig(kimg=10, batch_size=100, ramp_kimg=1.0, decay="constant")
    factors = [learning_rate_factor(step, config) for step in (0, 4, 9, 10, 99)]
    assert factors == pytest.approx([0.1, 0.5, 1, 1, 1])


def test_learning_rate_decays_as_a_cosine():
    config = TrainingConfig(kimg=10, batch_size=100, decay="cosine")
    got = [learning_rate_factor(step, config) for step in (0, 25, 50, 75, 100)]
    assert got == pytest.approx([1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5, 0], abs=1e-12)


def test_learning_rate_without_ramp_or_decay_is_constant():
    config = TrainingConfig(kimg=10, batch_size=100, decay="constant")
    assert {learning_rate_factor(step, config) for step in range(100)} == {1.0}


def test_optimiser_follows_the_factor():
    config = TrainingConfig(kimg=0.1, batch_size=10, ramp_kimg=0.04, learning_rate=0.2)
    training = Training(MLP, config, correlated_points(), seed=0)
    for step in range(10):
        cosine = 0.5 * (1 + math.cos(math.pi * step / 10))
        expected = 0.2 * min(1, (step + 1) / 4) * cosine
        assert training.optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        training.advance()


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 90),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_image_is_seen_once_an_epoch(count, batch_size, epochs, seed):
    steps = -(-count * epochs // batch_size)
    batches = [batch_indices(step, batch_size, count, seed) for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    order = torch.cat(batches).tolist()
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_each_epoch_and_seed_has_its_own_order():
    orders = [tuple(batch_indices(e, 20, 20, seed).tolist()) for e in range(3) for seed in range(3)]
    assert len(set(orders)) == 9


@pytest.mark.parametrize("checkpoint", [True, False])
def test_nan_loss_stops_and_keeps_the_last_checkpoint(checkpoint, tmp_path):
    training = Training(MLP, RECIPE, correlated_points(), seed=3)
    path = tmp_path / "checkpoint.pt" if checkpoint else None

    def poison(done, total, unit, **figures):
        if done == 50:
            training.data.fill_(math.nan)

    with pytest.raises(TrainingDiverged, match=r"loss is nan at 0\.1 kimg.*checkpoint is kept"):
        train(training, path, 0.02, poison)
    if path:
        kept = Training(MLP, RECIPE, correlated_points(), seed=3)
        kept.load(path)
        assert kept.step == 4
        assert all(torch.isfinite(p).all() for p in kept.denoiser.parameters())


@pytest.mark.parametrize("bad_step", [3, 10])
def test_weights_that_stop_being_finite_are_divergence(bad_step, tmp_path):
    """The loss of a step is from before its update: finite, while the weights no longer are."""
    training = Training(MLP, RECIPE, correlated_points(), seed=3)
    calls = itertools.count(1)
    parameter = next(training.denoiser.parameters())
    parameter.register_hook(
        lambda gradient: gradient * (math.nan if next(calls) == bad_step else 1.0)
    )
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(TrainingDiverged):
        train(training, path, 0.01)  # a checkpoint each step
    kept = Training(MLP, RECIPE, correlated_points(), seed=3)
    kept.load(path)
    assert kept.step == bad_step - 1
    assert all(torch.isfinite(p).all() for p in kept.denoiser.parameters())


def test_global_random_state_plays_no_part():
    torch.manual_seed(1)
    first = advance(Training(MLP, RECIPE, correlated_points(), seed=3), 3)
    torch.manual_seed(2)
    second = Training(MLP, RECIPE, correlated_points(), seed=3)
    torch.rand(10)
    assert same(first, advance(second, 3))
    assert not same(first, advance(Training(MLP, RECIPE, correlated_points(), seed=4), 3))


def test_fine_tuning_starts_from_the_given_weights():
    base = advance(Training(MLP, RECIPE, correlated_points(), seed=3), 10).finish()
    before = [p.clone() for p in base.parameters()]
    tuned = Training(MLP, RECIPE, correlated_points(), seed=8, initial=base)
    assert all(torch.equal(a, b) for a, b in zip(before, tuned.denoiser.parameters(), strict=True))
    advance(tuned, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, base.parameters(), strict=True))


def test_grey_levels_span_the_unit_range():
    got = to_unit_range(np.array([[[[0, 255, 51]]]], dtype=np.uint8))
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_fine_tuning_another_network_is_refused(tiny_run):
    request = tiny_run.request(1, 1, "fine-tune auxiliary")
    config = TrainStageConfig.model_validate(request.config)
    other = config.model_copy(update={"model": ModelConfig(net=config.model.net, sigma_data=0.4)})
    with pytest.raises(BadInput, match="sigma_data"):
        run_stage(tiny_run.store, TRAIN.request(other, **request.inputs), execution())


def test_the_auxiliary_starts_at_the_base(tiny_run):
    """After a budget of 256 images it is still much nearer to its base than a new network is."""
    from sims_core.nets.saved import load_model

    base, auxiliary, other = (
        torch.cat([p.flatten() for p in load_model(tiny_run.folder(arm, t, role))[0].parameters()])
        for arm, t, role in [
            (1, 1, "train base"),
            (1, 1, "fine-tune auxiliary"),
            (1, 2, "train base"),
        ]
    )
    assert 0 < (auxiliary - base).norm() < 0.1 * (other - base).norm()


def test_losses_are_stored(tiny_run):
    lines = (tiny_run.folder(0, 1, "train base") / "loss.csv").read_text().splitlines()
    assert lines[0] == "nimg,loss"
    assert [int(line.split(",")[0]) for line in lines[1:]] == [32 * n for n in range(1, 64)]


def test_training_set_is_the_mix(store, put_images, random_images):
    """The stage sees exactly the mixed images: the same training by hand ends in the same file."""
    from sims_core.nets.config import UNetConfig
    from sims_core.nets.saved import load_model

    images = random_images(12)
    real = put_images(store, images)
    parts = (MixPart(input="kept", synthetic=False, count=7),)
    data = run_stage(store, MIX.request(MixConfig(parts=parts), kept=real), execution())
    model = ModelConfig(net=UNetConfig(block_out_channels=(8,), norm_num_groups=4))
    recipe = TrainingConfig(kimg=0.02, batch_size=4)
    request = TRAIN.request(TrainStageConfig(model=model, training=recipe, seed=5), data=data)
    stored, _ = load_model(store.open_artifact(run_stage(store, request, execution())))
    by_hand = train(Training(model, recipe, to_unit_range(images[:7]), seed=5))
    for a, b in zip(stored.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(a, b)
    assert store.manifest(request.ref).details["images"] == 7


def execution():
    from sims_core.engine.execution import Execution

    return Execution(threads=1)


def edm_average(values, batch_size, halflife, ratio):
    """EDM's rule written out over single numbers: what `EDMAverage` must compute."""
    average = None
    for step, value in enumerate(values):
        nimg = min(halflife, step * batch_size * ratio)
        beta = 0.5 ** (batch_size / max(nimg, 1e-8))
        average = value if average is None else average * beta + value * (1 - beta)
    return average


def test_ema_with_rampup_is_edms():
    config = TrainingConfig(kimg=1, batch_size=10, ema_halflife_kimg=0.1, ema_rampup_ratio=0.3)
    training = Training(MLP, config, correlated_points(), seed=0)
    parameters = list(training.denoiser.parameters())
    values = [math.sin(step) for step in range(60)]  # the half-life is reached in step 34
    for value in values:
        with torch.no_grad():
            for parameter in parameters:
                parameter.fill_(value)
        training.ema.step(parameters)
    expected = edm_average(values, 10, 100, 0.3)
    shadow = training.ema.shadow_params[0].flatten()
    torch.testing.assert_close(shadow, torch.full_like(shadow, expected), rtol=1e-5, atol=0)
    assert abs(edm_average(values, 10, 100, 0.5) - expected) > 1e-3, "another rule differs"


UNET = {"block_out_channels": (8,), "norm_num_groups": 4}


def snapshot_recipe(kimg, **changes):
    # The half-life never binds: that of the longest training or of a short one is the same.
    recipe = {"batch_size": 4, "decay": "constant", "ema_halflife_kimg": kimg / 10}
    return TrainingConfig(kimg=kimg, **{**recipe, "ema_rampup_ratio": 0.1, **changes})


@pytest.fixture
def fine_tune(store, put_images, random_images):
    """Request of a fine-tune from one base, of a length and with snapshots."""
    from sims_core.nets.config import UNetConfig

    images = put_images(store, random_images(12))
    parts = (MixPart(input="a", synthetic=True),)
    data = run_stage(store, MIX.request(MixConfig(parts=parts), a=images), execution())
    model = ModelConfig(net=UNetConfig(**UNET))
    config = TrainStageConfig(model=model, training=snapshot_recipe(0.02), seed=1)
    base = run_stage(store, TRAIN.request(config, data=data), execution())

    def request(kimg, *snapshots, **changes):
        config = TrainStageConfig(
            model=model,
            training=snapshot_recipe(kimg, **changes),
            seed=5,
            snapshots_kimg=snapshots,
        )
        return TRAIN.request(config, data=data, initial=base)

    return request


def model_bytes(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (folder / "model.json", *(folder / "net").iterdir())
    }


def taken(store, model, nimg):
    from sims_core.training.config import SnapshotConfig
    from sims_core.training.stages import SNAPSHOT

    ref = run_stage(store, SNAPSHOT.request(SnapshotConfig(nimg=nimg), model=model), execution())
    return model_bytes(store.open_artifact(ref))


def test_a_snapshot_is_a_training_of_that_length(store, fine_tune):
    """Byte for byte; 0.03 kimg are 8 batches of 4, the last one over it."""
    long = run_stage(store, fine_tune(0.08, 0.02, 0.03), execution())
    for kimg, nimg in [(0.02, 20), (0.03, 32)]:
        short = run_stage(store, fine_tune(kimg), execution())
        assert taken(store, long, nimg) == model_bytes(store.open_artifact(short))
    plain = run_stage(store, fine_tune(0.08), execution())
    assert model_bytes(store.open_artifact(long)) == model_bytes(store.open_artifact(plain))
    files = store.manifest(long).files
    assert {name.split("/")[1] for name in files if name.startswith("snapshots/")} == {
        *("000000000020", "000000000032")
    }


def test_without_edms_rule_a_snapshot_would_differ(store, fine_tune):
    """Known wrong: a half-life that is a tenth of the length, whatever has been seen."""
    long = run_stage(store, fine_tune(0.08, 0.02, ema_rampup_ratio=None), execution())
    short = run_stage(store, fine_tune(0.02, ema_rampup_ratio=None), execution())
    assert taken(store, long, 20) != model_bytes(store.open_artifact(short))


@pytest.mark.parametrize("killed_at", [24, 36])
def test_snapshots_survive_a_kill(killed_at, store, fine_tune, tmp_path):
    """Killed after a snapshot and before, then after, the next checkpoint."""

    class Killed(Exception):
        pass

    def kill(done, total, unit, **figures):
        if done == killed_at:
            raise Killed

    request = fine_tune(0.04, 0.02)
    other = Store.open(tmp_path / "other")
    for kind in ("images", "mix", "model"):
        shutil.copytree(store.root / "artifacts" / kind, other.root / "artifacts" / kind)
    every = execution().model_copy(update={"checkpoint_kimg": 0.016})
    with pytest.raises(Killed):
        run_stage(other, request, every, progress=kill)
    run_stage(other, request, every)
    whole = run_stage(store, request, every)
    assert other.manifest(whole) == store.manifest(whole)


def test_snapshots_survive_a_kill_before_the_commit(store, fine_tune, monkeypatch):
    """They are in the artifact's folder by then, which a restart empties."""

    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    request = fine_tune(0.04, 0.02)
    every = execution().model_copy(update={"checkpoint_kimg": 0.016})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stage(store, request, every)
    whole = run_stage(store, request, every)
    assert taken(store, whole, 20)


def test_a_snapshot_that_was_not_kept_names_those_that_were(store, fine_tune):
    long = run_stage(store, fine_tune(0.04, 0.02), execution())
    with pytest.raises(BadInput, match=r"no snapshot at 24 images; it has \[20\]"):
        taken(store, long, 24)


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [((0.04,), "below kimg"), ((0.02, 0.01), "growing"), ((0.02, 0.02), "a batch apart")],
)
def test_snapshots_lie_on_the_way(snapshots, message, fine_tune):
    with pytest.raises(ValueError, match=message):
        fine_tune(0.04, *snapshots)
    with pytest.raises(ValueError, match="decay=constant"):
        fine_tune(0.04, 0.02, decay="cosine")
