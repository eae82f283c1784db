"""SIMS_CPU_ISA: the same bytes whatever the libraries would choose by themselves."""

import json
import os
import subprocess
import sys

import pytest

from sims_core.common.instructions import AVX2

TRAIN = """
import hashlib, json
import sims_core
import numpy, torch
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.randn(16, 8, 8, 8, generator=generator)
conv = torch.nn.Conv2d(8, 8, 3, padding=1)
head = torch.nn.Linear(512, 512)
for parameter in (*conv.parameters(), *head.parameters()):
    torch.nn.init.normal_(parameter, std=0.1, generator=generator)
optimiser = torch.optim.Adam([*conv.parameters(), *head.parameters()])
for _ in range(5):
    loss = (head(torch.nn.functional.silu(conv(x)).flatten(1)) - x.flatten(1)).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
trained = b"".join(p.detach().numpy().tobytes() for p in (*conv.parameters(), *head.parameters()))
figures = numpy.exp(x.numpy().astype(float)).tobytes()
found = {"capability": torch.backends.cpu.get_cpu_capability()}
found |= {"trained": hashlib.sha256(trained).hexdigest()}
print(json.dumps({**found, "figures": hashlib.sha256(figures).hexdigest()}))
"""


def python(code, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in AVX2}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def trained(**environment):
    done = python(TRAIN, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def other():
    """What the libraries do with less than AVX2, so that they differ on every machine."""
    return {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def test_what_is_pinned_is_the_same_whatever_the_libraries_would_choose(other):
    pinned = trained(SIMS_CPU_ISA="avx2")
    if pinned["capability"] != "AVX2":
        pytest.skip("this CPU has no AVX2")
    assert trained(SIMS_CPU_ISA="avx2", **other) == pinned
    assert trained(**other)["trained"] != pinned["trained"]  # the check can fail


def test_a_library_that_was_loaded_before_is_named():
    done = python("import numpy; import sims_core", SIMS_CPU_ISA="avx2")
    assert done.stderr.splitlines()[-1] == (
        "ImportError: SIMS_CPU_ISA is set, and numpy was imported before sims_core, so that it "
        "uses all instructions of this CPU: import sims_core first"
    )
    assert python("import numpy; import sims_core", SIMS_CPU_ISA="").returncode == 0


def test_neither_the_command_nor_prefect_loads_a_library_before():
    for start in ("infra.cli.main", "flows.sims_loop"):
        done = python(f"import {start}", SIMS_CPU_ISA="avx2")
        assert done.returncode == 0, done.stderr
    done = python("import prefect, prefect.engine, sims_core", SIMS_CPU_ISA="avx2")
    assert done.returncode == 0, done.stderr


def test_a_stage_refuses_a_cpu_without_them():
    """As if this CPU had none: torch is told so after sims_core has told it."""
    code = """
import os
import sims_core
os.environ["ATEN_CPU_CAPABILITY"] = "default"
from sims_core.common.errors import BadInput
from sims_core.engine.run import _check_instructions
try:
    _check_instructions()
except BadInput as error:
    print(error)
"""
    done = python(code, SIMS_CPU_ISA="avx2")
    assert done.stdout.startswith("SIMS_CPU_ISA is avx2, torch uses "), done.stderr
