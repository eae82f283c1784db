"""Where the stages of this process report to while they run: Prefect hands a flow no observer."""

from __future__ import annotations

from sims_core.studies.running import Observer, Silent

_observer: Observer = Silent()


def observe(observer: Observer) -> None:
    """Makes `observer` the one that is told."""
    global _observer
    _observer = observer


def observer() -> Observer:
    return _observer
