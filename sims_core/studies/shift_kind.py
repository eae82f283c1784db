"""What a distribution shift asks of a kind of data; `Kind.SHIFT` names the object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import ClassVar, Literal

from sims_core.common.errors import BadInput
from sims_core.data.groups import GroupMix, RejectConfig, ReweighConfig
from sims_core.engine.stage import Stage
from sims_core.methods.base import Sampled
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.planner import Planner, kind_of

Labeller = Mapping[str, ArtifactRef]
"""What says which class a sample is of, as inputs of the stage that labels."""
Purpose = Literal["selection", "final", "preview"]


@dataclass(frozen=True)
class ShiftSetup:
    """What all models of a shift share."""

    real: ArtifactRef
    """What networks are trained on."""
    num_real: int
    labeller: Labeller
    """Labels S, the selection and the rejection's images."""
    judge: Labeller
    """Labels what is reported; trained independently of the labeller."""
    references: Mapping[str, ArtifactRef]
    """Inputs of the stages that measure against the whole real set."""
    extractor: Mapping[str, ArtifactRef]


class ShiftKind(ABC):
    """How samples of one kind of data are labelled, re-weighted and compared with a target mix."""

    SAMPLES: ClassVar[str]
    """What stages call samples among their inputs."""
    REJECT: ClassVar[Stage[RejectConfig]]
    """The stage that keeps some of them."""

    @abstractmethod
    def num_classes(self, experiment: Experiment) -> int:
        """Classes 0 .. n - 1 that groups are made of.

        Raises:
            BadInput: the data have no labels, or the experiment cannot be shifted.
        """

    @abstractmethod
    def setup(self, planner: Planner) -> ShiftSetup:
        """Plans the real data, what labels, and what generated data are compared with."""

    @abstractmethod
    def target_references(
        self, planner: Planner, setup: ShiftSetup, target: GroupMix, seed: int
    ) -> dict[str, ArtifactRef]:
        """Plans real data of the target mix; inputs of the stages that measure against it."""

    @abstractmethod
    def draw(
        self,
        planner: Planner,
        role: str,
        count: int,
        purpose: Purpose,
        sampled: Sampled,
        part: int = 0,
    ) -> ArtifactRef:
        """Plans samples of seeds that no other purpose (and no other part) has; a preview is a
        few, whatever `count`."""

    @abstractmethod
    def label(self, planner: Planner, role: str, samples: ArtifactRef, by: Labeller) -> ArtifactRef:
        """Plans the class of each sample."""

    @abstractmethod
    def reweigh(
        self,
        planner: Planner,
        role: str,
        samples: ArtifactRef,
        config: ReweighConfig,
        labels: ArtifactRef | None,
    ) -> ArtifactRef:
        """Plans a set of another mix; without `labels` of real data, by their own."""

    def reject(
        self,
        planner: Planner,
        role: str,
        config: RejectConfig,
        parts: Sequence[tuple[ArtifactRef, ArtifactRef]],
        shares: ArtifactRef,
    ) -> ArtifactRef:
        """Plans what rejection sampling keeps of (samples, labels); `shares` are labels of other
        samples of the model."""
        inputs = {f"{self.SAMPLES}_{k}": samples for k, (samples, _) in enumerate(parts)}
        inputs |= {f"labels_{k}": labels for k, (_, labels) in enumerate(parts)}
        return planner.add(role, self.REJECT.request(config, **inputs, shares=shares))

    @abstractmethod
    def measure(
        self,
        planner: Planner,
        setup: ShiftSetup,
        samples: ArtifactRef,
        references: Mapping[str, ArtifactRef],
    ) -> None:
        """Plans the metrics of all the samples against references."""

    def check_count(self, experiment: Experiment, name: str, count: int) -> Experiment:
        """The experiment that measures `count` samples.

        Raises:
            BadInput: they are too few, naming the flow's parameter.
        """
        return experiment


def shift_kind(experiment: Experiment) -> ShiftKind:
    """How the experiment's kind of data is shifted.

    Raises:
        BadInput: it cannot be.
    """
    kind = kind_of(experiment.data)
    if not kind.SHIFT:
        raise BadInput(
            f"distribution-shift needs data with classes, and {experiment.data.title} has none"
        )
    found: ShiftKind = resolve_name(kind.SHIFT)
    return found
