from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.environment import apply_environment_defaults
from sims_core import settings
from sims_core.common.errors import BadInput
from sims_core.settings import Settings


def test_every_setting_is_read_from_the_environment(monkeypatch):
    values = {
        "STORE": "/data/sims",
        "STORE_MUST_EXIST": "true",
        "GPU_SLOTS": "always",
        "DEVICE": "cpu",
        "THREADS": "3",
        "SAMPLING_BATCH_SIZE": "17",
        "CHECKPOINT_KIMG": "0.25",
        "DATA": "/data/real",
        "DOWNLOADS": "/data/fetched",
        "INCEPTION_WEIGHTS": "/data/inception.pth",
        "PROCESSES": "2",
        "MICRO_BATCH_SIZE": "64",
        "COMPILE": "inductor",
        "CHANNELS_LAST": "false",
        "CPU_ISA": "avx2",
        "RECOMPUTE": "train",
        "FSYNC": "false",
        "REMOTE": "s3://studies/mine",
        "CACHE_BYTES": "1000000",
        "REMOTE_LEASE_S": "30",
        "REMOTE_UPLOAD_S": "20",
    }
    assert {name.lower() for name in values} == set(Settings.model_fields)
    for name, value in values.items():
        monkeypatch.setenv(f"SIMS_{name}", value)
    read = Settings.read()
    assert read.store == Path("/data/sims")
    assert read.store_must_exist
    assert read.gpu_slots == "always"
    execution = read.execution()
    assert execution.device == "cpu"
    assert execution.threads == 3
    assert execution.sampling_batch_size == 17
    assert execution.checkpoint_kimg == 0.25
    assert execution.files.source == Path("/data/real")
    assert execution.files.downloads == Path("/data/fetched")
    assert execution.files.inception == Path("/data/inception.pth")
    assert (execution.num_processes, execution.micro_batch_size) == (2, 64)
    assert (execution.compile, execution.channels_last) == ("inductor", False)


def test_one_named_gpu_is_not_for_several_processes(monkeypatch):
    monkeypatch.setattr(settings, "NVIDIA_FILES", (Path(__file__),))
    monkeypatch.setenv("SIMS_DEVICE", "cuda:1")
    assert Settings.read().execution().device == "cuda:1"
    monkeypatch.setenv("SIMS_PROCESSES", "2")
    with pytest.raises(BadInput, match="SIMS_DEVICE is cuda:1, one GPU, but SIMS_PROCESSES is 2"):
        Settings.read().execution()


def test_threads_default_to_the_processors_of_this_process(monkeypatch):
    monkeypatch.delenv("SIMS_THREADS")
    assert Settings.read().execution().threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIMS_DEVICE", "quantum"),
        ("SIMS_DEVICE", "cuda:x"),
        ("SIMS_GPU_SLOTS", "2"),
        ("SIMS_THREADS", "0"),
        ("SIMS_SAMPLING_BATCH_SIZE", "many"),
        ("SIMS_CHECKPOINT_KIMG", "0"),
    ],
)
def test_an_invalid_setting_is_named(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"{name}: .*{value}"):
        Settings.read()


@pytest.mark.parametrize(
    ("wanted", "has_driver", "device"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cuda:1", True, "cuda:1"), ("cpu", 1, "cpu")],
)
def test_the_device_follows_the_driver(wanted, has_driver, device, monkeypatch, tmp_path):
    driver = tmp_path / "nvidiactl"
    if has_driver:
        driver.touch()
    monkeypatch.setattr(settings, "NVIDIA_FILES", (driver,))
    monkeypatch.setenv("SIMS_DEVICE", wanted)
    assert Settings.read().execution().device == device


def test_a_gpu_that_is_not_there_is_bad_input(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "NVIDIA_FILES", (tmp_path / "nvidiactl",))
    monkeypatch.setenv("SIMS_DEVICE", "cuda")
    with pytest.raises(BadInput, match="no NVIDIA driver"):
        Settings.read().execution()


def test_what_the_user_set_for_prefect_stays(monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    monkeypatch.delenv("DO_NOT_TRACK")
    apply_environment_defaults()
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "true"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_too_few_addresses_are_said_before_torch_aborts(monkeypatch):
    limit = settings.LEAST_ADDRESSES
    monkeypatch.setattr(settings.resource, "getrlimit", lambda kind: (limit, limit))
    Settings.read().execution()
    monkeypatch.setattr(settings.resource, "getrlimit", lambda kind: (limit - 1, limit))
    with pytest.raises(BadInput, match=r"GiB of addresses \(ulimit -v\), torch needs"):
        Settings.read().execution()
