"""What stands in the logs of two of Prefect's runs: an arm's figures also in its parent's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run

from sims_core.reports.figures_said import logger as figures


class _LogOf(APILogHandler):
    """Sends what it is given to the log of one run, whatever run says it."""

    def __init__(self, flow_run_id: str) -> None:
        super().__init__()
        self.flow_run_id = flow_run_id

    def prepare(self, record: logging.LogRecord) -> dict[str, Any]:
        there = {"flow_run_id": self.flow_run_id, "task_run_id": None}
        return super().prepare(logging.makeLogRecord(record.__dict__ | there))


@contextmanager
def figures_in_this_log() -> Iterator[None]:
    """Figures that a sub-flow's run says within stand in the log of the run around it, too.

    Prefect shows a record in the log of the innermost run only.
    """
    handler = _LogOf(str(flow_run.get_id()))
    figures.addHandler(handler)
    try:
        yield
    finally:
        figures.removeHandler(handler)
