"""Whether what the store has was made by the code and from the bytes that are there now.

An artifact's name says which stage, version, configuration and inputs it has, not which code ran: a
run takes what the store has, says so where other code made it, and makes it anew where it is asked
to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from sims_core import catalog
from sims_core.common.errors import BadInput
from sims_core.engine.source import code_digest, source_digest
from sims_core.store.artifacts import ArtifactRef, Record, StageRequest
from sims_core.store.store import Store

BY_OTHER_CODE = "cached, made by other code: raise its version, or pass `recompute`"
FROM_OTHER_INPUTS = "cached, made of inputs that were computed again since: pass `recompute`"


def _is_by_other_code(request: StageRequest, record: Record) -> bool:
    if record.origin is None or not record.origin.source or record.code == code_digest():
        return False
    return record.origin.source != source_digest(catalog.find_stage(request).entry)


def _is_of_other_inputs(
    content: Callable[[ArtifactRef], str], request: StageRequest, record: Record
) -> bool:
    if record.origin is None:
        return False
    return any(
        now != record.origin.inputs.get(name, now)
        for name, ref in request.inputs.items()
        if (now := content(ref))
    )


def notices(store: Store, requests: Iterable[StageRequest]) -> list[str]:
    """A line for each stage of which the store has an artifact that is not as it would be made now.

    Nothing is said of an artifact whose code is not known, and of none whose stage's name was said.
    """
    said: dict[tuple[str, str], None] = {}
    content = cache(store.content)
    for request in requests:
        record = store.record(request.ref)
        if record is None or not store.path(request.ref).exists():
            continue
        if _is_by_other_code(request, record):
            said[request.stage, BY_OTHER_CODE] = None
        elif _is_of_other_inputs(content, request, record):
            said[request.stage, FROM_OTHER_INPUTS] = None
    return [f"{stage}: {problem} {stage}" for stage, problem in said]


@dataclass(frozen=True)
class Recompute:
    """Stages whose artifacts a run computes anew, once, although the store has them."""

    stages: frozenset[str] = frozenset()
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the run began: what was computed later is taken."""

    @classmethod
    def of(cls, names: str) -> Recompute:
        """The stages of a list like `train,generate`, from now on.

        Raises:
            BadInput: there is no stage of one of these names.
        """
        stages = [name.strip() for name in names.split(",") if name.strip()]
        if unknown := [name for name in stages if name not in catalog.STAGES]:
            raise BadInput(
                f"no stage {unknown[0]!r} to compute again; stages: {', '.join(catalog.STAGES)}"
            )
        return cls(frozenset(stages))

    def wants(self, store: Store, request: StageRequest) -> bool:
        """Whether the artifact is computed although the store has it.

        So is what was made of an artifact that has other bytes since: not where those of the new
        one are the same.
        """
        if not self.stages:
            return False
        record = store.record(request.ref)
        if record is not None and self._is_new(record):
            return False
        if request.stage in self.stages:
            return True
        if record is None or record.origin is None:
            made = (store.record(ref) for ref in request.inputs.values())
            return any(each is not None and self._is_new(each) for each in made)
        return _is_of_other_inputs(store.content, request, record)

    def takes(self, store: Store, request: StageRequest) -> bool:
        """Whether the store or its bucket has the artifact, and it is not computed anew."""
        return store.has(request.ref) and not self.wants(store, request)

    def _is_new(self, record: Record) -> bool:
        return datetime.fromisoformat(record.finished) >= self.since
