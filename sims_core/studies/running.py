"""The one way to run planned stages: for flows, commands and scripts, with Prefect and without.

A runner takes stages in their order, a batch at a time, and hands each batch to its *step*. The
plain step makes the batch at once; that of the flows makes it inside a Prefect task. Either way a
stage is read from the store or computed by `sims_core.catalog.run_stage`, and one observer is told.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Protocol, TypeVar

from sims_core import catalog
from sims_core.common.digest import digest_of
from sims_core.engine.execution import Execution
from sims_core.engine.stage import Progress, no_progress
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.leases import needing
from sims_core.store.store import Store
from sims_core.studies.freshness import Recompute, notices
from sims_core.studies.plan import Group, Plan, PlannedStage

logger = logging.getLogger("sims_core.studies")


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


@dataclass(frozen=True)
class Outcome:
    """How a stage of a run came about."""

    arm: str
    """Empty for what all arms share."""
    stage: PlannedStage
    cached: bool
    """It was in the store already, or another arm of this run had made it."""
    seconds: float
    """Time that computing it took, in this run or in an earlier one."""


@dataclass(frozen=True)
class Batch:
    """Consecutive stages of one generation that one step makes: most often a single one."""

    stages: tuple[PlannedStage, ...]

    @property
    def t(self) -> int:
        """The generation; 0 for what all arms share."""
        return self.stages[0].t

    @property
    def label(self) -> str:
        """What the step is called: `t=03 train base`, or `t=03 mix to evaluate` of several."""
        first, last = self.stages[0], self.stages[-1]
        return first.label if first is last else f"{first.label} to {last.role}"

    @property
    def name(self) -> str:
        """What kind of work it is: the name of the stage, or `generation` of several."""
        return self.stages[0].request.stage if len(self.stages) == 1 else "generation"

    @property
    def digest(self) -> str:
        """Names what the batch makes: a single stage's artifact, or all of them together."""
        digests = [stage.ref.digest for stage in self.stages]
        return digests[0] if len(digests) == 1 else digest_of(digests)

    @property
    def inputs(self) -> list[ArtifactRef]:
        """The artifacts that the batch is given, each once, without those that it makes itself."""
        made = {stage.ref for stage in self.stages}
        given = (ref for stage in self.stages for ref in stage.request.inputs.values())
        return [ref for ref in dict.fromkeys(given) if ref not in made]

    @property
    def accelerated(self) -> bool:
        """Whether any of its stages computes on the accelerator."""
        return any(catalog.find_stage(stage.request).accelerated for stage in self.stages)


def batches(stages: Sequence[PlannedStage]) -> Iterator[Batch]:
    """The stages in order: each alone, or a whole generation of which one is marked as `short`.

    What a step costs beside its stages (a Prefect task: 5 to 10 ms here, and more at the server)
    would exceed what such a generation takes.
    """
    for _, group in groupby(stages, key=lambda stage: (stage.t, stage.model)):
        generation = tuple(group)
        together = generation[0].t > 0 and any(
            catalog.find_stage(stage.request).short for stage in generation
        )
        yield from [Batch(generation)] if together else (Batch((stage,)) for stage in generation)


class Work(Protocol):
    """Makes a batch's stages in order; one that failed goes on at the stage that failed."""

    def __call__(self, computed_by: str, progress: Progress = no_progress) -> None:
        """`computed_by` is written into the records of what is computed here."""


Step = Callable[[Batch, Work], None]
"""Has a batch made by calling its work, or knows that the store holds all of it already."""


def at_once(batch: Batch, work: Work) -> None:
    """The step of a run without Prefect."""
    work(uuid.uuid4().hex)


P = TypeVar("P", bound=Plan)
RunGroups = Callable[[P, Sequence[Group]], list[Outcome]]


@dataclass(frozen=True)
class Runner:
    """Runs stages in a store, on this machine, and tells an observer."""

    store: Store
    execution: Execution
    observer: Observer = field(default_factory=Silent)
    step: Step = at_once
    recompute: Recompute = field(default_factory=Recompute)

    def run(
        self,
        arm: str,
        stages: Sequence[PlannedStage],
        after_generation: Callable[[int], None] = lambda t: None,
    ) -> list[Outcome]:
        """Runs stages one after the other.

        Args:
            arm: Where they belong; empty for what all arms share.
            stages: In an order in which they can run.
            after_generation: Called with t after the last stage of each generation.

        Raises:
            SimsError: A stage failed; what was finished stays.
        """
        last = {stage.t: stage for stage in stages}
        outcomes: list[Outcome] = []
        with needing(self.store, _taken_or_made(stages)):
            for batch in batches(stages):
                done: list[Outcome] = []
                work = partial(self._make, arm, batch, done)
                self.step(batch, work)
                if len(done) < len(batch.stages):  # the step knew that the store has them
                    at_once(batch, work)
                outcomes += done
                if batch.stages[-1] is last[batch.t]:
                    after_generation(batch.t)
        return outcomes

    def run_plan(self, plan: P, run_groups: RunGroups[P] | None = None) -> tuple[P, list[Outcome]]:
        """As `ran_plan`, for who needs the artifacts no more than anybody."""
        with self.ran_plan(plan, run_groups) as done:
            return done

    @contextmanager
    def ran_plan(
        self, plan: P, run_groups: RunGroups[P] | None = None
    ) -> Iterator[tuple[P, list[Outcome]]]:
        """Runs a plan, and what it plans anew from the findings of its first groups.

        Args:
            run_groups: Runs groups of a plan, given both; one after the other if not given.

        Yields:
            The whole plan, and how each of its stages came about; until the context is left nobody
            tidies away what was taken or made.
        """
        run_groups = run_groups or self.run_groups
        self._say_what_is_not_fresh(plan.groups)
        with needing(self.store, _taken_or_made(plan)) as lease:
            outcomes = run_groups(plan, plan.groups)
            whole = plan.completed(self.store)
            added = whole.groups[len(plan.groups) :]
            lease.add(_taken_or_made(whole))
            self._say_what_is_not_fresh(added)
            outcomes += run_groups(whole, added)
            yield whole, outcomes

    def run_groups(self, plan: Plan, groups: Sequence[Group]) -> list[Outcome]:
        """Runs groups one after the other, here."""
        return [outcome for name, stages in groups for outcome in self.run(name, stages)]

    def _say_what_is_not_fresh(self, groups: Sequence[Group]) -> None:
        """One line for each stage's name. What is computed anew needs none."""
        requests = (stage.request for _, stages in groups for stage in stages)
        kept = (each for each in requests if not self.recompute.wants(self.store, each))
        for line in notices(self.store, kept):
            logger.warning("%s", line)

    def _make(
        self,
        arm: str,
        batch: Batch,
        done: list[Outcome],
        computed_by: str,
        progress: Progress = no_progress,
    ) -> None:
        """Makes those stages of the batch that are not `done`."""
        for stage in batch.stages[len(done) :]:
            self.observer.started(arm, stage.label)
            advanced = partial(_tell, self.observer, stage.label, progress)
            catalog.run_stage(
                self.store,
                stage.request,
                self.execution,
                computed_by=computed_by,
                progress=advanced,
                anew=partial(self.recompute.wants, self.store, stage.request),
            )
            record = self.store.record(stage.ref)
            cached = record is None or record.computed_by != computed_by
            seconds = record.seconds if record else 0.0
            done.append(Outcome(arm, stage, cached, seconds))
            self.observer.finished(arm, stage.label, cached, seconds)


def _taken_or_made(stages: Iterable[PlannedStage]) -> Iterator[ArtifactRef]:
    for stage in stages:
        yield stage.ref
        yield from stage.request.inputs.values()


def _tell(
    observer: Observer,
    label: str,
    progress: Progress,
    done: int,
    total: int,
    unit: str,
    **figures: float,
) -> None:
    """Tells both of a stage's progress: who watches the run, and who watches its step."""
    observer.advanced(label, done, total, unit, **figures)
    progress(done, total, unit, **figures)
