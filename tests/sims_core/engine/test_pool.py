"""A function in processes of its own."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from sims_core.common.errors import SimsError
from sims_core.engine.pool import Pool


def test_values_and_errors_come_back():
    with Pool("os:strerror", 2) as pool, ThreadPoolExecutor(2) as threads:
        numbers = list(range(1, 30))
        assert list(threads.map(pool, numbers)) == [os.strerror(n) for n in numbers]
        with pytest.raises(RuntimeError, match="TypeError"):
            pool("no number")


def test_an_error_of_the_system_stays_one():
    with Pool("os:stat", 1) as pool, pytest.raises(FileNotFoundError, match="absent"):
        pool("absent")


def test_a_process_that_is_killed_is_one_line():
    with Pool("os:getpgid", 1) as pool:
        (process, _) = pool._processes[0]
        assert pool(process.pid) == os.getpgid(0)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(SimsError, match="a process ended without a word"):
            pool(0)


def test_processes_end_with_the_pool():
    with Pool("os:strerror", 2) as pool:
        processes = [process for process, _ in pool._processes]
    assert all(process.returncode is not None for process in processes)
