"""The Prefect API that a run in this process talks to: the user's server, or an embedded one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx
from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
)
from prefect.states import Crashed

from sims_core.common.errors import BadInput, SimsError
from tasks.attempts import mark_cancelled
from tasks.crashes import KILLED, crash_arms

# Reads until its parent is gone, however it went. If that had said no more than which flow run it
# is, that run has crashed. Then it ends the parent's server, if it has one; a process descriptor
# cannot hit another process that was given the server's number since.
_WATCHDOG = """
import os, signal, sys
server = os.pidfd_open(int(sys.argv[1])) if sys.argv[1] else None
said = sys.stdin.read().split()
try:
    if len(said) == 1:
        from infra.server.prefect_api import mark_crashed
        mark_crashed(said[0])
finally:
    if server is not None:
        try:
            signal.pidfd_send_signal(server, signal.SIGTERM)
        except ProcessLookupError:
            pass
"""

_watchdogs: list[subprocess.Popen[str]] = []
"""Kept so that its standard input stays open as long as this process lives."""


def check_prefect_api() -> None:
    """Makes sure of the server of PREFECT_API_URL if that is set.

    Raises:
        BadInput: it does not answer, or refuses the password.
    """
    if not (url := PREFECT_API_URL.value()):
        return
    user, _, password = (PREFECT_API_AUTH_STRING.value() or "").partition(":")
    auth = (user, password) if user else None
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10).raise_for_status()
        # Whoever asks, a server says that it is well.
        version = httpx.get(f"{url.rstrip('/')}/admin/version", auth=auth, timeout=10)
    except httpx.HTTPError as error:
        raise BadInput(
            f"no Prefect server answers at {url} ({type(error).__name__}): start it with "
            "`prefect server start`, or unset PREFECT_API_URL to use the embedded one"
        ) from None
    if version.status_code == httpx.codes.UNAUTHORIZED and not PREFECT_API_KEY.value():
        raise BadInput(
            f"the Prefect server at {url} wants another password: set PREFECT_API_AUTH_STRING to "
            "its user:password"
        )


def ensure_prefect_api() -> None:
    """Starts an embedded server unless PREFECT_API_URL names one, and a watchdog of this process.

    Prefect stops its embedded server when this process exits, after the last log was sent. It is a
    child process, which would outlive a run that is killed by SIGKILL, and on any server the run
    would stay Running for ever: the watchdog sees to both.

    Raises:
        SimsError: the embedded server did not start.
    """
    if url := PREFECT_API_URL.value():
        _watch(url)
        return
    from prefect.server.api.server import SubprocessASGIServer  # takes seconds

    server = SubprocessASGIServer()
    try:
        with _children_in_groups_of_their_own():
            server.start(timeout=PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
    except RuntimeError as error:
        raise SimsError(f"Prefect's embedded API did not start: {error}") from None
    assert server.server_process is not None
    _watch(server.api_url, server.server_process.pid)


@contextmanager
def _children_in_groups_of_their_own() -> Iterator[None]:
    """Processes started within are not of this process's group.

    Ctrl-C at a terminal, `timeout` and job managers signal every process of a group. The server has
    to outlive the run's clean-up, which would else retry against a dead one, and Prefect starts it
    without a word on groups.
    """
    popen = subprocess.Popen
    with patch.object(subprocess, "Popen", partial(popen, process_group=0)):
        yield


def run_watched(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Runs the flow; if this process is killed meanwhile, its flow run becomes Crashed, and
    Cancelled if it is interrupted."""
    began: list[str] = []

    def running(flow: Any, flow_run: FlowRun, state: Any) -> None:
        began.append(str(flow_run.id))
        _tell_watchdog(began[0])

    try:
        return flow.with_options(on_running=[*flow.on_running_hooks, running])(**parameters)
    except KeyboardInterrupt:
        if began:
            with suppress(Exception):  # a server that is gone cannot be told
                mark_cancelled(began[0])
        raise
    finally:
        _tell_watchdog("ended")


def mark_crashed(flow_run_id: str) -> None:
    """Marks a flow run and its arms, as far as they have not ended."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run_id))
        if run.state is None or not run.state.is_final():
            crash_arms(None, run, None)
            crashed: State[Any] = Crashed(message=KILLED)
            client.set_flow_run_state(run.id, crashed, force=True)


def _tell_watchdog(word: str) -> None:
    for watchdog in _watchdogs:
        assert watchdog.stdin is not None
        with suppress(OSError):  # it is gone itself
            print(word, file=watchdog.stdin, flush=True)


def _watch(url: str, pid: int | None = None) -> None:
    """Starts the watchdog of this process, and of the server `pid` that it started at `url`."""
    if not hasattr(os, "pidfd_open"):  # not Linux
        return
    # A session of its own: Ctrl-C at the terminal is for the run, not for its watchdog.
    watchdog = subprocess.Popen(  # noqa: S603 - our own program and a number
        [sys.executable, "-c", _WATCHDOG, str(pid or "")],
        env={**os.environ, "PREFECT_API_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    _watchdogs.append(watchdog)
