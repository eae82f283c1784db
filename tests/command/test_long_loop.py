"""A loop of a hundred generations through the real command: killed in one, it goes on there."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

COMMAND = [
    *(sys.executable, "-c", "from infra.cli.main import main; main()"),
    *("run", "sims-loop/gaussian2d-quick", "--direct", "--json"),
    *("-p", "generations=100", "-p", "omegas=0", "-p", "pollution_sizes=500"),
    *("-p", "scan_omegas=[]", "-p", 'model.net={"kind":"exact_gaussian"}'),
    *("-p", "point_evaluation.empirical_points=20", "-p", "data.replicates=2"),
]


def start(store):
    environment = {**os.environ, "SIMS_STORE": str(store)}
    return subprocess.Popen(
        COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_killed_in_generation_57_it_goes_on_in_57(tmp_path):
    first = start(tmp_path / "store")
    for line in first.stderr:
        if "t=57 mix" in line:
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = start(tmp_path / "store")
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr[-2000:]
    steps = re.findall(r": t=(\d+) [a-z ]+: (cached|[\d.]+ s)(?:; .*)?$", stderr, re.M)
    assert len(steps) == 400
    computed = [int(t) for t, how in steps if how != "cached"]
    assert computed[0] in (57, 58)  # it may have finished the generation before the signal came
    assert computed == sorted(computed)
    assert {int(t) for t, how in steps if how == "cached"} == set(range(1, computed[0] + 1)) - (
        set() if len(computed) % 4 else {computed[0]}
    )
    summary = json.loads(stdout)
    assert len(summary["arms"][0]["generations"]) == 100
    assert summary["stages"]["cached"] >= 56 * 4
