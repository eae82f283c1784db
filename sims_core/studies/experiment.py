"""Everything that a preset fixes about the science, checked to fit together."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from pydantic import model_validator

from sims_core.common.frozen import Frozen
from sims_core.data.config import DataConfig, DigitsData
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig, PointEvaluationConfig
from sims_core.methods.catalog import METHODS, Method, MethodConfig
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.methods.sims import Sims
from sims_core.nets.config import BaseConfig, ModelConfig, shared_by_nets
from sims_core.training.config import TrainingConfig


class Experiment(Frozen):
    """Everything a preset fixes about the science of one loop; flows turn the flat knobs."""

    data: DataConfig = DigitsData()
    model: ModelConfig = ModelConfig()
    base: BaseConfig = BaseConfig()
    training: TrainingConfig = TrainingConfig()
    sims: Sims = Sims()
    """Template of the SIMS arms; each takes its omega from the flow's `omegas`."""
    methods: dict[str, MethodConfig] = {}
    """Templates of other methods' arms by their kind; one that is not here has its defaults."""
    sampler: SamplerConfig = SamplerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured on images."""
    point_evaluation: PointEvaluationConfig = PointEvaluationConfig()
    """What is measured on points."""

    def template(self, kind: str) -> Method:
        """What the arms of a method are made from.

        One that fine-tunes on self-synthetic data has S and auxiliary as `sims` has them, unless
        `methods` says otherwise: so both share these artifacts.
        """
        if kind == self.sims.kind:
            return self.sims
        method = self.methods.get(kind) or METHODS.classes[kind].model_validate({})
        return method.with_recipe_of(self.sims) if isinstance(method, SelfSynthetic) else method

    @model_validator(mode="before")
    @classmethod
    def _auxiliary_is_for_the_same_images(cls, values: Any) -> Any:
        """What `sims.auxiliary_net` leaves out about the images is as in `model.net`."""
        try:
            net, given = values["model"]["net"], values["sims"]["auxiliary_net"]
            filled = shared_by_nets(net, given) | given
        except (KeyError, TypeError, AttributeError):  # models already, or nothing to fill in
            return values
        return {**values, "sims": {**values["sims"], "auxiliary_net": filled}}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Experiment:
        resolve_name(self.data.KIND).check(self)
        return self
