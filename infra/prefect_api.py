"""The Prefect API that a run in this process talks to: the user's server, or an embedded one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

from sims_core.errors import BadInput, SimsError

# Reads until its parent is gone, however it went, then ends the server. A process descriptor cannot
# hit another process that was given the server's number since.
_WATCHDOG = """
import os, signal, sys
server = os.pidfd_open(int(sys.argv[1]))
sys.stdin.buffer.read()
try:
    signal.pidfd_send_signal(server, signal.SIGTERM)
except ProcessLookupError:
    pass
"""

_watchdogs: list[subprocess.Popen[bytes]] = []
"""Kept so that their standard input stays open as long as this process lives."""


def check_prefect_api() -> None:
    """Makes sure of the server of PREFECT_API_URL if that is set.

    Raises:
        BadInput: it does not answer.
    """
    if not (url := PREFECT_API_URL.value()):
        return
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        raise BadInput(
            f"no Prefect server answers at {url} ({type(error).__name__}): start it with "
            "`prefect server start`, or unset PREFECT_API_URL to use the embedded one"
        ) from None


def ensure_prefect_api() -> None:
    """Starts an embedded server unless PREFECT_API_URL names one.

    Prefect stops its embedded server when this process exits, after the last log was sent. It is a
    child process, which would outlive a run that is killed by SIGKILL: a watchdog ends it then.

    Raises:
        SimsError: the embedded server did not start.
    """
    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer  # takes seconds

    server = SubprocessASGIServer()
    # Ctrl-C at a terminal reaches every process in front of it. The server inherits the blocked
    # signal and so outlives the run's clean-up, which would else retry against a dead server.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start(timeout=PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
    except RuntimeError as error:
        raise SimsError(f"Prefect's embedded API did not start: {error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert server.server_process is not None
    _watch(server.server_process.pid)


def _watch(pid: int) -> None:
    """Starts the watchdog of process `pid`; it ends with this process."""
    if not hasattr(os, "pidfd_open"):  # not Linux
        return
    # A session of its own: Ctrl-C at the terminal is for the run, not for its watchdog.
    watchdog = subprocess.Popen(  # noqa: S603 - our own program and a number
        [sys.executable, "-c", _WATCHDOG, str(pid)], stdin=subprocess.PIPE, start_new_session=True
    )
    _watchdogs.append(watchdog)
