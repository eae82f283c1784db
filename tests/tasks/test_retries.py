"""Another attempt only where it can help."""

from __future__ import annotations

import errno

import httpx
import pytest
from prefect import flow
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.states import Failed

from sims_core.common.errors import BadInput, StoreError, TrainingDiverged
from tasks.retries import DELAYS_S, may_pass, worth_another_attempt
from tasks.stages import stage_task

REQUEST = httpx.Request("GET", "http://127.0.0.1/api")


def _status(code):
    return httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(code))


def _slot(cause):
    error = ConcurrencySlotAcquisitionError("gpu")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("slow"), True),
        (_status(503), True),
        (_status(429), True),
        (_status(404), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EIO, "i/o"), True),
        (OSError(errno.ESTALE, "stale handle"), True),
        (_slot(httpx.ConnectError("refused")), True),
        (_slot(None), False),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (StoreError("full"), False),
        (BadInput("omega"), False),
        (TrainingDiverged("nan"), False),
        (ValueError("a bug"), False),
        (MemoryError(), False),
    ],
)
def test_only_what_can_pass_is_tried_again(error, passes):
    assert may_pass(error) is passes
    assert worth_another_attempt(None, None, Failed(data=error)) is passes


@pytest.mark.parametrize(
    ("error", "attempts"), [(OSError(errno.EIO, "i/o"), 1 + len(DELAYS_S)), (BadInput("no"), 1)]
)
def test_prefect_tries_a_stage_as_often_as_that(
    error, attempts, prefect_url, monkeypatch, tmp_path
):
    monkeypatch.setenv("SIMS_STORE", str(tmp_path))
    calls = []

    def fail():
        calls.append(1)
        raise error

    at_once = stage_task("prepare").with_options(retry_delay_seconds=[0, 0, 0])

    @flow
    def one_stage():
        at_once("prepare data", "0" * 64, fail)

    with pytest.raises(type(error)):
        one_stage()
    assert len(calls) == attempts
