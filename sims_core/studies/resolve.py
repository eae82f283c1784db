"""What the names in an experiment stand for in the store at hand."""

from __future__ import annotations

from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.data.config import ImportedImages, ImportedSet
from sims_core.data.names import DATASETS
from sims_core.latents.stages import modelled_by
from sims_core.nets.config import BaseConfig
from sims_core.nets.names import MODELS
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment


def resolve_base(experiment: Experiment, store: Store) -> Experiment:
    """The experiment with its imported base, if it has one, looked up: its network is the model.

    Raises:
        BadInput: it was not imported, or does not fit the data.
    """
    name = experiment.base.imported
    if name is None:
        return experiment
    found = MODELS.find(store, name)
    base = BaseConfig(imported=name, model=found)
    try:
        return Experiment.model_validate({**dict(experiment), "base": base, "model": found.model})
    except ValidationError as error:
        raise BadInput(f"model {name}: {one_line(error).removeprefix('value: ')}") from None


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
