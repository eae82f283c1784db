"""Names of imported models: models/<name>.json in a store says what each stands for."""

from __future__ import annotations

from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.nets.config import BaseConfig, ImportedModel
from sims_core.store.names import Names

MODELS = Names(
    "model",
    "models",
    ImportedModel,
    "sims model import FOLDER",
    hint=", where FOLDER may be a network pickle (.pkl) of EDM or EDM2",
)


def check_model_name(name: str) -> str:
    """Raises BadInput unless `name` can be a model's."""
    try:
        return str(BaseConfig(imported=name).imported)
    except ValidationError as error:
        raise BadInput(f"`name`: {one_line(error).removeprefix('imported: ')}") from None
