"""What a stage is: a pure function from (configuration, input artifacts, version) to an artifact.

A stage is declared, not wrapped: it names its function as a string, as Prefect names an entry
point, so that a plan, or a run that finds everything in the store, imports no code that computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Generic, Protocol, TypeVar

from sims_core.common.frozen import Frozen
from sims_core.engine.execution import Execution
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store


class Progress(Protocol):
    """Called now and then by a long stage."""

    def __call__(self, done: int, total: int, unit: str, **figures: float) -> None: ...


def no_progress(done: int, total: int, unit: str, **figures: float) -> None:
    """Says nothing."""


C = TypeVar("C", bound=Frozen)


class ShareDone(Exception):
    """This process has made its part of a shared stage; the one that started it does the rest."""


@dataclass(frozen=True)
class StageContext(Generic[C]):
    """What a stage's function is given."""

    stage: str
    config: C
    inputs: Mapping[str, ArtifactRef]
    store: Store
    directory: Path
    """The artifact in the making, empty at first: whatever is here at the end is the artifact."""
    state: Path
    """The stage's own progress, which survives a kill and goes when the artifact is committed."""
    execution: Execution
    progress: Progress
    rank: int | None = None
    """Which one of the processes that share the stage this is; None: it is not shared (yet)."""

    def open(self, name: str) -> Path:
        """Verified folder of the input artifact `name`."""
        return self.store.open_artifact(self.inputs[name])


Compute = Callable[[StageContext[C]], dict[str, Any]]
"""Fills the context's `directory`; returns the manifest's details."""


@dataclass(frozen=True)
class Stage(Generic[C]):
    """A kind of work. `version` goes up whenever its result changes for the same configuration."""

    name: str
    version: int
    kind: str
    config: type[C]
    entry: str
    """`module:function` of what computes it: a `Compute` for this stage's configuration."""
    one_thread: Callable[[C], bool] = field(default=lambda config: False, repr=False)
    """Whether its matrices are so small that a second thread costs more than it saves."""
    short: bool = False
    """Whether a generation that has it takes so little time that its stages may share one step of a
    run (a Prefect task): a matter of seconds."""
    accelerated: bool = False
    """Whether it computes on `execution.device`; those that do not may overlap with those that do.
    """

    without_torch: bool = False
    """Whether it computes nothing by torch, whose import takes seconds and half a gigabyte."""

    @property
    def compute(self) -> Compute[C]:
        """The function that `entry` names; importing it may take seconds."""
        found: Compute[C] = resolve_name(self.entry)
        return found

    def request(self, config: C, **inputs: ArtifactRef) -> StageRequest:
        """What names the artifact that this stage makes of `config` and `inputs`."""
        return StageRequest(
            stage=self.name,
            version=self.version,
            kind=self.kind,
            config=config.model_dump(mode="json"),
            inputs=inputs,
        )
