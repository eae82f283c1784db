"""The short form of `make chaos`: few kills of two kinds of command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "chaos" / "chaos.py"


@pytest.mark.slow
def test_killed_at_random_instants_every_byte_is_the_same():
    done = subprocess.run(
        [
            *(sys.executable, str(CHAOS), "--kills", "4", "--seed", "3", "--json"),
            *("--only", "gaussian2d", "import", "--minutes", "10"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scenarios = json.loads(done.stdout)["scenarios"]
    assert sum(each["kills"] for each in scenarios) >= 2  # more where nobody else computes
    for each in scenarios:
        assert each["artifacts"] > 0
        wrong = ("different", "computed_twice", "left", "problems")
        assert not any(each[name] for name in wrong)
