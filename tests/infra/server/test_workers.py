"""Which workers a machine gets, and pools of containers against Prefect's own schema."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from infra.server import workers
from infra.server.pools import read_pool, templates
from infra.server.workers import worker_places
from sims_core.common.errors import BadInput
from sims_core.engine.execution import Execution
from sims_core.settings import Settings

ROOT = Path(__file__).parents[3]
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture
def gpus(monkeypatch):
    """A machine with so many GPUs, of which torch sees those that CUDA_VISIBLE_DEVICES names."""
    monkeypatch.delenv("SIMS_THREADS")

    def have(count):
        device = Execution(device="cuda")
        monkeypatch.setattr(Settings, "execution", lambda self: device)
        done = subprocess.CompletedProcess([], 0, stdout=f"{count}\n")
        monkeypatch.setattr(workers.subprocess, "run", lambda *args, **options: done)

    return have


def test_each_worker_has_a_gpu_to_itself(gpus):
    gpus(3)
    places = worker_places(None, Settings(), {})
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "1", "2"]
    assert {place["SIMS_GPU_SLOTS"] for place in places} == {"never"}, "nobody takes turns"
    assert {place["SIMS_DEVICE"] for place in places} == {"cuda"}
    assert {int(place["SIMS_THREADS"]) for place in places} == {max(1, CPUS // 3)}
    assert worker_places(2, Settings(), {}) == [
        {**place, "SIMS_THREADS": str(max(1, CPUS // 2))} for place in places[:2]
    ]


def test_of_several_gpus_those_that_a_scheduler_gave(gpus):
    gpus(2)
    places = worker_places(None, Settings(), {"CUDA_VISIBLE_DEVICES": "GPU-5f,GPU-77"})
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["GPU-5f", "GPU-77"]
    with pytest.raises(BadInput, match="`count` is 3, but there are 2 GPUs: 0, 1"):
        worker_places(3, Settings(), {})


def test_settings_that_name_several_gpus_are_refused(gpus):
    gpus(2)
    with pytest.raises(BadInput, match="SIMS_DEVICE is cuda:1, but each worker has one GPU"):
        worker_places(None, Settings(device="cuda:1"), {})
    with pytest.raises(BadInput, match="SIMS_PROCESSES is 2, but each worker has one GPU"):
        worker_places(None, Settings(processes=2), {})


def test_without_a_gpu_the_number_must_be_said(monkeypatch):
    monkeypatch.delenv("SIMS_THREADS")
    on_cpu = Settings(device="cpu")
    with pytest.raises(BadInput, match="no GPU: say by `count` how many"):
        worker_places(None, on_cpu, {})
    assert worker_places(2, on_cpu, {}) == [{"SIMS_THREADS": str(max(1, CPUS // 2))}] * 2
    assert worker_places(2, Settings(device="cpu", threads=1), {}) == [{}, {}]


@pytest.mark.parametrize("kind", ["docker", "kubernetes", "ecs"])
def test_a_pool_s_file_is_what_prefect_s_own_schema_allows(kind):
    pool = read_pool(ROOT / "infra" / "pools" / f"{kind}.yaml", "sims-arms")
    assert (pool.name, pool.type) == ("sims-arms", kind)
    properties = pool.base_job_template["variables"]["properties"]
    assert properties.keys() == templates()[kind]["variables"]["properties"].keys()
    assert properties["env"]["default"]["SIMS_STORE"] == "/store"
    used = set(re.findall(r"\{\{ (\w+) \}\}", str(pool.base_job_template["job_configuration"])))
    assert used <= properties.keys()
    own = set(re.findall(r"\{\{ (\w+) \}\}", str(templates()[kind]["job_configuration"])))
    assert used == own, "nothing of Prefect's own job is lost"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type: swarm", "no type 'swarm'; there are: ecs, "),
        ("type: docker\nvariables: {imgae: x}", "no variable 'imgae' of type docker; there are: "),
        ("type: docker\nvariables: {volumes: 3}", "volumes: 3 is not of type 'array'"),
        ("type: docker\nvaria: {}", "varia: "),
        ("type: [", "cannot read "),
        (None, "cannot read "),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, problem):
    file = tmp_path / "pool.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=problem):
        read_pool(file, "sims-arms")


@pytest.mark.parametrize("name", ["worker", "train"])
def test_slurm_s_files_are_bash(name):
    file = ROOT / "infra" / "slurm" / f"{name}.sbatch"
    assert file.read_text().startswith("#!/bin/bash\n")
    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
