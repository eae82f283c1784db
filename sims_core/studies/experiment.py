"""Everything that a preset fixes about the science, checked to fit together."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from pydantic import model_validator

from sims_core.common.frozen import WHOLE, Frozen
from sims_core.data.config import DataConfig, DigitsData
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig, PointEvaluationConfig
from sims_core.methods.catalog import METHODS, Method, MethodConfig
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.methods.sims import Sims
from sims_core.nets.config import NETS, SHARED_BY_NETS, BaseConfig, ModelConfig, Net
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

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting as JSON values; of `methods` those that were given, since the others may be
        as `sims` has them."""
        found = self.model_dump(mode="json", context={WHOLE: True})
        for kind, method in self.methods.items():
            given, written = {"kind", *method.model_fields_set}, found["methods"][kind]
            found["methods"][kind] = {k: v for k, v in written.items() if k in given}
        return found

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Images of one step of each training, by the setting that says so."""
        methods = {"sims": self.sims, **{f"methods.{kind}": m for kind, m in self.methods.items()}}
        given = {
            f"{setting}.batch_size": method.batch_size
            for setting, method in methods.items()
            if isinstance(method, SelfSynthetic)
            and (method is self.sims or "batch_size" in method.model_fields_set)
        }
        return {"training.batch_size": self.training.batch_size, **given}

    @property
    def auxiliary_nets(self) -> dict[str, Net]:
        """The networks that methods train beside the base's, by their settings."""
        methods = {"sims": self.sims, **{f"methods.{kind}": m for kind, m in self.methods.items()}}
        return {
            f"{setting}.{field}": net
            for setting, method in methods.items()
            for field, net in method.own_nets.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _methods_say_what_they_are(cls, values: Any) -> Any:
        """A method in `methods` is of the kind that it is called."""
        methods = values.get("methods") if isinstance(values, dict) else None
        if not isinstance(methods, dict):
            return values
        told = {
            kind: {"kind": kind, **method} if isinstance(method, dict) else method
            for kind, method in methods.items()
        }
        return {**values, "methods": told}

    @model_validator(mode="before")
    @classmethod
    def _auxiliaries_are_for_the_same_images(cls, values: Any) -> Any:
        """What a method's own network leaves out about the images is as in `model.net`."""
        try:
            base = values["model"]["net"]
        except (KeyError, TypeError):
            base = None
        if not isinstance(base, dict):  # a network already, or none to have something of
            return values
        values = {**values}
        if isinstance(sims := values.get("sims"), dict):
            values["sims"] = _filled(sims, Sims, base)
        if isinstance(methods := values.get("methods"), dict):
            values["methods"] = {
                kind: _filled(method, METHODS.classes.get(kind, Method), base)
                if isinstance(method, dict)
                else method
                for kind, method in methods.items()
            }
        return values

    @model_validator(mode="after")
    def _methods_have_their_names(self) -> Experiment:
        for kind, method in self.methods.items():
            if method.kind != kind:
                raise ValueError(f"methods.{kind} is of kind {method.kind!r}: call it that")
            if kind == self.sims.kind:
                raise ValueError(f"methods.{kind} is not looked at: the settings are {kind} itself")
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Experiment:
        resolve_name(self.data.KIND).check(self)
        return self


def _filled(method: dict[str, Any], variant: type[Method], base: dict[str, Any]) -> dict[str, Any]:
    """The fields of a method, with what is left out of its networks as in the base's."""
    filled = dict(method)
    for name, kind in variant.NETS.items():
        if isinstance(given := method.get(name), dict):
            own = {"kind": kind or base.get("kind")} | given
            known = NETS.classes.get(str(own["kind"]), Net).model_fields
            filled[name] = {k: base[k] for k in SHARED_BY_NETS if k in base and k in known} | own
    return filled
