"""How an arm's flow run is doing, as the run that waits for it sees it: computed, failed or lost.

Prefect's automations could put a lost run back, too. But a server with SQLite loses events on their
way to the automations when it is busy, and what follows a lost event waits for a quarter of an
hour; so they take runs for silent that compute, and even runs that have ended. The stored events
are whole, and are what is asked here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import State
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.states import AwaitingRetry, Failed

from tasks.names import HEARTBEAT, SILENT

logger = logging.getLogger("sims_core.pool")

MOST_STARTS = 3
"""An arm whose worker was lost so often is not started again."""
CRASH_SETTLES_S = 12.0
"""A worker reports a crash twice, 5 s apart, and the second report undoes what came between."""
SILENT_S = 90.0
"""Three heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
STARTS_S = {"process": 90.0}
"""A worker that has taken a run has begun it by then, by the type of its pool."""
STARTS_CONTAINER_S = 900.0
"""The same where it starts a container, whose image may have to be fetched."""
_EVENTS = 50
"""The server answers with at most so many at once."""


def heartbeats(client: SyncPrefectClient, runs: Sequence[UUID]) -> dict[UUID, datetime]:
    """When runs last gave a sign of life, each by the clock of its own host.

    Returns:
        That of each run that has given one, and that fewer than 50 younger ones of others hide.
    """
    last: dict[UUID, datetime] = {}
    now = datetime.now(UTC)
    # No clock of another host is a day from ours.
    around = EventOccurredFilter(since=now - timedelta(days=1), until=now + timedelta(days=1))
    for first in range(0, len(runs), _EVENTS):
        ids = {f"prefect.flow-run.{run}": run for run in runs[first : first + _EVENTS]}
        wanted = EventFilter(
            occurred=around,
            event=EventNameFilter(name=[HEARTBEAT]),
            resource=EventResourceFilter(id=list(ids)),
        )
        for event in client.read_events(wanted, limit=_EVENTS).events:
            run = ids[event.resource.id]
            last[run] = max(event.occurred, last.get(run, event.occurred))
    return last


@dataclass
class Watched:
    """An arm's run as it was last seen.

    Args:
        name: of the arm.
        starts_s: A worker that has taken it has begun it after so many seconds, or is lost.
    """

    name: str
    starts_s: float
    state: UUID | None = field(default=None, init=False)
    heartbeat: datetime | None = field(default=None, init=False)
    heard_at: float = field(default_factory=time.monotonic, init=False)
    """When it changed its state or gave a sign of life, by our own clock."""

    def hear(self) -> None:
        """Its silence begins anew."""
        self.heard_at = time.monotonic()

    def look(
        self, client: SyncPrefectClient, run: FlowRun, heartbeat: datetime | None
    ) -> str | None:
        """Looks at the run, and puts it back into its pool if it is lost.

        Returns:
            Why it failed; empty if it is computed, None if it has not ended.
        """
        state = run.state
        if state is None:
            return None
        self._notice(state, heartbeat)
        if state.is_final() and not state.is_crashed():
            return "" if state.is_completed() else state.message or state.name or "ended"
        if (lost := self._lost(state)) is None:
            return None
        return self._put_back(client, run, lost)

    def _notice(self, state: State[Any], heartbeat: datetime | None) -> None:
        if state.id != self.state:
            said = f" ({state.message})" if state.message and state.is_final() else ""
            logger.info("%s: %s%s", self.name, state.name, said)
            self.state = state.id
            if not _called_silent(state):
                self.hear()
        if heartbeat is not None and heartbeat != self.heartbeat:
            self.heartbeat = heartbeat
            self.hear()

    def _lost(self, state: State[Any]) -> str | None:
        """Why it has to be put back; None if it need not be."""
        silence = time.monotonic() - self.heard_at
        if state.is_pending() and silence >= self.starts_s:
            return f"not begun for {self.starts_s:.0f} s"
        if (state.is_running() or _called_silent(state)) and silence >= SILENT_S:
            return f"no sign of life for {SILENT_S:.0f} s"
        if state.is_crashed() and not _called_silent(state) and silence >= CRASH_SETTLES_S:
            return state.message or "crashed"
        return None

    def _put_back(self, client: SyncPrefectClient, run: FlowRun, lost: str) -> str | None:
        states = client.read_flow_run_states(run.id)
        now = max(states, key=lambda state: state.timestamp)
        if run.state is None or now.type is not run.state.type:
            return None  # it is not what it was when it was read
        if (count := starts(states)) >= MOST_STARTS:
            reason = f"started {count} times and lost each time; last: {lost}"
            failed: State[Any] = Failed(message=reason)
            client.set_flow_run_state(run.id, failed, force=True)
            return reason
        why = f"{lost}: another worker takes over"
        again: State[Any] = AwaitingRetry(scheduled_time=datetime.now(UTC), message=why)
        client.set_flow_run_state(run.id, again)
        return None


def _called_silent(state: State[Any]) -> bool:
    """Whether the automation of `sims setup` took the run for dead, which may be wrong."""
    return state.is_crashed() and (state.message or "").startswith(SILENT)


def starts(states: Sequence[State[Any]]) -> int:
    """How often a run was started, by the states that it has had."""
    return sum(state.type is StateType.RUNNING for state in states)
