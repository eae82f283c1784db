"""What the names in an experiment stand for in the store at hand."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from sims_core.common.digest import file_sha256
from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.data.config import ImportedImages, ImportedSet
from sims_core.data.names import DATASETS
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import ONLY_FID, ReferenceFileConfig
from sims_core.evaluation.stages import IMPORT_REFERENCE
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


def resolve_methods(experiment: Experiment, store: Store, asked: Collection[str]) -> Experiment:
    """The experiment with what its methods' names of imported models stand for.

    Args:
        asked: kinds of the methods that are run; the names of others are not looked up.

    Raises:
        BadInput: a model was not imported.
    """
    methods = {
        kind: method.looked_up(lambda name: MODELS.find(store, name)) if kind in asked else method
        for kind, method in experiment.methods.items()
    }
    return experiment.model_copy(update={"methods": methods})


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
    if 0.8 < expected / found < 1.25:
        return
    if (base := experiment.base.imported) is not None:
        raise BadInput(
            f"{base} was trained on data of deviation {expected:g}, these latents have {found:g}: "
            "encode the images by the autoencoder and the scaling that it was trained with "
            "(`sims data encode`)"
        )
    raise BadInput(
        f"model.sigma_data is {expected:g}, the deviation of these latents is {found:g}: set "
        f"model.sigma_data={found:g}"
    )


def fit_networks_to_data(
    experiment: Experiment, store: Store, chosen: Collection[str] = ()
) -> Experiment:
    """The experiment with networks for images of the size and channels of its imported set, and
    features that need no classes where the set has none.

    Each of these is said where it is not what the experiment had.

    Args:
        chosen: dotted names of the settings that a user has set; they stay.

    Raises:
        BadInput: the set was not imported, or its images are not square or do not suit the network.
    """
    data = experiment.data
    if not isinstance(data, ImportedImages):
        return experiment
    found = DATASETS.find(store, data.name)
    seen = found.modelled
    if seen.height != seen.width:
        raise BadInput(
            f"data set {data.name}: its images are {seen.width} x {seen.height}, and networks are "
            "for square ones: import them with `size` N"
        )
    changes: dict[str, object] = {}
    if experiment.base.imported is None:  # an imported one is for what it was trained on
        for net in ("model.net", *experiment.auxiliary_nets):
            changes |= {f"{net}.image_size": seen.height, f"{net}.channels": seen.channels}
    evaluation, is_ours = experiment.evaluation, "evaluation.features" not in chosen
    if is_ours and not found.contents.num_classes and evaluation.features == "classifier":
        wanted = evaluation.model_copy(update={"features": "inception"})
        least = max(wanted.num_images, wanted.fewest_images)
        changes |= {"evaluation.features": "inception", "evaluation.num_images": least}
    config = experiment.settings
    for name, value in changes.items():
        *path, last = name.split(".")
        level = config
        for part in path:
            level = level[part]
        if name not in chosen and level[last] != value:
            logger.warning("%s is %s, as the images of %s want it", name, value, data.name)
            level[last] = value
    try:
        return Experiment.model_validate(config)
    except ValidationError as error:
        raise BadInput(f"data set {data.name}: {one_line(error).removeprefix('value: ')}") from None


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


def resolve_reference(experiment: Experiment, store: Store) -> Experiment:
    """The experiment with the digest of the file that it compares images with, if it does.

    A file that the store has not read yet is checked.

    Raises:
        BadInput: there is none, it is no mean and covariance, or of other features.
    """
    evaluation = experiment.evaluation
    if evaluation.reference is None:
        return experiment
    path = _reference_path(evaluation.reference)
    if not path.is_file():
        raise BadInput(f"evaluation.reference: {path} is no file: want an .npz with mu and sigma")
    sha256 = file_sha256(path)
    if evaluation.reference_sha256 not in (None, sha256):
        raise BadInput(f"evaluation.reference_sha256 is not that of {path}, which is {sha256}")
    if not store.path(IMPORT_REFERENCE.request(ReferenceFileConfig(sha256=sha256)).ref).exists():
        _check_reference(path, evaluation.features)
    logger.warning("images are compared with %s: %s", path.name, ONLY_FID)
    evaluation = evaluation.model_copy(update={"reference_sha256": sha256})
    return experiment.model_copy(update={"evaluation": evaluation})


def _reference_path(reference: str) -> Path:
    return Path(reference).expanduser().absolute()


def _check_reference(path: Path, features: str) -> None:
    """Raises BadInput unless the file is a mean and covariance of such features."""
    from sims_core.evaluation.reference_files import FEATURES, read_reference  # needs numpy

    found, wanted = len(read_reference(path)["mu"]), FEATURES[features]
    if found != wanted:
        raise BadInput(
            f"evaluation.reference: {path} is of {found} features, {features} has {wanted}: set "
            "evaluation.features to those that it was made with"
        )


def execution_of(experiment: Experiment, execution: Execution) -> Execution:
    """The execution with the files that the experiment names itself."""
    if (reference := experiment.evaluation.reference) is None:
        return execution
    files = execution.files.model_copy(update={"reference": _reference_path(reference)})
    return execution.model_copy(update={"files": files})
