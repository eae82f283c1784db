"""Where stages report to while they run: one observer per process."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told about each stage of this process, in order."""

    def started(self, arm: str, label: str) -> None: ...

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None: ...

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None: ...


class Silent:
    """Shows nothing."""

    def started(self, arm: str, label: str) -> None: ...

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None: ...

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None: ...


_observer: Observer = Silent()


def observe(observer: Observer) -> None:
    """Makes `observer` the one that is told."""
    global _observer
    _observer = observer


def observer() -> Observer:
    return _observer
