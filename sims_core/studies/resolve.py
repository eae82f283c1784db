"""What the names in an experiment stand for in the store at hand."""

from __future__ import annotations

import logging
from collections.abc import Collection

from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.data.config import ImportedImages, ImportedSet
from sims_core.data.names import DATASETS
from sims_core.latents.stages import modelled_by
from sims_core.nets.config import ModelConfig
from sims_core.nets.names import MODELS
from sims_core.nets.preconditioning_config import EDM2Loss, EDMLoss
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

logger = logging.getLogger("sims_core.studies")


def resolve_base(experiment: Experiment, store: Store, chosen: Collection[str] = ()) -> Experiment:
    """The experiment with its imported base, if it has one, looked up: its network is the model.

    Whatever is fine-tuned from it is trained with the base's own loss, at the base's own noise
    levels; samplers keep within those that it was trained at.

    Args:
        chosen: dotted names of the settings that a user has set: `training.P_mean` and
            `training.P_std` among them go before the base's own.

    Raises:
        BadInput: it was not imported, or does not fit the data.
    """
    name = experiment.base.imported
    if name is None:
        return experiment
    found = MODELS.find(store, name)
    base = experiment.base.model_copy(update={"model": found})
    try:
        model, training = _own_noise(found.model, experiment.training, chosen)
        sampler = model.sampler_for(experiment.sampler)
        if sampler != experiment.sampler:
            logger.warning(
                "model %s knows noise levels of %g to %g only: they are sampler.sigma_min and "
                "sampler.sigma_max",
                *(name, sampler.sigma_min, sampler.sigma_max),
            )
        changed = {"base": base, "model": model, "training": training, "sampler": sampler}
        return Experiment.model_validate({**dict(experiment), **changed})
    except BadInput as error:
        raise BadInput(f"model {name}: {error}") from None
    except ValidationError as error:
        raise BadInput(f"model {name}: {one_line(error).removeprefix('value: ')}") from None
    except ValueError as error:
        raise BadInput(f"model {name}: {error}") from None


def _own_noise(
    model: ModelConfig, training: TrainingConfig, chosen: Collection[str]
) -> tuple[ModelConfig, TrainingConfig]:
    """Model and training with one P_mean and P_std: those that were chosen, else the model's own.

    Raises:
        BadInput: some were chosen for a loss that has no such numbers.
    """
    if (loss := model.loss) is None:
        return model, training
    names = ("P_mean", "P_std")
    ours = {name: getattr(training, name) for name in names if f"training.{name}" in chosen}
    if not isinstance(loss, EDMLoss | EDM2Loss):
        if ours:
            raise BadInput(
                f"training.{min(ours)} has no meaning for its loss ({loss.kind}), which has noise "
                "levels of its own: leave it out"
            )
        return model, training
    loss = loss.model_copy(update=ours)
    theirs = {name: getattr(loss, name) for name in names}
    return model.model_copy(update={"loss": loss}), training.model_copy(update=theirs)


def _check_sigma_data(experiment: Experiment, store: Store, dataset: ImportedSet) -> None:
    """Raises BadInput if the model expects latents of quite another deviation than the set has."""
    ref = modelled_by(dataset)
    if dataset.encoding is None or not store.path(ref).exists():
        return
    found, expected = store.manifest(ref).details["sigma_data"], experiment.model.sigma_data
    if not 0.8 < expected / found < 1.25:
        raise BadInput(
            f"model.sigma_data is {expected:g}, the deviation of these latents is {found:g}: set "
            f"model.sigma_data={found:g}"
        )


def resolve_data(experiment: Experiment, store: Store) -> Experiment:
    """The experiment with its imported data set, if it has one, looked up in the store.

    Raises:
        BadInput: it was not imported, or the model or the evaluation does not fit it.
    """
    data = experiment.data
    if not isinstance(data, ImportedImages):
        return experiment
    found = data.model_copy(update={"imported": DATASETS.find(store, data.name)})
    if found.imported is not None:
        _check_sigma_data(experiment, store, found.imported)
    try:
        return Experiment.model_validate({**dict(experiment), "data": found})
    except ValidationError as error:
        raise BadInput(f"data set {data.name}: {one_line(error).removeprefix('value: ')}") from None
