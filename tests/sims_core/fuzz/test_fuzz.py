"""Damaged files of every form that is read: our errors only, in bounded memory and time.

`make fuzz` does it for ten minutes, from another seed each time.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SECONDS = float(os.environ.get("SIMS_FUZZ_S", "4"))
LONG = 60


def test_damaged_files_of_every_form_give_only_our_errors():
    first = int(time.time()) if SECONDS > LONG else 0

    def bound():
        limit = int(SECONDS) + 120
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("worker.py")), str(SECONDS), str(first)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
        preexec_fn=bound,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["files"] >= 100
