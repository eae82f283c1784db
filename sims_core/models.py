"""Names of imported models: models/<name>.json in a store says what each stands for."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sims_core.config import BaseConfig, Experiment, ImportedModel, one_line
from sims_core.errors import BadInput
from sims_core.store import Store, write_atomically


def _path(store: Store, name: str) -> Path:
    return store.root / "models" / f"{name}.json"


def check_model_name(name: str) -> str:
    """Raises BadInput unless `name` can be a model's."""
    try:
        return str(BaseConfig(imported=name).imported)
    except ValidationError as error:
        raise BadInput(f"--name: {one_line(error).removeprefix('imported: ')}") from None


def name_model(store: Store, name: str, model: ImportedModel) -> None:
    """Lets `name` stand for `model` from now on."""
    path = _path(store, name)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, model.model_dump_json())


def find_model(store: Store, name: str) -> ImportedModel:
    """What `name` stands for.

    Raises:
        BadInput: nothing was imported under that name; says how to.
    """
    try:
        return ImportedModel.model_validate_json(_path(store, name).read_bytes())
    except FileNotFoundError:
        known = ", ".join(model_names(store)) or "none yet"
        raise BadInput(
            f"no model {name!r} in the store {store.root} (imported: {known}); bring it by "
            f"`sims model import FOLDER --name {name}`"
        ) from None
    except ValidationError:
        raise BadInput(
            f"{_path(store, name)} is unreadable: import {name} again by "
            f"`sims model import FOLDER --name {name}`"
        ) from None


def model_names(store: Store) -> list[str]:
    """Every name that was given, in order."""
    return sorted(path.stem for path in (store.root / "models").glob("*.json"))


def resolve_base(experiment: Experiment, store: Store) -> Experiment:
    """The experiment with its imported base, if it has one, looked up: its network is the model.

    Raises:
        BadInput: it was not imported, or does not fit the data.
    """
    name = experiment.base.imported
    if name is None:
        return experiment
    found = find_model(store, name)
    base = BaseConfig(imported=name, model=found)
    try:
        return Experiment.model_validate({**dict(experiment), "base": base, "model": found.model})
    except ValidationError as error:
        raise BadInput(f"model {name}: {one_line(error).removeprefix('value: ')}") from None
