"""Names of imported models: models/<name>.json in a store says what each stands for."""

from __future__ import annotations

from pydantic import ValidationError

from sims_core.config import BaseConfig, Experiment, ImportedModel, one_line
from sims_core.errors import BadInput
from sims_core.names import Names
from sims_core.store import Store

MODELS = Names("model", "models", ImportedModel, "sims model import FOLDER")


def check_model_name(name: str) -> str:
    """Raises BadInput unless `name` can be a model's."""
    try:
        return str(BaseConfig(imported=name).imported)
    except ValidationError as error:
        raise BadInput(f"--name: {one_line(error).removeprefix('imported: ')}") from None


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
