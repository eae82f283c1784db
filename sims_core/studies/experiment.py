"""Everything that a preset fixes about the science, checked to fit together."""

from __future__ import annotations

from typing import Any

from pydantic import (
    model_validator,
)

from sims_core.common.frozen import Frozen
from sims_core.data.config import (
    DataConfig,
    DigitsData,
    Encoding,
    GaussianData,
    ImageData,
    ImportedImages,
    encoding_of,
    modelled,
)
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig, PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import (
    IMAGE_NETS,
    SHARED_BY_NETS,
    BaseConfig,
    ImageNet,
    MLPConfig,
    ModelConfig,
)
from sims_core.training.config import TrainingConfig


def _check_net_fits(net: ImageNet, data: ImageData) -> None:
    """Raises ValueError if the network is for other images, or other classes, than the data has.

    Images that are not imported yet have nothing to compare.
    """
    if (found := modelled(data)) is None:
        return
    name = data.name if isinstance(data, ImportedImages) else data.source
    wanted = (net.channels, net.image_size, net.image_size)
    if (found.channels, found.height, found.width) != wanted:
        what, remedy = "images", ", or import the images with --size and --channels"
        if encoding_of(data) is not None:
            what, remedy = "latents", ""
        elif net.channels not in (1, 3):
            remedy = ", or encode the images by `sims data encode`"
        raise ValueError(
            f"model.net is for {what} of {net.channels} x {net.image_size} x {net.image_size} "
            f"(channels x height x width), those of {name} have "
            f"{found.channels} x {found.height} x {found.width}: set model.net.image_size and "
            f"model.net.channels{remedy}"
        )
    if net.num_classes and not found.num_classes:
        raise ValueError(
            f"model.net.num_classes is {net.num_classes}, but the images of {name} have no labels: "
            "set it to 0, or import them with --labels"
        )
    if net.num_classes and net.num_classes != found.num_classes:
        raise ValueError(
            f"model.net.num_classes is {net.num_classes}, {name} has {found.num_classes} classes: "
            f"set it to {found.num_classes}, or to 0 for none"
        )


class Experiment(Frozen):
    """Everything a preset fixes about the science of one loop; flows turn the flat knobs."""

    data: DataConfig = DigitsData()
    model: ModelConfig = ModelConfig()
    base: BaseConfig = BaseConfig()
    training: TrainingConfig = TrainingConfig()
    sims: Sims = Sims()
    """Template of the SIMS arms; each takes its omega from the flow's `omegas`."""
    sampler: SamplerConfig = SamplerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    """Of images."""
    point_evaluation: PointEvaluationConfig = PointEvaluationConfig()
    """Of points."""

    @model_validator(mode="after")
    def _data_fit_model(self) -> Experiment:
        net = self.model.net
        if isinstance(self.data, GaussianData) == isinstance(net, IMAGE_NETS):
            raise ValueError(f"a {net.kind} network cannot model {self.data.source} data")
        if isinstance(net, MLPConfig) and net.dim != getattr(self.data, "dim", None):
            raise ValueError(f"model.net.dim is {net.dim}, the data's dimension is another")
        if isinstance(net, IMAGE_NETS) and not isinstance(self.data, GaussianData):
            _check_net_fits(net, self.data)
        return self

    @property
    def encoding(self) -> Encoding | None:
        """What made the latents that the networks see; None: they see the data."""
        return None if isinstance(self.data, GaussianData) else encoding_of(self.data)

    @model_validator(mode="after")
    def _points_are_sampled_in_full(self) -> Experiment:
        if isinstance(self.data, GaussianData) and self.sampler.precision != "fp32":
            raise ValueError("sampler.precision must be fp32 for points")
        return self

    @model_validator(mode="after")
    def _latents_are_not_augmented(self) -> Experiment:
        for name in ("x_flip", "augment"):
            if getattr(self.training, name) and self.encoding is not None:
                raise ValueError(
                    f"training.{name} must be {'false' if name == 'x_flip' else 0} for latents: "
                    "those of a changed image are not the image's own, changed"
                )
        return self

    @model_validator(mode="after")
    def _network_is_told_of_augmentation(self) -> Experiment:
        if not self.training.augment:
            return self
        nets = {"model.net": self.model.net, "sims.auxiliary_net": self.sims.auxiliary_net}
        if self.base.imported is not None:  # it is fine-tuned as it can be
            del nets["model.net"]
        for name, net in nets.items():
            if net is not None and not getattr(net, "augment_labels", False):
                remedy = f"set {name}.augment_labels=true or" if net.kind == "unet" else "set"
                raise ValueError(
                    f"training.augment {self.training.augment} needs a network that is told of it, "
                    f"and {name} is not: {remedy} training.augment=0"
                )
        return self

    @model_validator(mode="before")
    @classmethod
    def _auxiliary_is_for_the_same_images(cls, values: Any) -> Any:
        """What `sims.auxiliary_net` leaves out about the images is as in `model.net`."""
        try:
            net, given = values["model"]["net"], values["sims"]["auxiliary_net"]
            filled = {name: net[name] for name in SHARED_BY_NETS} | given
        except (KeyError, TypeError):  # models already, or nothing to fill in
            return values
        return {**values, "sims": {**values["sims"], "auxiliary_net": filled}}

    @model_validator(mode="after")
    def _auxiliary_fits_base(self) -> Experiment:
        net, other = self.model.net, self.sims.auxiliary_net
        if other is None:
            return self
        if not isinstance(net, IMAGE_NETS):
            raise ValueError(f"sims.auxiliary_net is a U-Net, model.net is {net.kind!r}")
        for name in ("image_size", "channels", "num_classes"):
            if getattr(other, name) != getattr(net, name):
                raise ValueError(
                    f"sims.auxiliary_net.{name} {getattr(other, name)} must be model.net's, "
                    f"{getattr(net, name)}"
                )
        return self

    @property
    def auxiliary_model(self) -> ModelConfig | None:
        """The auxiliary's own architecture, None where it is the base's."""
        if self.sims.auxiliary_net is None:
            return None
        return ModelConfig(net=self.sims.auxiliary_net, sigma_data=self.model.sigma_data)

    @property
    def trained_model(self) -> ModelConfig:
        """The model with as many replicates as the data."""
        if not isinstance(self.model.net, MLPConfig) or not isinstance(self.data, GaussianData):
            return self.model
        net = self.model.net.model_copy(update={"replicates": self.data.replicates})
        return self.model.model_copy(update={"net": net})

    @model_validator(mode="after")
    def _enough_real_images(self) -> Experiment:
        if isinstance(self.data, GaussianData) or self.data.contents is None:
            return self
        evaluation, count = self.evaluation, self.data.contents.count
        if count < evaluation.fewest_images:
            raise ValueError(
                f"{count} real images are too few for an FID in {evaluation.features} features: "
                f"want at least {evaluation.fewest_images} (evaluation.min_images), or set "
                "evaluation.allow_small_n=true"
            )
        for name in ("kid_subset_size", "prc_neighborhood"):
            if getattr(evaluation, name) >= count:
                raise ValueError(
                    f"evaluation.{name} {getattr(evaluation, name)} must be below the number of "
                    f"real images, {count}"
                )
        return self

    def swept_auxiliary_training(self, budget_mimg: float) -> TrainingConfig:
        """`auxiliary_training` so that a training of every smaller budget is its beginning.

        Its average's half-life is a tenth of the images seen so far, whatever the budget.
        """
        sims = self.sims.model_copy(update={"budget_mimg": budget_mimg})
        training = self.model_copy(update={"sims": sims}).auxiliary_training
        return training.model_copy(update={"ema_rampup_ratio": 0.1})

    @property
    def auxiliary_training(self) -> TrainingConfig:
        """The base's recipe with the fine-tune's length, batch and rate.

        Constant rate after no ramp: within a budget this short a ramp or decay would only shrink
        the budget. The EMA's half-life is a tenth of the budget, so that the base's weights have
        all but left it (2^-10) when the budget is spent. An imported network that cannot be told of
        augmentation is not augmented for.
        """
        kimg = self.sims.budget_mimg * 1000
        told = getattr(self.sims.auxiliary_net or self.model.net, "augment_labels", False)
        return self.training.model_copy(
            update={
                "kimg": kimg,
                "batch_size": self.sims.batch_size,
                "learning_rate": self.sims.learning_rate,
                "ramp_kimg": 0.0,
                "decay": "constant",
                "ema_halflife_kimg": kimg / 10,
                "augment": self.training.augment if told else 0.0,
            }
        )
