"""Autoguidance: guidance by a worse version of the model itself (arXiv 2406.02507)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.methods.base import METHODS, Sampled, Steps
from sims_core.methods.guided import Guided
from sims_core.nets.config import BaseConfig, ImportedModel, ModelConfig, NetConfig
from sims_core.store.artifacts import ArtifactRef
from sims_core.training.config import MOST_KIMG, TrainingConfig

SHARE = 1 / 8
"""Length of the auxiliary's training over the base's: the paper's for EDM2-S on ImageNet-64 [K]."""


@METHODS.add("autoguidance")
class Autoguidance(Guided):
    """Samples away from a smaller or shorter-trained model of the same data:
    s = (1 + omega) s_base - omega s_auxiliary (arXiv 2406.02507, where the weight is 1 + omega).

    The auxiliary is trained on the base's own training set, from scratch, by the base's recipe and
    with the base's seed: with the base's network it is the base's own training, ended early. At a
    constant learning rate it is byte for byte the snapshot that the base would have left there. It
    is no such snapshot of the base's own stage, since that stage would have another name then, and
    no longer be shared with methods that want none.
    """

    NETS: ClassVar[Mapping[str, str | None]] = {"net": None}

    kind: Literal["autoguidance"] = "autoguidance"
    net: NetConfig | None = None
    """The auxiliary's network; None: the base's."""
    kimg: Annotated[float, Field(gt=0, le=MOST_KIMG)] | None = None
    """Length of the auxiliary's training in thousand images; None: an eighth of the base's."""
    auxiliary: BaseConfig = BaseConfig()
    """`auxiliary.imported`: an imported model instead, which is not trained here."""

    @model_validator(mode="after")
    def _one_auxiliary(self) -> Autoguidance:
        trained = [name for name in ("net", "kimg") if getattr(self, name) is not None]
        if self.auxiliary.imported is not None and trained:
            raise ValueError(
                f"auxiliary.imported is trained already: leave out {' and '.join(trained)}"
            )
        return self

    @property
    def imported(self) -> tuple[str, ...]:
        return () if self.auxiliary.imported is None else (self.auxiliary.imported,)

    def looked_up(self, find: Callable[[str], ImportedModel]) -> Self:
        if (name := self.auxiliary.imported) is None:
            return self
        return self.model_copy(update={"auxiliary": BaseConfig(imported=name, model=find(name))})

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        if self.auxiliary.imported is not None:
            auxiliary = steps.bring_auxiliary(self.auxiliary, self.interval)
        else:
            model = self._model(steps.model)
            auxiliary = steps.train(
                roles.TRAIN_AUXILIARY,
                purposes.TRAIN_BASE,
                self._training(steps, model),
                {"data": data},
                model=model,
            )
        return Sampled(base, auxiliary, self.omega, self.interval)

    def _model(self, base: ModelConfig) -> ModelConfig:
        """The base's model with the auxiliary's network; a network of another kind has its own
        preconditioning.

        Raises:
            BadInput: the network does not fit the base's preconditioning.
        """
        if self.net is None:
            return base
        if self.net.kind != base.net.kind:
            return ModelConfig(net=self.net, sigma_data=base.sigma_data)
        try:
            return ModelConfig.model_validate({**dict(base), "net": self.net})
        except ValidationError as error:
            raise BadInput(f"autoguidance: {one_line(error)}") from None

    def _training(self, steps: Steps, model: ModelConfig) -> TrainingConfig:
        """The base's recipe over the auxiliary's length.

        Raises:
            BadInput: that would make it no worse than the base, or how long the base was trained is
                needed and not known.
        """
        if not hasattr(model.net, "BUILT_BY"):
            raise BadInput(
                f"autoguidance needs a model that is trained: {model.net.kind} has no shorter one"
            )
        whole, kimg = steps.base_kimg, self.kimg
        if kimg is None:
            if whole is None:
                raise BadInput(
                    "autoguidance: how long the imported base was trained is not known: give kimg, "
                    "the length of the auxiliary's training, or auxiliary.imported"
                )
            kimg = SHARE * whole
        if self.net is None and whole is not None and kimg > whole:
            raise BadInput(
                f"autoguidance: kimg {kimg:g} of the base's own network is longer than the base's "
                f"{whole:g}: the auxiliary must be worse than the base"
            )
        told = getattr(model.net, "is_told_of_augmentation", False)
        augment = steps.training.augment if told else 0.0
        return steps.training.model_copy(update={"kimg": kimg, "augment": augment})
