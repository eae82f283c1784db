"""Two CPU processes (gloo) train as one does: same batches, same model up to float rounding.

Two that share a set's shards make the bytes of one.
"""

import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, SimsError, TrainingDiverged
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.stages import MIX
from sims_core.engine.execution import Execution
from sims_core.engine.stage import ShareDone, StageContext, no_progress
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.nets.saved import load_model
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.stages import GENERATE
from sims_core.training.batches import draw_batch
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN

ONE = Execution(threads=1, checkpoint_kimg=0.028)
TWO = ONE.model_copy(update={"num_processes": 2})
NET = UNetConfig(
    block_out_channels=(8,), norm_num_groups=4, num_classes=3, dropout=0.2, augment_labels=True
)
RECIPE = TrainingConfig(
    kimg=0.07,
    batch_size=7,
    x_flip=True,
    augment=0.12,
    ema_halflife_kimg=0.02,  # 10 steps
)


class Killed(Exception):
    pass


def kill_at(images):
    def progress(done, total, unit, **figures):
        if done >= images:
            raise Killed

    return progress


@pytest.fixture
def request_of(store, random_images, put_images):
    """A training request on 24 labelled images; keywords change the recipe."""
    real = put_images(store, random_images(24), [n % 3 for n in range(24)])
    parts = (MixPart(input="kept", synthetic=False),)
    mix = run_stage(store, MIX.request(MixConfig(parts=parts), kept=real), ONE)

    def request(seed=3, **changes):
        recipe = RECIPE.model_copy(update=changes)
        config = TrainStageConfig(model=ModelConfig(net=NET), training=recipe, seed=seed)
        return TRAIN.request(config, data=mix)

    return request


def outcome(store, request):
    """Weights and losses."""
    folder = store.open_artifact(request.ref)
    weights = torch.cat([p.flatten() for p in load_model(folder)[0].parameters()])
    rows = (folder / "loss.csv").read_text().splitlines()[1:]
    return weights, torch.tensor([[float(cell) for cell in row.split(",")] for row in rows])


def again(store, request, *executions_and_kills):
    """Computes the artifact anew, through interruptions."""
    shutil.rmtree(store.path(request.ref), ignore_errors=True)
    for execution, kill in executions_and_kills:
        if kill is None:
            run_stage(store, request, execution)
        else:
            with pytest.raises(Killed):
                run_stage(store, request, execution, progress=kill_at(kill))
    return outcome(store, request)


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_from_each_others_checkpoints(store, request_of):
    """Seven images in a batch: the processes have three and four. Dropout, flips and classes on.

    Stated tolerance: losses to 1e-4 of their size; weights to 2e-4, a fifth of one Adam step of
    rate 1e-3, since Adam divides by the gradient's size: the rounding of a tiny one shows in full.
    """
    request = request_of()
    weights, losses = again(store, request, (ONE, None))
    other, _ = again(store, request_of(seed=4), (ONE, None))
    assert (other - weights).abs().max() > 0.1  # or closeness would mean little
    for how in (
        [(TWO, None)],
        [(TWO, 42), (ONE, None)],
        [(ONE, 42), (TWO, None)],
    ):
        got, got_losses = again(store, request, *how)
        torch.testing.assert_close(got_losses, losses, rtol=1e-4, atol=0)
        torch.testing.assert_close(got, weights, rtol=0, atol=2e-4)
        assert (got - weights).abs().mean() < 1e-6
    assert store.manifest(request.ref).execution["num_processes"] == 2
    first, _ = again(store, request, (TWO, None))
    second, _ = again(store, request, (TWO, 42), (TWO, None))
    assert torch.equal(first, second)


@pytest.mark.slow
def test_an_error_in_a_process_is_the_stages_error(store, request_of):
    request = request_of(learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match=r"kimg; lower training\.learning_rate"):
        run_stage(store, request, TWO)
    wrong = TRAIN.config.model_validate(request_of().config)
    net = wrong.model.net.model_copy(update={"num_classes": 2})
    model = wrong.model.model_copy(update={"net": net})
    request = TRAIN.request(wrong.model_copy(update={"model": model}), **request.inputs)
    with pytest.raises(BadInput, match=r"labels 0\.\.2: they must be 0\.\.1"):
        run_stage(store, request, TWO)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_says_so(store, request_of, monkeypatch):
    import subprocess

    started = []
    original = subprocess.Popen

    def start(*arguments, **options):
        started.append(original(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("sims_core.engine.processes.subprocess.Popen", start)

    def kill_the_second(done, total, unit, **figures):
        if started[1].poll() is None:
            os.kill(started[1].pid, signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"process \d failed"):
        run_stage(store, request_of(kimg=100), TWO, progress=kill_the_second)
    assert [process.poll() is not None for process in started] == [True, True]


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them():
    """Its end of their input closes, however it ended."""
    import subprocess
    import sys

    code = "import sims_core.worker as p, time; p._end_with_parent(); print('up', flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}; time.sleep(100)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    process.stdin.close()
    assert process.wait(timeout=20) == 1
    process.stdout.close()


def test_a_batch_smaller_than_the_processes_is_refused(store, request_of):
    how = ONE.model_copy(update={"num_processes": 8})
    with pytest.raises(
        BadInput, match="SIMS_PROCESSES is 8, and so many cannot share a batch of 7"
    ):
        run_stage(store, request_of(), how)


def test_processes_share_a_batch_without_gap_or_overlap():
    from sims_core.training.acceleration import Acceleration

    how = Acceleration(ONE, "fp32")
    for count in (7, 8, 64):
        parts = []
        for rank in range(3):
            how.processes, how.rank = 3, rank
            parts.append(torch.arange(count)[how.part(count)])
        assert torch.equal(torch.cat(parts), torch.arange(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_does_not_know_how_it_is_shared():
    data = torch.arange(24, dtype=torch.uint8).view(24, 1, 1, 1)
    whole = draw_batch(data, torch.arange(24), RECIPE, 3, 5, with_dropout=True)
    parts = list(whole.micro_batches(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    for name in ("clean", "sigma", "noise", "labels", "flips", "dropout"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name))


# Stages that are made shard by shard


@pytest.fixture
def generation(store, tiny_run):
    """A request for 20 guided images in shards of 3, in a store with the models that it wants."""
    request = tiny_run.request(1, 1, "generate")
    for ref in request.inputs.values():
        shutil.copytree(tiny_run.store.open_artifact(ref), store.path(ref))
    config = GenerateConfig.model_validate({**request.config, "count": 20, "images_per_shard": 3})
    return GENERATE.request(config, **request.inputs)


def context_of(store, request, **fields):
    state = store.root / "state"
    for folder in (state, store.root / "made"):
        folder.mkdir(exist_ok=True)
    return StageContext(
        stage=request.stage,
        config=GENERATE.config.model_validate(request.config),
        inputs=request.inputs,
        store=store,
        directory=store.root / "made",
        state=state,
        progress=no_progress,
        **fields,
    )


def test_each_process_makes_its_shards_and_the_rest_is_taken_from_them(
    store, generation, bytes_of, monkeypatch
):
    ref = run_stage(store, generation, ONE)
    three = ONE.model_copy(update={"num_processes": 3})
    made = []
    for rank in (2, 0, 1):
        told = []
        context = context_of(store, generation, execution=three, rank=rank)
        context = replace(context, progress=lambda done, *_, told=told: told.append(done))
        with pytest.raises(ShareDone):
            GENERATE.compute(context)
        made.append(told[-1])
    assert made == [6, 8, 6]  # shards 2 5, 0 3 6 (which has two images), 1 4
    assert not any((store.root / "made").iterdir())
    monkeypatch.setattr("sims_core.data.sharded._make", None)  # nothing is left to make
    details = GENERATE.compute(context_of(store, generation, execution=three))
    assert details == {"count": 20, "nfe": 14}
    whole = {path.name: path.read_bytes() for path in store.path(ref).iterdir()}
    again = {path.name: path.read_bytes() for path in (store.root / "made").iterdir()}
    del whole["manifest.json"]
    assert again == whole


@pytest.mark.slow
def test_two_processes_generate_the_bytes_of_one_through_a_kill(store, generation, bytes_of):
    ref = run_stage(store, generation, ONE)
    files = {path.name: path.read_bytes() for path in store.path(ref).glob("*.tar")}
    shutil.rmtree(store.path(ref))
    told = []

    def kill(done, total, unit, **figures):
        told.append((done, total, unit))
        if done >= 9:
            raise Killed

    with pytest.raises(Killed):
        run_stage(store, generation, TWO, progress=kill)
    finished = list((store.progress_path(ref) / "state").glob("*.tar"))
    assert 0 < len(finished) < 7
    told.clear()
    run_stage(store, generation, TWO, progress=lambda *said: told.append(said))
    assert {path.name: path.read_bytes() for path in store.path(ref).glob("*.tar")} == files
    assert told[-1] == (20, 20, "img")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


@pytest.mark.slow
def test_an_error_in_one_process_is_the_stages_error(store, generation):
    """A sampler that runs away, in whichever process it does."""
    config = {**generation.config, "omega": 1e30}
    request = GENERATE.request(GenerateConfig.model_validate(config), **generation.inputs)
    with pytest.raises(SimsError, match="the sampler ran away"):
        run_stage(store, request, TWO)
