"""What is worth another attempt: only what can pass by itself."""

from __future__ import annotations

import errno
from typing import Any

import httpx
from prefect import State
from prefect.client.schemas.objects import TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

DELAYS_S: list[float] = [5, 30, 120]
PASSING_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOLCK,
    errno.EREMOTEIO,
    errno.ESTALE,
}


def may_pass(error: object) -> bool:
    """Whether the same stage may succeed a minute later.

    A lost or overloaded Prefect server and a file system that is out of reach may; a wrong
    parameter, a full disk and a diverged training will not.
    """
    if isinstance(error, ConcurrencySlotAcquisitionError):
        return may_pass(error.__cause__)
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    if isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError)):
        return True
    return isinstance(error, OSError) and error.errno in PASSING_ERRNOS


def worth_another_attempt(task: Any, task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn` of every stage."""
    return may_pass(state.data)
