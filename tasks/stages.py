"""One Prefect task for each step of a run: look in the store, else compute; return references."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

from prefect import State, Task, task
from prefect.runtime import task_run

from sims_core.catalog import STAGES
from sims_core.settings import Settings
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.freshness import Recompute
from sims_core.studies.running import Batch, Work
from tasks.accelerator import accelerator_slot
from tasks.caching import BY_DIGEST, results_folder
from tasks.live import live_progress
from tasks.retries import DELAYS_S, worth_another_attempt

# What stages say (resumed at ..., waiting for ...) belongs into the run's log; see
# PREFECT_LOGGING_EXTRA_LOGGERS. Prefect leaves the level at warnings.
logging.getLogger("sims_core").setLevel(logging.INFO)


def _compute(label: str, digest: str, make: Callable[[], list[str]]) -> list[str]:
    """Makes a batch of stages; says where the artifacts are.

    Args:
        label: How Prefect's UI calls this task run.
        digest: What the batch is: Prefect's cache key.
        make: Does it. A function is all that Prefect is given: it would search anything else for
            the results of other tasks.
    """
    return make()


@cache
def stage_task(name: str) -> Task[[str, str, Callable[[], list[str]]], list[str]]:
    """The Prefect task of a stage, named after it; that of a batch of several is `generation`."""
    what = f"Stage {name} v{STAGES[name].version}" if name in STAGES else "Stages of a generation"
    return task(
        name=name,
        description=f"{what} of sims_core",
        task_run_name="{label}",
        cache_policy=BY_DIGEST,
        persist_result=True,
        result_serializer="json",
        retries=len(DELAYS_S),
        retry_delay_seconds=DELAYS_S,
        retry_condition_fn=worth_another_attempt,
    )(_compute)


class TaskStep:
    """The step of a runner inside a flow: makes each batch in a task of the current flow run.

    A task is told those tasks of this flow run that made its inputs: that is where Prefect's graph
    has its edges from, also from one generation to the next.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        tagged: bool = True,
        recompute: Recompute | None = None,
    ) -> None:
        """
        Args:
            tagged: Whether to tag each task with its generation. Prefect asks the server for the
                concurrency limit of each new tag, and waits for the answer: 50 ms where the server
                has nothing to do, 2 s where it is busy with what many short tasks have told it.
            recompute: What is made although the store has it.
        """
        self.store, self.settings, self.tagged = store, settings, tagged
        self.recompute = recompute or Recompute()
        self._states: dict[ArtifactRef, State[list[str]]] = {}

    def __call__(self, batch: Batch, work: Work) -> None:
        """Runs the task and waits for it; raises what it raised."""

        def make() -> list[str]:
            slot = accelerator_slot(self.settings) if batch.accelerated else nullcontext()
            with slot, live_progress(batch.label) as show:
                work(str(task_run.id), show)
            return [stage.ref.location for stage in batch.stages]

        whole = all(self.recompute.takes(self.store, stage.request) for stage in batch.stages)
        run = stage_task(batch.name).with_options(
            result_storage=results_folder(self.store),
            refresh_cache=not whole,
            tags=[f"generation:{batch.t}"] if self.tagged and batch.t else [],
        )
        upstream = [self._states[ref] for ref in batch.inputs if ref in self._states]
        state = run(batch.label, batch.digest, make, wait_for=upstream, return_state=True)
        if not state.is_completed():
            state.result()  # raises what the task raised
        self._states |= dict.fromkeys((stage.ref for stage in batch.stages), state)
