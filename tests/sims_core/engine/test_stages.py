"""A stage's life: lock, look, resume, compute, commit; also under kills and in company."""

import fcntl
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from sims_core.catalog import STAGES, run_stage
from sims_core.common.errors import BadInput
from sims_core.common.files import remove
from sims_core.data.stages import PREPARE
from sims_core.engine.execution import Execution
from sims_core.engine.run import Begun
from sims_core.engine.stage import StageContext
from sims_core.evaluation.config import FeaturesConfig
from sims_core.evaluation.stages import FEATURES
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.stages import GENERATE
from sims_core.store.store import Store
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN

EXECUTION = Execution(threads=1)


class Killed(Exception):
    """Stands for a kill at a known place."""


def kill_at(images):
    def progress(done, total, unit, **figures):
        if done >= images:
            raise Killed

    return progress


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def copies(tiny_run, tmp_path):
    """Two equal stores that hold what the stages under test need."""
    made = []
    for name in ("undisturbed", "interrupted"):
        shutil.copytree(tiny_run.store.root, tmp_path / name)
        made.append(Store.open(tmp_path / name))
    return made


def training_request(tiny_run):
    """Ten steps of 64 images on the real data."""
    request = tiny_run.request(0, 1, "train base")
    config = TrainStageConfig.model_validate(request.config)
    recipe = TrainingConfig(kimg=0.64, batch_size=64)
    return TRAIN.request(config.model_copy(update={"training": recipe}), **request.inputs)


def generation_request(tiny_run):
    """Three shards of eight guided images."""
    request = tiny_run.request(1, 1, "generate")
    changes = {"count": 24, "images_per_shard": 8, "first_seed": 1}
    config = GenerateConfig.model_validate({**request.config, **changes})
    return GENERATE.request(config, **request.inputs)


# Checkpoints after 128, 256, ... images; batches of 3 images.
BEGUN_WITH = Execution(threads=1, sampling_batch_size=3, checkpoint_kimg=0.128)
ASKED_LATER = Execution(threads=2, sampling_batch_size=5, checkpoint_kimg=0.2)


@pytest.mark.parametrize(
    ("make_request", "killed_at", "kept"),
    [(training_request, 320, 256), (generation_request, 14, 8)],
    ids=["train", "generate"],
)
def test_interrupted_stage_ends_in_the_same_bytes(copies, tiny_run, make_request, killed_at, kept):
    undisturbed, interrupted = copies
    request = make_request(tiny_run)
    run_stage(undisturbed, request, BEGUN_WITH)
    with pytest.raises(Killed):
        run_stage(interrupted, request, BEGUN_WITH, progress=kill_at(killed_at))
    assert not interrupted.is_whole(request.ref)
    assert request.ref not in interrupted.artifacts()
    seen = []
    # The thread count and batch size that it began with are kept, whatever is asked for now.
    run_stage(
        interrupted,
        request,
        ASKED_LATER,
        progress=lambda done, total, unit, **figures: seen.append(done),
    )
    assert min(seen) > kept  # it went on from what was kept
    assert contents(interrupted.path(request.ref)) == contents(undisturbed.path(request.ref))
    execution = interrupted.manifest(request.ref).execution
    assert execution == {
        **{"device": "cpu", "threads": 1, "sampling_batch_size": 3},
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    assert torch.get_num_threads() == 1
    assert not interrupted.progress_path(request.ref).exists()
    assert interrupted.damage(request.ref) == []


def test_finished_shards_are_kept_as_they_are(copies, tiny_run):
    _, store = copies
    request = generation_request(tiny_run)
    with pytest.raises(Killed):
        run_stage(store, request, BEGUN_WITH, progress=kill_at(14))
    state = store.progress_path(request.ref) / "state"
    inode = (state / "images-00000.tar").stat().st_ino
    run_stage(store, request, BEGUN_WITH)
    assert (store.path(request.ref) / "images-00000.tar").stat().st_ino == inode


def test_shard_damaged_between_attempts_is_made_again(copies, tiny_run):
    undisturbed, store = copies
    request = generation_request(tiny_run)
    run_stage(undisturbed, request, BEGUN_WITH)
    with pytest.raises(Killed):
        run_stage(store, request, BEGUN_WITH, progress=kill_at(14))
    shard = store.progress_path(request.ref) / "state/images-00000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    run_stage(store, request, BEGUN_WITH)
    assert contents(store.path(request.ref)) == contents(undisturbed.path(request.ref))


def features_request(tiny_run):
    """Batches of three images."""
    request = tiny_run.request(1, 1, "features")
    config = FeaturesConfig.model_validate({**request.config, "count": 20})
    return FEATURES.request(config, **request.inputs)


def whole_training_request(tiny_run):
    """With a snapshot and grids on the way."""
    request = training_request(tiny_run)
    config = TrainStageConfig.model_validate(request.config)
    recipe = config.training.model_copy(update={"grid_kimg": 0.384, "decay": "constant"})
    changes = {"training": recipe, "snapshots_kimg": (0.192,)}
    return TRAIN.request(config.model_copy(update=changes), **request.inputs)


UNFINISHED = {
    "train": (whole_training_request, 448),
    "generate": (generation_request, 14),
    "features": (features_request, 12),
}


@pytest.mark.parametrize("stage", UNFINISHED)
def test_a_bit_that_turned_in_unfinished_work_is_noticed_and_changes_nothing(
    copies, tiny_run, stage, caplog, tmp_path
):
    """Wherever it is: what is damaged is said and made again, and the bytes are the same."""
    undisturbed, store = copies
    make_request, killed_at = UNFINISHED[stage]
    request = make_request(tiny_run)
    run_stage(undisturbed, request, BEGUN_WITH)
    with pytest.raises(Killed):
        run_stage(store, request, BEGUN_WITH, progress=kill_at(killed_at))
    progress = store.progress_path(request.ref)
    shutil.copytree(progress, tmp_path / "kept")
    rng = np.random.default_rng(0)
    kept = [path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*")]
    files = sorted(path for path in kept if (tmp_path / "kept" / path).is_file())
    trusted = [path for path in files if "artifact" not in path.parts]
    assert len(trusted) >= 3
    for path in trusted:
        remove(progress)
        shutil.rmtree(store.path(request.ref), ignore_errors=True)
        shutil.copytree(tmp_path / "kept", progress)
        content = bytearray((progress / path).read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (progress / path).write_bytes(content)
        caplog.clear()
        run_stage(store, request, BEGUN_WITH)
        assert contents(store.path(request.ref)) == contents(undisturbed.path(request.ref)), path
        if "previous" not in path.name and path.suffix != ".partial":  # which nobody needed
            assert "unfinished work is damaged" in caplog.text, path


def test_the_checkpoint_before_a_damaged_one_is_gone_on_from(copies, tiny_run, caplog):
    undisturbed, store = copies
    request = training_request(tiny_run)
    run_stage(undisturbed, request, BEGUN_WITH)
    with pytest.raises(Killed):
        run_stage(store, request, BEGUN_WITH, progress=kill_at(448))
    checkpoint = store.progress_path(request.ref) / "state/checkpoint.pt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 16
    checkpoint.write_bytes(content)
    seen = []
    run_stage(
        *(store, request, BEGUN_WITH),
        progress=lambda done, total, unit, **figures: seen.append(done),
    )
    assert min(seen) == 256 + 64  # the one at 384 images is damaged
    assert contents(store.path(request.ref)) == contents(undisturbed.path(request.ref))


def test_killed_between_the_last_shard_and_the_commit(copies, tiny_run, monkeypatch):
    """The shards are in the artifact's folder by then, which a restart empties."""
    undisturbed, store = copies
    request = generation_request(tiny_run)
    run_stage(undisturbed, request, BEGUN_WITH)

    def killed(*arguments, **keywords):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", killed)
        with pytest.raises(Killed):
            run_stage(store, request, BEGUN_WITH)
    assert not store.is_whole(request.ref)
    run_stage(store, request, BEGUN_WITH)
    assert contents(store.path(request.ref)) == contents(undisturbed.path(request.ref))


def test_progress_of_another_device_is_not_continued(copies, tiny_run):
    _, store = copies
    request = training_request(tiny_run)
    with pytest.raises(Killed):
        run_stage(store, request, BEGUN_WITH, progress=kill_at(320))
    kept = store.progress_path(request.ref) / "execution.json"
    begun = Begun.model_validate_json(kept.read_bytes())
    execution = begun.execution.model_copy(update={"device": "cuda"})
    begun = begun.model_copy(update={"execution": execution})
    kept.write_text(begun.sealed().model_dump_json())
    seen = []
    run_stage(
        store,
        request,
        BEGUN_WITH,
        progress=lambda done, total, unit, **figures: seen.append(done),
    )
    assert min(seen) == 64


def test_execution_never_changes_the_digest_but_is_recorded(tiny_run, copies):
    _, store = copies
    request = generation_request(tiny_run)
    assert "execution" not in json.dumps(request.model_dump(mode="json"))
    run_stage(store, request, Execution(threads=1, sampling_batch_size=4))
    assert store.manifest(request.ref).execution["sampling_batch_size"] == 4


def test_damaged_artifact_is_computed_again_with_equal_bytes(copies, tiny_run, caplog):
    _, store = copies
    request = tiny_run.request(1, 1, "fine-tune auxiliary")
    before = contents(store.path(request.ref))
    weights = store.path(request.ref) / "net/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    record = store.record(request.ref)
    run_stage(store, request, EXECUTION, computed_by="again")
    assert contents(store.path(request.ref)) == before
    assert store.record(request.ref).computed_by == "again" != record.computed_by
    assert "damaged, computing it again" in caplog.text
    assert "safetensors" in caplog.text


def test_whole_artifact_is_not_computed_again(copies, tiny_run):
    _, store = copies
    request = tiny_run.request(0, 1, "train base")
    record, before = store.record(request.ref), store.path(request.ref).stat().st_mtime_ns
    assert run_stage(store, request, EXECUTION, computed_by="again") == request.ref
    assert store.record(request.ref) == record
    assert store.path(request.ref).stat().st_mtime_ns == before


def test_stage_with_a_damaged_input_does_not_run(copies, tiny_run):
    from sims_core.common.errors import DamagedArtifact

    _, store = copies
    data = tiny_run.request(0, 1, "mix").ref
    (store.path(data) / "mix.json").unlink()
    with pytest.raises(DamagedArtifact, match=r"mix\.json"):
        run_stage(store, training_request(tiny_run), EXECUTION)


@pytest.mark.parametrize(
    "changes", [{"stage": "unheard"}, {"version": 99}, {"kind": "model"}], ids=str
)
def test_requests_of_unknown_stages_are_refused(store, changes):
    request = PREPARE.request(PREPARE.config())
    request = type(request).model_validate({**request.model_dump(), **changes})
    with pytest.raises(BadInput, match="prepare v1"):
        run_stage(store, request, EXECUTION)
    assert store.artifacts() == []


def test_stages_are_registered_under_their_names():
    assert {name: stage.name for name, stage in STAGES.items()} == {name: name for name in STAGES}
    assert len(STAGES) >= 11


def test_manifests_say_what_made_them(tiny_run):
    request = tiny_run.request(0, 1, "train base")
    manifest = tiny_run.store.manifest(request.ref)
    assert manifest.request == request
    assert manifest.libraries["torch"] == torch.__version__.split("+")[0]
    assert manifest.execution == {
        **{"device": "cpu", "threads": 1, "sampling_batch_size": 256},
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    assert manifest.details["nimg"] == 63 * 32


def test_a_second_run_computes_the_same_artifacts(tiny_run, tmp_path):
    """Another folder, another time, another global random state: the same bytes throughout."""
    torch.manual_seed(31337)
    store = Store.open(tmp_path / "again")
    for stage in tiny_run.plan:
        run_stage(store, stage.request, EXECUTION)
    for stage in tiny_run.plan:
        expected = contents(tiny_run.store.path(stage.ref))
        assert contents(store.path(stage.ref)) == expected, stage.label


# -- other processes ------------------------------------------------------------------------------

# A stage that tells when it begins, waits for a file named "go", and counts its computations.
PROBE = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    from sims_core.catalog import STAGES, run_stage
    from sims_core.common.frozen import Frozen
    from sims_core.engine.execution import Execution
    from sims_core.engine.stage import Stage
    from sims_core.store.store import Store

    class ProbeConfig(Frozen):
        pass

    root = Path(sys.argv[1])

    def compute(context):
        with (root / "computed").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        (context.directory / "half").write_text("half")
        kept = context.state / "kept"
        resumed = kept.exists()
        kept.write_text("kept")
        (root / "begun").touch()
        while not (root / "go").exists():
            time.sleep(0.02)
        (context.directory / "whole").write_text("whole")
        return {"resumed": resumed}

    PROBE = STAGES["probe"] = Stage("probe", 1, "probe", ProbeConfig, "__main__:compute")
    request = PROBE.request(ProbeConfig())
    """
)
RUN_PROBE = PROBE + textwrap.dedent(
    """
    (root / f"waiting-{os.getpid()}").touch()
    ref = run_stage(Store.open(root / "store"), request, Execution(threads=1))
    print(ref.digest)
    """
)


def start(root):
    return subprocess.Popen(
        [sys.executable, "-c", RUN_PROBE, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited a minute for {what}"
        time.sleep(0.02)


@pytest.fixture
def processes():
    """Whatever a test starts is gone after it."""
    started = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def the_probe(root):
    (lock,) = (root / "store/locks").glob("*.lock")
    return lock.stem


def test_two_processes_at_once_compute_once(tmp_path, processes):
    processes += [start(tmp_path), start(tmp_path)]
    wait_for(lambda: len(list(tmp_path.glob("waiting-*"))) == 2, "both processes")
    wait_for((tmp_path / "begun").exists, "the computation")
    time.sleep(1.0)  # time for the second to go wrong
    assert [process.poll() for process in processes] == [None, None]
    digest = the_probe(tmp_path)
    assert not (tmp_path / "store/artifacts/probe" / digest).exists()
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [out.strip() for out, _ in outputs] == [digest, digest]
    computed = (tmp_path / "computed").read_text().split()
    assert len(computed) == 1
    assert Store.open(tmp_path / "store").artifacts()[0].digest == digest


def test_killed_process_frees_the_lock_and_its_progress_is_used(tmp_path, processes):
    processes.append(start(tmp_path))
    wait_for((tmp_path / "begun").exists, "the computation")
    lock = tmp_path / "store/locks" / f"{the_probe(tmp_path)}.lock"
    with lock.open("w") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait(timeout=30)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if it is still held
    store = Store.open(tmp_path / "store")
    assert store.artifacts() == []  # half an artifact is none
    (tmp_path / "go").touch()
    processes.append(start(tmp_path))
    out, err = processes[1].communicate(timeout=60)
    assert out.strip() == lock.stem, err
    assert not lock.exists()  # given back, and gone
    (ref,) = store.artifacts()
    assert store.damage(ref) == []
    assert store.manifest(ref).details == {"resumed": True}
    assert set(store.manifest(ref).files) == {"half", "whole"}


LIGHT = (
    *("catalog", "engine.run", "store.store", "studies.loop", "studies.self_improvement"),
    *("studies.comparison", "studies.resolve", "reports.summary", "reports.found", "reports.page"),
)


def test_every_stage_names_a_function_for_its_configuration():
    """`module:function` strings are not checked by mypy: each must be what its stage says."""
    for stage in STAGES.values():
        annotations = get_type_hints(stage.compute)
        assert annotations["context"] == StageContext[stage.config], stage.name
        assert annotations["return"] == dict[str, Any], stage.name


def test_a_cached_run_imports_neither_torch_nor_diffusers():
    modules = ", ".join(f"sims_core.{name}" for name in LIGHT)
    code = f"import sys, {modules}; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"


def test_the_science_needs_no_prefect():
    code = textwrap.dedent(
        """
        import importlib, pkgutil, sys
        sys.modules["prefect"] = None  # importing it raises
        import sims_core
        modules = pkgutil.walk_packages(sims_core.__path__, "sims_core.")
        names = [m.name for m in modules if not m.ispkg]
        for name in names:
            importlib.import_module(name)
        print(len(names))
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(out) >= 80
