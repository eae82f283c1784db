"""Locks: one holder, whatever is done to their files, and one that says who it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sims_core.common.errors import StoreError
from sims_core.store import locks
from sims_core.store.locks import holder, locked

HOLD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from sims_core.store.locks import locked
    with locked(Path(sys.argv[1]), "it"):
        print("held", flush=True)
        sys.stdin.readline()
    """
)


@pytest.fixture
def hold():
    """Starts a process that holds a lock until it is told to let it go."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def let_go(process):
    process.communicate("\n", timeout=60)


def in_thread(path, entered):
    def run():
        with locked(path, "model/abc"):
            entered.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_lock_says_who_holds_it_and_goes(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path, "it"):
        who = holder(path)
        assert (who["host"], who["pid"]) == (socket.gethostname(), os.getpid())
        assert locks.condition(who) == "alive"
    assert list(tmp_path.iterdir()) == []


def test_who_waits_says_for_whom_and_goes_on_saying_so(tmp_path, hold, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(locks, "TELL_S", 0.3)
    path, entered = tmp_path / "a.lock", []
    process = hold(path)
    thread = in_thread(path, entered)
    wait_for(lambda: len(caplog.messages) >= 3)
    assert all(f"process {process.pid} on {socket.gethostname()}" in m for m in caplog.messages)
    assert "waiting for model/abc" in caplog.messages[0]
    assert "alive" in caplog.messages[0]
    assert "so far" in caplog.messages[-1]
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: f"stopped: let it go on (kill -CONT {process.pid})" in caplog.messages[-1])
    assert not entered
    os.kill(process.pid, signal.SIGCONT)
    let_go(process)
    thread.join(30)
    assert entered
    assert not path.exists()


def test_a_holder_that_is_killed_frees_the_lock(tmp_path, hold):
    process = hold(tmp_path / "a.lock")
    process.kill()
    process.wait()
    with locked(tmp_path / "a.lock", "it"):
        assert holder(tmp_path / "a.lock")["pid"] == os.getpid()


def test_a_lock_removed_while_it_is_held_lets_nobody_else_in(tmp_path, hold):
    path, entered = tmp_path / "a.lock", []
    first = hold(path)
    waited = in_thread(path, entered)  # for the file that is now removed
    time.sleep(0.3)
    path.unlink()
    came_later = in_thread(path, entered)
    time.sleep(0.6)
    assert not entered
    let_go(first)
    for thread in (waited, came_later):
        thread.join(30)
    assert len(entered) == 2


def test_who_gives_a_lock_back_leaves_the_next_ones_file(tmp_path, hold):
    path = tmp_path / "a.lock"
    first = hold(path)
    path.unlink()
    path.write_bytes(b"")  # the next one has made its file, and waits
    let_go(first)
    assert path.exists()


def test_many_at_once_are_one_at_a_time(tmp_path):
    """Each removes its file: none may come in beside another."""
    path, inside, most = tmp_path / "a.lock", [], []

    def work():
        for _ in range(20):
            with locked(path, "it"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert most == [1] * 120


def test_a_link_is_not_followed_and_no_file_is_changed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("all that I have")
    path = tmp_path / "a.lock"
    for put in (
        lambda: path.symlink_to(precious),
        lambda: path.hardlink_to(precious),
        lambda: path.symlink_to(tmp_path / "nothing"),
        lambda: path.write_text("somebody's notes"),
        path.mkdir,
        lambda: os.mkfifo(path),
    ):
        put()
        with (
            pytest.raises(StoreError, match=r"a\.lock is in the way of a lock: remove it"),
            locked(path, "it"),
        ):
            pass
        assert precious.read_text() == "all that I have"
        assert not (tmp_path / "nothing").exists()
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def test_what_a_killed_holder_wrote_is_no_obstacle(tmp_path):
    path = tmp_path / "a.lock"
    for content in (b"", b'{"lock": 1, "host"'):
        path.write_bytes(content)
        assert holder(path) is None
        with locked(path, "it"):
            assert holder(path)["pid"] == os.getpid()


@pytest.mark.parametrize(
    "content", [b"", bytes(90), b'{"lo', b'{"lock": 1, "host": "gpu1", "p' + bytes(60)]
)
def test_what_a_power_cut_left_of_a_locks_file_locks_nobody_out(content, tmp_path):
    path = tmp_path / "a.lock"
    path.write_bytes(content)
    with locked(path, "a"):
        assert holder(path)["pid"] == os.getpid()
    assert not path.exists()
