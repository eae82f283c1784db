"""Arms on many workers: the flow of one arm under a worker, and how a run waits for its arms."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from prefect import flow

from flows.arm import shows_generations, task_runner
from flows.parameters import asked, checked
from flows.planned import PlannedRun
from flows.registry import load_signature
from sims_core.common.digest import digest_of
from sims_core.common.errors import SimsError
from sims_core.reports.unfinished import followed, followed_part
from sims_core.settings import open_store
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.marks import described, leave_mark, place_of, shares_bucket, shares_folder
from sims_core.store.store import Store
from sims_core.studies.freshness import Recompute
from sims_core.studies.loop import LoopPlan
from sims_core.studies.plan import Group, Plan, PlannedStage
from sims_core.studies.running import Outcome, Runner
from sims_core.studies.side_by_side import Part, parts_of
from tasks.pool import Job, compute_in_pool, require_pool
from tasks.progress import observer


@flow(name="arm", persist_result=False)
def arm(
    of_flow: str,
    parameters: dict[str, Any],
    part: str,
    digest: str,
    store: str,
    mark: str = "",
    recompute: list[str] = [],  # noqa: B006 - Prefect reads it
    since: datetime | None = None,
) -> None:
    """One arm of a run that waits for it, by a worker of its pool. Started by runs with arms=pool.

    Args:
        of_flow: The flow whose run waits.
        parameters: All parameters of that run.
        part: Name of the arm.
        digest: What the arm's stages are, by that run's plan.
        store: The run's store, and its bucket if it has one, for people.
        mark: What the run has left in both, by which the worker knows that it shares one of them.
        recompute: Stages that the run computes anew.
        since: When the run began: what was computed later is not computed anew.
    """
    own = open_store()
    _check_shares(own, store, mark, bool(recompute))
    run = PlannedRun.of(of_flow, checked(load_signature(of_flow), parameters), own)
    plan, found = _planned_part(run.plan, part, own)
    if found is None or found.digest != digest:
        raise SimsError(
            f"this worker plans other stages for {part} than the run: it has other settings "
            "(SIMS_DATA, SIMS_INCEPTION_WEIGHTS), another version of sims-loop, or a name in the "
            "store was given to something else meanwhile"
        )
    again = Recompute(frozenset(recompute), since) if since else Recompute()
    folder = run.ended(plan, ()).folder(own) if shares_folder(own, mark) else None
    with followed_part(observer(), own, plan, found, folder) as told:
        task_runner(own, plan, told, again).run(part, found.stages, _shows(own, run, plan, part))


def _check_shares(own: Store, store: str, mark: str, recomputes: bool) -> None:
    """Raises SimsError unless what this worker makes comes to the run."""
    if mark and shares_folder(own, mark):
        return
    if not (mark and shares_bucket(own, mark)):
        raise SimsError(
            f"this worker shares neither store nor bucket with the run: it has {described(own)}, "
            f"the run has {store}; start the worker with SIMS_STORE naming the run's folder, or "
            "both with SIMS_REMOTE naming one bucket"
        )
    if recomputes:
        raise SimsError(
            "`recompute` with arms=pool wants workers that share the run's folder, and this one "
            "shares a bucket alone, of which other hosts keep what they have: leave out arms, or "
            "start the worker with SIMS_STORE naming the run's folder"
        )


def _planned_part(plan: Plan, name: str, store: Store) -> tuple[Plan, Part | None]:
    """The part of this name, of the plan or of what follows from its findings."""
    parts = {part.name: part for part in parts_of(plan)}
    if name not in parts and plan.undecided:
        plan = plan.completed(store)
        parts = {part.name: part for part in parts_of(plan)}
    return plan, parts.get(name)


def _shows(store: Store, run: PlannedRun, plan: Plan, part: str) -> Callable[[int], None]:
    """What is shown after each generation of an arm of a loop; nothing of other parts."""
    arms = {each.name: each for each in plan.arms} if isinstance(plan, LoopPlan) else {}
    if part in arms and isinstance(plan, LoopPlan):
        return shows_generations(store, run, plan, arms[part])
    return lambda t: None


RunGroup = Callable[[Runner, str, Sequence[PlannedStage]], list[Outcome]]


@contextmanager
def ran_stages(
    store: Store, run: PlannedRun, run_group: RunGroup = Runner.run
) -> Iterator[tuple[Plan, list[Outcome]]]:
    """Runs a plan where the run's parameter `arms` says.

    Args:
        run_group: How a group of stages runs in this process.

    Yields:
        The whole plan, and how each of its stages came about; until the context is left nobody
        tidies away what was taken or made.
    """
    in_pool = run.parameters["arms"] == "pool"
    if in_pool:
        require_pool()
    with followed(observer(), store, run.ended(run.plan, ())) as told:
        runner = task_runner(store, run.plan, told)

        def here(plan: Plan, groups: Sequence[Group]) -> list[Outcome]:
            return [each for name, stages in groups for each in run_group(runner, name, stages)]

        run_groups = Pool(store, run, runner) if in_pool else here
        with runner.ran_plan(run.plan, run_groups) as done:
            yield done


class Pool:
    """Has groups of stages computed by the workers of the pool."""

    def __init__(self, store: Store, run: PlannedRun, runner: Runner) -> None:
        self.store, self.run, self.runner = store, run, runner
        self._told: set[tuple[str, str]] = set()
        """Arm and label of every stage that the observer knows of."""
        stages = sorted(runner.recompute.stages)
        self.key = digest_of([run.flow, asked(run.parameters), place_of(store), stages])

    def __call__(self, plan: Plan, groups: Sequence[Group]) -> list[Outcome]:
        """Waits until all of the plan is there.

        Raises:
            SimsError: arms failed, or the workers share neither store nor bucket.
        """
        leave_mark(self.store, self.key)
        parts = {part.name: part for part in parts_of(plan)}
        had = {stage.ref for stage in plan if self._is_made(stage)}
        missing = [p for p in parts.values() if not had.issuperset(s.ref for s in p.stages)]
        compute_in_pool(
            [self._job(part) for part in missing],
            lambda job: self._check(parts[job.name]),
            self._looking(groups, had),
        )
        outcomes, seen = [], set(had)
        for name, stages in groups:
            for stage in stages:
                outcome = Outcome(name, stage, stage.ref in seen, self._seconds(stage))
                outcomes.append(outcome)
                seen.add(stage.ref)  # another arm of this run has made it
                self._tell(outcome)
        return outcomes

    def _looking(self, groups: Sequence[Group], had: Collection[ArtifactRef]) -> Callable[[], None]:
        """What tells the observer, whenever it is called, which stages are there meanwhile."""
        # One that is to be made anew is there from the beginning: told when all have ended.
        waiting = [
            (name, deque(s for s in stages if s.ref in had or not self.store.path(s.ref).exists()))
            for name, stages in groups
        ]
        seen = set(had)

        def look() -> None:
            for name, stages in waiting:
                while stages and self.store.path(stages[0].ref).exists():
                    stage = stages.popleft()
                    self._tell(Outcome(name, stage, stage.ref in seen, self._seconds(stage)))
                    seen.add(stage.ref)

        return look

    def _tell(self, outcome: Outcome) -> None:
        """Tells the observer of a stage, once."""
        place = (outcome.arm, outcome.stage.label)
        if place not in self._told:
            self._told.add(place)
            self.runner.observer.finished(*place, outcome.cached, outcome.seconds)

    def _seconds(self, stage: PlannedStage) -> float:
        record = self.store.record(stage.ref)
        return record.seconds if record else 0.0

    def _is_made(self, stage: PlannedStage) -> bool:
        recompute = self.runner.recompute
        return self._has(stage.ref) and not recompute.wants(self.store, stage.request)

    def _has(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is in the store, brought from its bucket if need be; it is in both
        then."""
        if self.store.behind is None:
            return self.store.is_whole(ref)
        if not self.store.has(ref):  # the lock may be a worker's in the same folder
            return False
        with self.store.lock(ref):
            brought = self.store.bring(ref)
            if brought:
                self.store.behind.publish(ref)
            return brought

    def _check(self, part: Part) -> None:
        """Raises SimsError unless an arm that was computed is in the store."""
        if lacking := [s.label for s in part.stages if not self._has(s.ref)]:
            raise SimsError(
                f"{part.name} was computed, but {described(self.store)} lacks {lacking[0]}: it was "
                "removed meanwhile, or is damaged; run the same command again"
            )

    def _job(self, part: Part) -> Job:
        recompute = self.runner.recompute
        return Job(
            name=part.name,
            title=f"{part.name} of {self.run.name}",
            key=digest_of([self.key, part.name]),
            parameters={
                "of_flow": self.run.flow,
                "parameters": dict(self.run.parameters),
                "part": part.name,
                "digest": part.digest,
                "store": described(self.store),
                "mark": self.key,
                "recompute": sorted(recompute.stages),
                "since": recompute.since.isoformat() if recompute.stages else None,
            },
        )
