"""Ctrl-C and SIGTERM end a run at once; what was finished stays."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest


def _trains(store):
    return lambda: list(store.glob("progress/*/state/checkpoint.pt"))


@pytest.fixture
def endless(sims, started, tmp_path, wait_for):
    """A run that trains for hours, when its first checkpoint is there."""

    def start(**settings):
        arguments = sims.run_arguments(tmp_path / "store", training__kimg="100000")
        run = started(*arguments, SIMS_CHECKPOINT_KIMG="0.1", **settings)
        wait_for(lambda: run.poll() is not None or _trains(tmp_path / "store")(), 100)
        assert run.poll() is None, run.communicate()[1]
        return run

    return start


def test_ctrl_c_ends_the_run_and_says_how_to_go_on(endless):
    """As from a terminal: every process of the group gets the signal, Prefect's API too."""
    run = endless()
    before = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    stdout, stderr = run.communicate(timeout=60)
    assert time.monotonic() - before < 15
    assert (run.returncode, stdout) == (130, "")
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: interrupted")
    assert "same command again" in line


def _ended_by_sigterm(run):
    stdout, stderr = run.communicate(timeout=60)
    assert (run.returncode, stdout) == (143, "")
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: ended by SIGTERM")
    assert "same command again" in line


def test_sigterm_to_the_group_ends_the_run_too(endless, wait_for):
    """As `timeout` and job managers send it; Prefect's API is a child of the run."""
    run = endless()
    children = psutil.Process(run.pid).children(recursive=True)
    assert any("prefect.server.api.server:create_app" in child.cmdline() for child in children)
    before = time.monotonic()
    os.killpg(run.pid, signal.SIGTERM)
    _ended_by_sigterm(run)
    assert time.monotonic() - before < 15
    assert wait_for(lambda: not any(child.is_running() for child in children), 20)


def test_sigterm_ends_the_run_without_a_traceback(endless, prefect_url):
    run = endless(PREFECT_API_URL=prefect_url)
    before = time.monotonic()
    run.terminate()
    _ended_by_sigterm(run)
    assert time.monotonic() - before < 15
