"""What a method is: how a generation's model is made of its training data.

A method is one file of this package with one configuration class. It may plan stages of its own
round the base (draw images, train an auxiliary, ...) and says what is sampled in the end. Planner,
flows and reports know no method by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, Self

from pydantic import BeforeValidator, SerializeAsAny

from sims_core.common.frozen import Frozen
from sims_core.common.variants import Variants
from sims_core.diffusion.config import SigmaInterval
from sims_core.nets.config import BaseConfig, ImportedModel, ModelConfig, Net
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.training.config import TrainingConfig


class Steps(Protocol):
    """What a method may plan in one generation. Each call returns the artifact that will be made.

    A `role` is the stage's label. A `purpose` is what its seed is derived from.
    """

    @property
    def model(self) -> ModelConfig:
        """The base's network and preconditioning."""

    @property
    def training(self) -> TrainingConfig:
        """The base's recipe."""

    @property
    def base_kimg(self) -> float | None:
        """How long the base is trained; None: it is imported, and that is not known."""

    def add(self, role: str, request: StageRequest) -> ArtifactRef:
        """Any stage."""

    def draw(self, role: str, purpose: str, count: int, base: ArtifactRef) -> ArtifactRef:
        """`count` samples of the unguided `base`, as networks see them."""

    def training_set(
        self, role: str, real: ArtifactRef | None, synthetic: ArtifactRef
    ) -> ArtifactRef:
        """All of `synthetic`, and all of `real` (a training set) where that is given."""

    def train(
        self,
        role: str,
        purpose: str,
        training: TrainingConfig,
        inputs: Mapping[str, ArtifactRef],
        *,
        model: ModelConfig | None = None,
        snapshots_kimg: tuple[float, ...] = (),
    ) -> ArtifactRef:
        """Trains a model (None: one like the base) on the input `data`, from `initial` if given.

        Also keeps it as it is at the lengths of `snapshots_kimg`.
        """

    def bring_auxiliary(self, source: BaseConfig, interval: SigmaInterval | None) -> ArtifactRef:
        """An imported model as the auxiliary that is evaluated in `interval`.

        Raises:
            BadInput: it does not fit the base, or the generation is not the first.
        """


@dataclass(frozen=True)
class Sampled:
    """What a generation's data are drawn from: a model, guided by another one or not."""

    base: ArtifactRef
    auxiliary: ArtifactRef | None = None
    omega: float = 0.0
    """Strength of the negative guidance by the auxiliary; 0 is none."""
    interval: SigmaInterval | None = None
    """Noise levels outside of which the auxiliary is not evaluated; None: it is at all."""

    @property
    def inputs(self) -> dict[str, ArtifactRef]:
        """The models as inputs of a stage that samples."""
        if self.auxiliary is None:
            return {"base": self.base}
        return {"base": self.base, "auxiliary": self.auxiliary}


class Method(Frozen):
    """A training procedure A: data to a model that can be sampled. Told apart by `kind`."""

    STRENGTHS: ClassVar[str | None] = None
    """The flows' parameter that lists the strengths to compare; None: the method has none."""
    IS_BASELINE: ClassVar[bool] = False
    """Whether other methods are compared with it."""
    NETS: ClassVar[Mapping[str, str | None]] = {}
    """Its fields that hold a network of its own (or None), each with the kind that is meant where
    none is said; None: the base's. What else is left out about the data is as in the base's."""

    kind: str

    @property
    def label(self) -> str:
        """Its name with its strength, as curves and arms are called."""
        return self.kind

    @property
    def strength(self) -> float:
        """How strongly it is applied: what curves are drawn over; 0 is standard training."""
        return 0.0

    @property
    def extra_mimg(self) -> float | None:
        """Million images that it trains on beyond the base; None: it trains nothing."""
        return None

    @property
    def own_nets(self) -> dict[str, Net]:
        """The networks that it trains beside the base's, by their fields."""
        return {name: net for name in self.NETS if (net := getattr(self, name)) is not None}

    @property
    def imported(self) -> tuple[str, ...]:
        """The names of the imported models that it uses."""
        return ()

    def looked_up(self, find: Callable[[str], ImportedModel]) -> Self:
        """The method with what the names of imported models in it stand for.

        Raises:
            BadInput: by `find`: no model was imported under a name.
        """
        return self

    @classmethod
    def arms(cls, template: Self, strengths: Sequence[float]) -> list[Self]:
        """The method at each strength, a curve each; without `STRENGTHS` the template alone."""
        return [template]

    def with_budget(self, mimg: float) -> Self:
        """The method with so many million images of training beyond the base; one that has no such
        budget stays as it is."""
        return self

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        """Plans what comes between the trained base and sampling.

        Args:
            steps: what it may plan.
            data: the training set of the base, real and maybe polluted.
            base: the model trained on it.
        """
        raise NotImplementedError


METHODS: Variants[Method] = Variants("method", "kind", Method)
"""Every method: a class is one by `@METHODS.add(<kind>)`."""
MethodConfig = Annotated[SerializeAsAny[Method], BeforeValidator(METHODS.read)]
