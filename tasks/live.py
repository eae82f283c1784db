"""A long stage's progress in Prefect's UI: one artifact, kept up to date by a thread of its own.

The stage itself never waits for Prefect's API, and a stage of under two seconds makes no call.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.runtime import flow_run, task_run

from sims_core.engine.stage import Progress
from sims_core.reports.moment import Moment

logger = logging.getLogger("sims_core.live")

INTERVAL_S = 2.0


def artifact_key(*words: str) -> str:
    """A key of lower-case letters, digits and dashes, as Prefect wants it."""
    text = re.sub(r"\|D_(\w)\|", r"D\1", "-".join(words))  # |D_s|=250 as ds-250
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class LiveProgress:
    """Shows what `advanced` was last told, at most every two seconds, until `close`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.key = artifact_key("progress", re.sub(r"^t=\d+ ", "", label))
        self._first: Moment | None = None
        self._latest: Moment | None = None
        self._shown: Moment | None = None
        self._artifact: UUID | None = None
        self._ended = Event()
        # Who runs is known here only.
        self._ids = {"flow_run_id": flow_run.id, "task_run_id": task_run.id}
        self._thread = Thread(target=copy_context().run, args=(self._show,), daemon=True)

    def advanced(self, done: int, total: int, unit: str, **figures: float) -> None:
        self._latest = Moment.of(time.monotonic(), done, total, unit, figures)
        if self._first is None:
            self._first = self._latest
            self._thread.start()

    def close(self) -> None:
        """A server that does not answer does not hold the stage."""
        self._ended.set()
        if self._first is not None:
            self._thread.join(timeout=5)

    def _show(self) -> None:
        if self._ended.wait(INTERVAL_S):
            return
        try:
            with get_client(sync_client=True) as client:
                while not self._ended.is_set():
                    self._post(client)
                    self._ended.wait(INTERVAL_S)
                self._post(client)
        except Exception:  # whatever ails the UI, the stage goes on
            logger.debug("the progress of %s is no longer shown", self.label, exc_info=True)

    def _post(self, client: SyncPrefectClient) -> None:
        first, latest = self._first, self._latest
        if latest is self._shown or first is None or latest is None:
            return
        text = latest.describe(self.label, first)
        if self._artifact is None:
            artifact = ArtifactCreate.model_validate(
                {"key": self.key, "type": "progress", "data": latest.percent, "description": text}
                | self._ids
            )
            self._artifact = client.create_artifact(artifact).id
        else:
            client.update_artifact(
                self._artifact, ArtifactUpdate(data=latest.percent, description=text)
            )
        self._shown = latest


@contextmanager
def live_progress(label: str) -> Iterator[Progress]:
    """What the stage of this task run is to call."""
    shown = LiveProgress(label)
    try:
        yield shown.advanced
    finally:
        shown.close()
